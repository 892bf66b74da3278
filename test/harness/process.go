package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// shownLines is how many last lines of each output a failed test shows.
const shownLines = 40

// A Command says what to start. Its zero value lacks only Path.
type Command struct {
	Path        string
	Args        []string
	Env         []string // besides the test's own
	Dir         string
	User        *syscall.Credential // nil: the invoking user
	Descriptors int                 // soft and hard limit of open files; 0: that of the test
	Stdin       bool                // keep a pipe to its standard input, see Process.Say
	On          *Host               // nil: the test's own network namespace; not with User

	onStderr func(line string) // gets each line before it is stored; called from one goroutine
	onEnd    func()            // called when the output is complete
}

// A Process is a started program. It is killed, by its pid, at the end of the test that started it if it still runs
// then. Its methods may be called from any goroutine, except those that take a testing.TB.
type Process struct {
	// set once, then read-only
	name   string
	cmd    *exec.Cmd
	stdin  *os.File // nil unless asked for
	stdout feed[string]
	stderr feed[string]
	done   chan struct{} // closed by wait when the process has ended and its output is complete

	code int // written before done is closed: the exit code, or -1 after a signal
}

// Start starts c and returns at once.
func Start(t testing.TB, c Command) *Process {
	t.Helper()
	path, args := c.Path, c.Args
	if c.Descriptors > 0 {
		// exec keeps the pid, so that signals and /proc concern the program and not the shell
		limit := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, c.Descriptors)
		path, args = "/bin/sh", append([]string{"-c", limit, path}, args...)
	}
	if c.On != nil {
		var err error
		if path, args, err = c.On.enter(path, args); err != nil { // it is executed in place, too
			t.Fatal(err)
		}
	}
	p := &Process{name: filepath.Base(c.Path), cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir = c.Dir
	p.cmd.Env = append(os.Environ(), c.Env...)
	// The process is killed with the test process, so that a killed test run leaves nothing behind. For the kernel the
	// parent is the thread that started it, and Go does not end a thread without a locked goroutine
	// (golang.org/issue/27505).
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.User, Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = Patience // children that inherited the output must not keep wait for ever
	stdout := &lineWriter{line: p.stdout.add}
	stderr := &lineWriter{line: func(line string) {
		if c.onStderr != nil {
			c.onStderr(line)
		}
		p.stderr.add(line)
	}}
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	if c.Stdin {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		p.cmd.Stdin, p.stdin = read, write
		t.Cleanup(func() { write.Close() })
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", c.Path, err)
	}
	go p.wait(stdout, stderr, c.onEnd) // stop ends it at the latest, and waits for it
	t.Cleanup(func() { p.stop(t) })
	return p
}

func (p *Process) wait(stdout, stderr *lineWriter, onEnd func()) {
	_ = p.cmd.Wait() // ProcessState has the result
	p.code = p.cmd.ProcessState.ExitCode()
	stdout.flush()
	stderr.flush()
	p.stdout.end()
	p.stderr.end()
	if onEnd != nil {
		onEnd()
	}
	close(p.done)
}

// stop ends the process if it still runs, waits for its end and shows its output if the test failed.
func (p *Process) stop(t testing.TB) {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Kill() // it may have ended by itself
		<-p.done
	}
	if t.Failed() {
		t.Logf("%s ended with %v\nstdout:\n%s\nstderr:\n%s", p.name, p.cmd.ProcessState, tail(p.stdout.all()),
			tail(p.stderr.all()))
	}
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and all of its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends s to the process.
func (p *Process) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %v to %s: %v", s, p.name, err)
	}
}

// Kill ends the process at once, as a crash would, and waits for its end.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGKILL)
	p.Wait(t)
}

// Wait waits for the end of the process and returns its exit code, -1 if a signal ended it.
func (p *Process) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(Patience):
		t.Fatalf("%s still runs after %v", p.name, Patience)
	}
	return p.code
}

// Say writes one line to the process's standard input, which Command.Stdin must have asked for.
func (p *Process) Say(t testing.TB, line string) {
	t.Helper()
	if _, err := p.stdin.WriteString(line + "\n"); err != nil {
		t.Fatalf("write to %s: %v", p.name, err)
	}
}

// CloseStdin ends the process's standard input.
func (p *Process) CloseStdin(t testing.TB) {
	t.Helper()
	if err := p.stdin.Close(); err != nil {
		t.Fatalf("close standard input of %s: %v", p.name, err)
	}
}

// Stdout returns the standard output so far.
func (p *Process) Stdout() string { return strings.Join(p.stdout.all(), "\n") }

// Stderr returns the standard error so far.
func (p *Process) Stderr() string { return strings.Join(p.stderr.all(), "\n") }

// WaitStdout waits for the first line of standard output that contains text and returns it.
func (p *Process) WaitStdout(t testing.TB, text string) string {
	t.Helper()
	return waitLine(t, p, &p.stdout, text)
}

// WaitStderr is WaitStdout for standard error.
func (p *Process) WaitStderr(t testing.TB, text string) string {
	t.Helper()
	return waitLine(t, p, &p.stderr, text)
}

func waitLine(t testing.TB, p *Process, lines *feed[string], text string) string {
	t.Helper()
	line, _, found := lines.find(0, Patience, func(line string) bool { return strings.Contains(line, text) })
	if !found {
		t.Fatalf("%s never wrote %q", p.name, text)
	}
	return line
}

// Run runs c to its end and returns its outputs and exit code.
func Run(t testing.TB, c Command) (stdout, stderr string, code int) {
	t.Helper()
	p := Start(t, c)
	code = p.Wait(t)
	return p.Stdout(), p.Stderr(), code
}

// MustRun is Run for a program that must succeed; it returns its standard output.
func MustRun(t testing.TB, c Command) string {
	t.Helper()
	stdout, stderr, code := Run(t, c)
	if code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s\n%s", c.Path, strings.Join(c.Args, " "), code, stdout, stderr)
	}
	return stdout
}

// StartChild starts the running test binary once more with a role that was given to Main, for clients and backends that
// need their own descriptors or memory.
func StartChild(t testing.TB, role string, args ...string) *Process {
	t.Helper()
	return Start(t, Child(t, role, args...))
}

// Child returns the command that StartChild starts.
func Child(t testing.TB, role string, args ...string) Command {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Command{Path: self, Args: args, Env: []string{roleVariable + "=" + role}, Stdin: true}
}

// A lineWriter splits its input into lines. One goroutine at a time writes to it.
type lineWriter struct {
	line func(string)

	mu   sync.Mutex // guards rest: a WaitDelay may leave a copying goroutine behind
	rest []byte     // the start of a line that is not yet complete
}

// Write implements io.Writer.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	written := len(b)
	for {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			w.rest = append(w.rest, b...)
			return written, nil
		}
		w.line(string(append(w.rest, b[:end]...)))
		w.rest, b = w.rest[:0], b[end+1:]
	}
}

// flush passes on a last line without a newline.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.line(string(w.rest))
		w.rest = nil
	}
}

func tail(lines []string) string {
	if left := len(lines) - shownLines; left > 0 {
		return fmt.Sprintf("(%d lines before)\n%s", left, strings.Join(lines[left:], "\n"))
	}
	return strings.Join(lines, "\n")
}
