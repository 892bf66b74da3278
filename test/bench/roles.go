package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"time"
)

// The roles in which the bench runs itself.
const (
	roleBackend      = "backend"
	roleTrainBackend = "train-backend"
	roleMeterBackend = "meter-backend"
	roleClient       = "client"
)

// runRole runs the program under -role.
func runRole(role string, stdin io.Reader, stdout io.Writer) error {
	signal.Reset() // SIGTERM ends the process at once, since its loop handles no signals
	switch role {
	case roleBackend:
		return runBackend(stdout)
	case roleTrainBackend:
		return runTrainBackend(stdout)
	case roleMeterBackend:
		return runMeterBackend(stdout)
	case roleClient:
		return runLoad(stdin, stdout)
	}
	return fmt.Errorf("no role %q", role)
}

// A server is the process, or the processes, of the backends of one kind of traffic.
type server struct {
	proc  *process
	pids  []int // proc and all that descend from it
	addrs []netip.AddrPort

	dir    string // a folder to remove at the end; "" for none
	parent bool   // proc has children that come and go, and waits for them
}

// cpu returns the CPU time that the server has used, including that of children that have ended.
func (s *server) cpu() (cpuReading, error) {
	r, err := readCPU(s.pids)
	if err != nil || !s.parent {
		return r, err
	}
	st, err := readStat(s.proc.pid())
	return cpuReading{clock: r.clock + st.children, stat: r.stat + st.children}, err
}

func (s *server) cleanUp() error {
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// startBackends starts the backends' process in one of its roles.
func startBackends(role, dir string) (*server, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := startSelf(role, dir, nil, w)
	w.Close() // the process has its own; so its end is the end of the pipe
	if err != nil {
		return nil, err
	}
	s := &server{proc: p, pids: []int{p.pid()}}
	if err := json.NewDecoder(r).Decode(&s.addrs); err != nil {
		return nil, errors.Join(p.failure(fmt.Errorf("read its addresses: %w", err)), p.stop())
	}
	return s, nil
}

// A loader is a load generator, seen from the bench: client, and dnsperf. It is for one goroutine.
type loader interface {
	ready(ctx context.Context, within time.Duration) error
	run(ctx context.Context, within time.Duration) (loadResult, error)
	finish(ctx context.Context, within time.Duration) error
	cpu() (cpuReading, error)
	close() error
}

// A client is a running load generator, seen from the bench. It is for one
// goroutine; see startClient. The steps are ready, run, finish, in this order.
type client struct {
	proc   *process
	stdin  *os.File
	stdout *os.File
	lines  *bufio.Reader
}

// startClient starts a load generator and sends it its job.
func startClient(j job, dir string) (*client, error) {
	stdinRead, stdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdinRead.Close()
	stdout, stdoutWrite, err := os.Pipe()
	if err != nil {
		stdin.Close()
		return nil, err
	}
	defer stdoutWrite.Close()
	p, err := startSelf(roleClient, dir, stdinRead, stdoutWrite)
	if err != nil {
		stdin.Close()
		stdout.Close()
		return nil, err
	}
	c := &client{proc: p, stdin: stdin, stdout: stdout, lines: bufio.NewReader(stdout)}
	if err := json.NewEncoder(stdin).Encode(j); err != nil {
		return nil, errors.Join(fmt.Errorf("give the client its job: %w", err), c.close())
	}
	return c, nil
}

// ready waits until the load generator has warmed up.
func (c *client) ready(ctx context.Context, within time.Duration) error {
	line, err := c.line(ctx, within)
	if err == nil && line != "ready" {
		err = fmt.Errorf("client said %q, want ready", line)
	}
	return err
}

// run makes the load generator do its job, and returns its result.
func (c *client) run(ctx context.Context, within time.Duration) (loadResult, error) {
	var r loadResult
	if _, err := fmt.Fprintln(c.stdin, "go"); err != nil {
		return r, err
	}
	line, err := c.line(ctx, within)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(line), &r)
}

// line reads one line, for at most that long.
func (c *client) line(ctx context.Context, within time.Duration) (string, error) {
	if err := c.stdout.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.stdout.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := c.lines.ReadString('\n')
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, io.EOF):
		<-c.proc.exited
		return "", c.proc.failure(fmt.Errorf("ended: %v", c.proc.cmd.ProcessState))
	case err != nil:
		return "", fmt.Errorf("no word from the client for %s: %w", within, err)
	}
	return strings.TrimSpace(line), nil
}

// finish lets the load generator end in an orderly way, and returns an error if it does not.
func (c *client) finish(ctx context.Context, within time.Duration) error {
	if err := c.stdin.Close(); err != nil {
		return err
	}
	select {
	case <-c.proc.exited:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(within):
		return c.proc.failure(fmt.Errorf("client did not end within %s", within))
	}
	if c.proc.err != nil {
		return c.proc.failure(c.proc.err)
	}
	return nil
}

// cpu returns the CPU time that the load generator has used.
func (c *client) cpu() (cpuReading, error) { return readCPU([]int{c.proc.pid()}) }

// close ends the load generator in any state.
func (c *client) close() error {
	err := c.proc.stop()
	c.stdin.Close() // may be closed already, by finish
	c.stdout.Close()
	return err
}
