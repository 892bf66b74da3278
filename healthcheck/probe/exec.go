package probe

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

const (
	// keptOutputBytes is how much of the end of a program's output is kept. Only its last line is shown.
	keptOutputBytes = 4 << 10
	// pipeBytes is how much a pipe holds (pipe(7)), and so how much may be left to read after the program has ended.
	pipeBytes = 64 << 10
	// plainPath is the PATH of a program if the balancer itself has none.
	plainPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Exec checks with a program of the operator: the target is healthy if the program exits with 0. It is a plain value;
// its zero value has no program and is of no use.
//
// The program runs without a shell. Its standard input is empty. Of the balancer's environment it gets PATH alone.
// These variables describe the target:
//
//	LIMELOAD_TARGET   its group and name, which is pool/backend
//	LIMELOAD_BACKEND  its name
//	LIMELOAD_ADDRESS  host:port, with brackets around an IPv6 host
//	LIMELOAD_HOST, LIMELOAD_PORT
//
// The detail or the reason of the check is the last line of its output, be it standard output or standard error. When
// the program ends, or its time is over, its process group is killed. That leaves processes that have left the group,
// as daemons do. A process that runs as another user by then (sudo) cannot be killed, and the check waits until it
// ends.
//
// If the program is missing or may not be run, the check is inconclusive.
type Exec struct {
	Argv []string // the program and its arguments; a program without a slash is looked up in PATH
	Env  []string // further variables, as name=value; they may replace PATH, but not those above
	Dir  string   // working directory; "" = the balancer's
}

// Cost returns one program and no socket.
func (c Exec) Cost() (sockets, programs int) { return 0, 1 }

// Check runs the program for t.
func (c Exec) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	if len(c.Argv) == 0 {
		return healthcheck.Result{}, cannotCheckf("no program to run")
	}
	if ctx.Err() != nil {
		return healthcheck.Result{}, execStopped(ctx, time.Now(), "")
	}
	output, write, err := os.Pipe()
	if err != nil {
		return healthcheck.Result{}, c.startError(err)
	}
	defer output.Close()
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.Dir = c.environment(t), c.Dir
	// With a file cmd starts no goroutine to copy the output. Wait would wait for that, until all that have the pipe
	// end.
	cmd.Stdout, cmd.Stderr = write, write
	var last tail
	var reader sync.WaitGroup
	reader.Go(func() { last.readFrom(output) })
	start := time.Now()
	err = runGroup(ctx, cmd, func() { write.Close() })
	latency := time.Since(start)
	// The reader must not wait for the end of the output: a process that left the group may keep the pipe open for
	// ever.
	if output.SetReadDeadline(time.Unix(1, 0)) != nil {
		output.Close()
	}
	reader.Wait()
	last.drain(output)

	line := last.line()
	var exit *exec.ExitError
	switch {
	case err == nil: // even if its time is just over
		return healthcheck.Result{Latency: latency, Detail: orElse(line, "exit status 0")}, nil
	case !errors.As(err, &exit):
		return healthcheck.Result{}, c.startError(err)
	case ctx.Err() != nil:
		return healthcheck.Result{}, execStopped(ctx, start, line)
	}
	return healthcheck.Result{}, exitError(exit.ProcessState, line).because(err)
}

// environment returns the environment of the program. If two variables have the same name, the last one counts.
func (c Exec) environment(t healthcheck.Target) []string {
	host, port := t.Addr.Addr().String(), strconv.Itoa(int(t.Addr.Port()))
	address := net.JoinHostPort(host, port)
	if t.Path == "" && t.Addr.Port() == 0 {
		port, address = "", host
	}
	if t.Path != "" { // as libpq and others name a host that is a socket
		host, port, address = t.Path, "", "unix:"+t.Path
	}
	env := append([]string{"PATH=" + orElse(os.Getenv("PATH"), plainPath)}, c.Env...)
	return append(env, "LIMELOAD_TARGET="+t.Group+"/"+t.Name, "LIMELOAD_BACKEND="+t.Name,
		"LIMELOAD_ADDRESS="+address, "LIMELOAD_HOST="+host, "LIMELOAD_PORT="+port)
}

// startError says why the program could not be run. The check is then inconclusive: if a program is missing, or is just
// being replaced, its targets must not become unhealthy.
func (c Exec) startError(err error) error {
	if short := shortage(err); short != nil {
		return short
	}
	switch program := escaped(c.Argv[0]); {
	case c.Dir != "" && !isFolder(c.Dir): // Start returns the same error for a missing program
		return cannotCheckf("no folder %s", escaped(c.Dir)).because(err)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return cannotCheckf("no program %s", program).because(err) // or its interpreter is missing, if it is a script
	case errors.Is(err, fs.ErrPermission):
		return cannotCheckf("not permitted to run %s", program).because(err)
	case errors.Is(err, syscall.ENOEXEC):
		return cannotCheckf("not a program: %s", program).because(err)
	default:
		return cannotCheckf("cannot run %s: %s", program, escaped(err.Error())).because(err)
	}
}

// isFolder reports whether there is a folder of that name that we may see.
func isFolder(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// execStopped is the failure of a program that was killed because ctx ended. line is its last line.
func execStopped(ctx context.Context, start time.Time, line string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return cancelled(ctx.Err())
	}
	if line == "" {
		return unhealthyf("timed out after %v", waited(ctx, start)).because(ctx.Err())
	}
	return unhealthyf("timed out after %v: %s", waited(ctx, start), line).because(ctx.Err())
}

// exitError is the failure of a program that did not exit with 0. line is its last line.
func exitError(s *os.ProcessState, line string) *checkError {
	signal := syscall.Signal(0)
	if status, ok := s.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		signal = status.Signal()
	}
	switch {
	case signal != 0 && line == "":
		return unhealthyf("killed by signal %d (%v)", int(signal), signal)
	case signal != 0:
		return unhealthyf("killed by signal %d (%v): %s", int(signal), signal, line)
	case line == "":
		return unhealthyf("exit status %d", s.ExitCode())
	}
	return unhealthyf("exit status %d: %s", s.ExitCode(), line)
}

// orElse returns s, or otherwise if s is empty.
func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// A tail keeps the last keptOutputBytes of an output. Its zero value is empty. It is not safe for concurrent use.
type tail struct{ b []byte }

// readFrom reads f to its end, or to the first error.
func (t *tail) readFrom(f *os.File) {
	buf := make([]byte, 4<<10)
	for {
		n, err := f.Read(buf)
		t.add(buf[:n])
		if err != nil {
			return
		}
	}
}

// drain reads what is left in the pipe f, without waiting for more. To give the reader a little more time instead (50
// ms were tried) lost the output of 6 programs of 85 on a busy machine.
func (t *tail) drain(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { // not conn.Read, since the read deadline is over
		buf := make([]byte, 4<<10)
		for left := pipeBytes; left > 0; {
			n, err := syscall.Read(int(fd), buf) // does not block: see os.Pipe
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil || n <= 0 {
				return
			}
			t.add(buf[:n])
			left -= n
		}
	})
}

// add appends b and drops the oldest bytes beyond keptOutputBytes.
func (t *tail) add(b []byte) {
	t.b = append(t.b, b...)
	if over := len(t.b) - keptOutputBytes; over > 0 {
		t.b = t.b[:copy(t.b, t.b[over:])]
	}
}

// line returns the last line that is not blank, in quotes; "" if there is none.
func (t *tail) line() string {
	text := bytes.TrimSpace(t.b)
	if len(text) == 0 {
		return ""
	}
	return quoted(bytes.TrimSpace(text[bytes.LastIndexByte(text, '\n')+1:]))
}
