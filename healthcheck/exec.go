package healthcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// keptOutputBytes is how much of the end of a program's output is kept. Only its last line is shown.
	keptOutputBytes = 4 << 10
	// pipeBytes is how much a pipe holds (pipe(7)), and so what at most is still to be read when the program has ended.
	pipeBytes = 64 << 10
	// plainPath is the PATH of a program when the balancer itself has none.
	plainPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Exec checks by a program of the operator: the target is healthy when it exits with 0. It is a plain value; its zero value
// has no program and is of no use.
//
// The program is run without a shell. Its standard input is empty, and its environment has nothing of the balancer's but
// PATH; the target is told by
//
//	LIMELOAD_TARGET   its id, which is pool/backend
//	LIMELOAD_BACKEND  what follows the slash
//	LIMELOAD_ADDRESS  host:port, with brackets around an IPv6 host
//	LIMELOAD_HOST, LIMELOAD_PORT
//
// Of its output the last line counts, on either of standard output and standard error. When it ends, or when its time
// is over, it is killed with all that it started, except for what has left its process group (as daemons do).
//
// A program that is missing, or that may not be run, is a failure: the operator finds the reason at the target.
type Exec struct {
	Argv []string // the program, looked up in PATH unless it has a slash, and its arguments
	Env  []string // further variables, as name=value; they outrank PATH, and not those above
	Dir  string   // "" = the balancer's
}

// Check runs the program for t.
func (c Exec) Check(ctx context.Context, t Target) (Result, error) {
	if len(c.Argv) == 0 {
		return Result{}, &checkError{words: "no program to run"}
	}
	if ctx.Err() != nil {
		return Result{}, execStopped(ctx, time.Now(), "")
	}
	output, write, err := os.Pipe()
	if err != nil {
		return Result{}, c.startError(err)
	}
	defer output.Close()
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.Dir = c.environment(t), c.Dir
	cmd.Stdout, cmd.Stderr = write, write // files, so that cmd starts no goroutines: Wait would wait for whoever has the pipe
	var last tail
	var reader sync.WaitGroup
	reader.Go(func() { last.readFrom(output) })
	start := time.Now()
	err = runGroup(ctx, cmd, func() { write.Close() })
	latency := time.Since(start)
	// Not until the end of the output: somebody that it started, and that got away, may keep the pipe open for ever.
	if output.SetReadDeadline(time.Unix(1, 0)) != nil {
		output.Close()
	}
	reader.Wait()
	last.drain(output)

	line := last.line()
	var exit *exec.ExitError
	switch {
	case err == nil: // even if its time is just over: it has said so
		return Result{Latency: latency, Detail: orElse(line, "exit status 0")}, nil
	case !errors.As(err, &exit):
		return Result{}, c.startError(err)
	case ctx.Err() != nil:
		return Result{}, execStopped(ctx, start, line)
	}
	return Result{}, &checkError{words: withLine(exitWords(exit.ProcessState), line), causes: []error{err}}
}

// environment returns the program's. Of variables with one name the last counts.
func (c Exec) environment(t Target) []string {
	_, backend, found := strings.Cut(t.ID, "/")
	if !found {
		backend = t.ID
	}
	host, port := t.Addr.Addr().String(), strconv.Itoa(int(t.Addr.Port()))
	env := append([]string{"PATH=" + orElse(os.Getenv("PATH"), plainPath)}, c.Env...)
	return append(env, "LIMELOAD_TARGET="+t.ID, "LIMELOAD_BACKEND="+backend,
		"LIMELOAD_ADDRESS="+net.JoinHostPort(host, port), "LIMELOAD_HOST="+host, "LIMELOAD_PORT="+port)
}

// startError says why the program could not be run.
func (c Exec) startError(err error) error {
	for _, ours := range []syscall.Errno{
		syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE,
		syscall.ETXTBSY, // the program is being replaced at this moment
	} {
		if errors.Is(err, ours) {
			return &checkError{words: "cannot check: " + ours.Error(), causes: []error{err, ErrInconclusive}}
		}
	}
	why := ""
	switch program := escaped(c.Argv[0]); {
	case c.Dir != "" && !isFolder(c.Dir): // which Start does not tell from a missing program
		why = "no folder " + escaped(c.Dir)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		why = "no program " + program // nor an interpreter, when it is a script
	case errors.Is(err, fs.ErrPermission):
		why = "not permitted to run " + program
	case errors.Is(err, syscall.ENOEXEC):
		why = "not a program: " + program
	default:
		why = "cannot run " + program + ": " + escaped(err.Error())
	}
	return &checkError{words: why, causes: []error{err}}
}

// isFolder reports whether there is a folder of that name, as far as we may see.
func isFolder(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// execStopped says that the program was killed since ctx ended.
func execStopped(ctx context.Context, start time.Time, line string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &checkError{words: "cancelled", causes: []error{context.Canceled, ErrInconclusive}}
	}
	after := time.Since(start)
	if deadline, ok := ctx.Deadline(); ok {
		after = max(0, deadline.Sub(start))
	}
	words := fmt.Sprintf("timed out after %v", after.Round(time.Millisecond))
	return &checkError{words: withLine(words, line), causes: []error{ctx.Err()}}
}

// exitWords says how a program ended that did not end well.
func exitWords(s *os.ProcessState) string {
	if status, ok := s.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Sprintf("killed by signal %d (%v)", int(status.Signal()), status.Signal())
	}
	return fmt.Sprintf("exit status %d", s.ExitCode())
}

func withLine(words, line string) string {
	if line == "" {
		return words
	}
	return words + ": " + line
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// A tail keeps the end of what was written. Its zero value is empty. It belongs to whoever reads into it.
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

// drain reads what is in the pipe f, without waiting for more. A grace for the reader instead (50 ms were tried) lost
// the output of 6 programs out of 85 on a busy machine.
func (t *tail) drain(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { // not Read, whose deadline is over
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

// add appends b and forgets what is too old.
func (t *tail) add(b []byte) {
	t.b = append(t.b, b...)
	if over := len(t.b) - keptOutputBytes; over > 0 {
		t.b = t.b[:copy(t.b, t.b[over:])]
	}
}

// line returns the last line that is not blank, in quotes; "" when there is none.
func (t *tail) line() string {
	text := bytes.TrimSpace(t.b)
	if len(text) == 0 {
		return ""
	}
	return quoted(bytes.TrimSpace(text[bytes.LastIndexByte(text, '\n')+1:]))
}
