package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take to end after SIGTERM: with 9,000 sessions on a busy machine HAProxy needed
// more than 5 s.
const stopTimeout = 15 * time.Second

// A process is a program that the bench has started. It has a process group of its own, so that Ctrl-C reaches only the
// bench, which then ends the process. If the bench is killed, the kernel kills the process. Its methods may be called
// from one goroutine; its zero value is of no use, see start.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string        // file with its stderr (and its stdout, unless it is read)
	exited chan struct{} // closed by wait when the process has ended
	err    error         // how it ended; valid once exited is closed
}

// start runs cmd. Its stderr goes to a file in dir, and so does its stdout if the
// command has none.
func start(name string, cmd *exec.Cmd, dir string) (*process, error) {
	log, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own descriptor
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGTERM
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log.Name(), exited: make(chan struct{})}
	go p.wait() // stop waits for it
	return p, nil
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.exited)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// running returns an error that says how the process ended, if it has.
func (p *process) running() error {
	select {
	case <-p.exited:
		return p.failure(fmt.Errorf("ended: %v", p.cmd.ProcessState))
	default:
		return nil
	}
}

// failure adds the end of the process's log to err.
func (p *process) failure(err error) error {
	const tail = 2 << 10 // enough for a configuration error of any contender
	b, readErr := os.ReadFile(p.log)
	if readErr != nil {
		return fmt.Errorf("%s: %w", p.name, errors.Join(err, readErr))
	}
	b = bytes.TrimSpace(b[max(0, len(b)-tail):])
	if len(b) == 0 {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return fmt.Errorf("%s: %w; it said:\n%s", p.name, err, b)
}

// end waits for the process to end by itself, for at most that long, and returns an error if it does not or fails.
func (p *process) end(ctx context.Context, within time.Duration) error {
	select {
	case <-p.exited:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(within):
		return p.failure(fmt.Errorf("did not end within %s", within))
	}
	if p.err != nil {
		return p.failure(p.err)
	}
	return nil
}

// used returns the CPU time of a process that has ended.
func (p *process) used() cpuReading {
	t := p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	return cpuReading{clock: t, stat: t}
}

// stop ends the process with SIGTERM and returns when it is gone. If it does not end in time, stop kills it and its
// children and returns an error. stop may be called again.
func (p *process) stop() error {
	select {
	case <-p.exited:
		return nil
	default:
	}
	pids, err := family(p.pid()) // before it ends, since its children then get another parent
	if err != nil {
		return err
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTimeout):
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %s: %w", p.name, err)
		}
	}
	<-p.exited
	return p.failure(fmt.Errorf("did not end within %s of SIGTERM and was killed", stopTimeout))
}

// startSelf runs this program again in another role.
func startSelf(role string, dir string, stdin, stdout *os.File) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-role", role)
	if stdin != nil { // a nil *os.File in the interface would not be nil
		cmd.Stdin = stdin
	}
	cmd.Stdout = stdout
	return start(role, cmd, dir)
}

// A balancer is a contender's program that runs.
type balancer struct {
	proc   *process
	setup  setup
	file   string // with its configuration
	config string // the same
}

// startBalancer writes the contender's configuration into s.dir and runs it.
func startBalancer(c contender, p program, s setup) (balancer, error) {
	b := balancer{setup: s, file: filepath.Join(s.dir, c.name+".conf"), config: c.config(p, s)}
	err := os.WriteFile(b.file, []byte(b.config), 0o644)
	if err != nil {
		return b, err
	}
	b.proc, err = start(c.name, exec.Command(p.path, c.args(b.file, s)...), s.dir)
	return b, err
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
