package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fdconn"
)

// killPatience is how long a process may take to be gone after SIGKILL. Only the kernel can delay that.
const killPatience = 5 * time.Second

// siblingLook is the pause between two looks for a process that the kernel does not report the end of.
const siblingLook = 50 * time.Millisecond

// endPatience is how long a process that has closed its connection may take to end, so that its exit status is known.
const endPatience = time.Second

// ThisProgram returns the path and the arguments to start this program again, as it is at that path by then. args are
// those of this process.
func ThisProgram(args []string) (program []string, err error) {
	if len(args) == 0 {
		return nil, errors.New("the program was started without a name")
	}
	// what /proc says is the path after all links, and a link may point to another version by the time of an upgrade
	path := args[0]
	if !strings.Contains(path, "/") {
		if path, err = exec.LookPath(path); err != nil {
			path = ""
		}
	}
	running, err := os.Stat("/proc/self/exe")
	if named, missing := os.Stat(path); err != nil || missing != nil || !os.SameFile(running, named) {
		if path, err = os.Executable(); err != nil {
			return nil, err
		}
		path = strings.TrimSuffix(path, " (deleted)") // proc(5), /proc/pid/exe
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	return append([]string{path}, args[1:]...), nil
}

// A newProcess is the process that is to take over. Its methods are called by one goroutine.
type newProcess struct {
	// set once, then read-only
	conn  *fdconn.Conn
	pid   int
	cmd   *exec.Cmd
	watch *os.File      // becomes readable when the process is gone; nil if there is no such thing
	ended chan struct{} // closed when the process is gone

	sibling bool // it is a child of this process's parent

	status error // why it ended; set before ended is closed
	hello  hello

	patience time.Duration // bounds each ask; 0 for no bound but that of bound
}

// startNewProcess starts a program. It gets a session of its own, so that the terminal's signals for the old process do
// not reach it, and shares standard output and standard error. With environment, that of a service manager, it becomes a
// child of this one's parent: systemd waits for the end of a main process only if that is a child of its own. It would
// not see it fail, and with KillMode=mixed it would kill it at once, and not let it drain, when the service is stopped.
func startNewProcess(program []string, environment []string) (*newProcess, error) {
	conn, theirs, err := fdconn.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Env = append(append(os.Environ(), environment...), fmt.Sprintf("%s=%d", upgradeVariable, firstInherited))
	cmd.ExtraFiles = []*os.File{theirs} // the first is firstInherited
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	sibling := len(environment) > 0
	if sibling {
		cmd.SysProcAttr.Cloneflags, cmd.SysProcAttr.PidFD = syscall.CLONE_PARENT, &pidfd
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start %s: %w", program[0], err)
	}
	n := &newProcess{conn: conn, pid: cmd.Process.Pid, cmd: cmd, sibling: sibling, ended: make(chan struct{})}
	if pidfd >= 0 {
		_ = syscall.SetNonblock(pidfd, true) // for the poller of the runtime; wait copes without
		n.watch = os.NewFile(uintptr(pidfd), "pidfd")
	}
	go n.wait() // ends with the process, which kill ends, or which outlives this one
	return n, nil
}

// wait waits for the end of the process.
func (n *newProcess) wait() {
	defer close(n.ended)
	if !n.sibling {
		n.status = n.cmd.Wait()
		return
	}
	n.status = errors.New("the service manager knows its exit status")
	if n.watch != nil {
		defer n.watch.Close()
		if raw, err := n.watch.SyscallConn(); err == nil {
			looked := false
			err = raw.Read(func(uintptr) bool { // it is called again when the process is gone
				defer func() { looked = true }()
				return looked
			})
			if err == nil {
				return
			}
		}
	}
	for syscall.Kill(n.pid, 0) == nil { // without a pidfd (Linux 5.2)
		time.Sleep(siblingLook)
	}
}

// kill ends the process and returns when it is gone, so that nobody but this process has what was handed over.
func (n *newProcess) kill() {
	_ = n.cmd.Process.Kill() // it may be gone
	select {
	case <-n.ended:
	case <-time.After(killPatience):
	}
	n.conn.Close()
}

// bound makes the calls of the connection end with ctx. The returned function ends that.
func (n *newProcess) bound(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { n.conn.SetDeadline(time.Unix(1, 0)) })
}

// ask sends a message and receives the answer.
func (n *newProcess) ask(kind string, body any, fds []int, answer string, into any) error {
	if n.patience > 0 {
		n.conn.SetDeadline(time.Now().Add(n.patience))
	}
	if err := n.conn.Send(kind, body, fds...); err != nil {
		if isEnd(err) {
			if why := n.lastWords(); why != nil {
				return why
			}
		}
		return err
	}
	return n.receive(answer, into)
}

// receive receives an answer of one kind.
func (n *newProcess) receive(kind string, into any) error {
	m, err := n.conn.Receive()
	if err != nil {
		return err
	}
	defer m.CloseFDs() // it has none
	switch m.Kind {
	case kind:
		return m.Decode(into)
	case kindRefused:
		return refusalOf(m)
	}
	return fmt.Errorf("message %q came instead of %q", m.Kind, kind)
}

// refusalOf returns why the new process does not take over.
func refusalOf(m fdconn.Message) error {
	var r refused
	if err := m.Decode(&r); err != nil {
		return err
	}
	if r.Configuration {
		return &admin.ConfigError{Err: errors.New(r.Error)}
	}
	return fmt.Errorf("the new process does not take over: %s", r.Error)
}

// lastWords returns the refusal that a process has sent before it closed its end; nil if there is none.
func (n *newProcess) lastWords() error {
	for {
		m, err := n.conn.Receive()
		if err != nil {
			return nil
		}
		m.CloseFDs()
		if m.Kind == kindRefused {
			return refusalOf(m)
		}
	}
}

// explain returns what an error of the connection means.
func (n *newProcess) explain(ctx context.Context, deadline time.Duration, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), admin.ErrEnding):
		return admin.ErrEnding
	case n.patience > 0 && errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the new process %d did not answer for %s, and was killed", n.pid, n.patience)
	case n.patience == 0 && ctx.Err() != nil:
		return fmt.Errorf("the new process %d did not take over within %s, and was killed", n.pid, deadline)
	case !isEnd(err):
		return err
	}
	select {
	case <-n.ended:
		status := "exit status 0"
		if n.status != nil {
			status = n.status.Error()
		}
		return fmt.Errorf("the new process %d ended before it took over: %s; its messages are in the log", n.pid, status)
	case <-time.After(endPatience):
		return fmt.Errorf("the new process %d closed the connection before it took over, and was killed", n.pid)
	}
}
