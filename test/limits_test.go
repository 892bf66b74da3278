package test

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestConnectsAtOnce connects 2,000 clients at the same moment. All stay until the last one has been served.
func TestConnectsAtOnce(t *testing.T) {
	const clients = 2000
	b, _ := between(t, harness.Echo)
	address := b.Address(t, "main")
	start, leave := make(chan struct{}), make(chan struct{})
	served := make(chan error, clients)
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			<-start
			c, err := net.DialTimeout("tcp", address, harness.Patience)
			if err != nil {
				served <- err
				return
			}
			defer c.Close()
			err = c.SetDeadline(time.Now().Add(harness.Patience))
			if err == nil {
				err = harness.PingPong(c, 1, 64)
			}
			served <- err
			<-leave
		})
	}
	close(start)
	for range clients {
		if err := harness.Receive(t, "a client's answer", served); err != nil {
			t.Error(err)
		}
	}
	close(leave)
	running.Wait()
	oneOf(t, b.WaitSessions(t, clients), "client_closed")
}

func TestMaxSessions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		global   []string
		listener []string
		reset    bool
	}{
		{"of the listener, reset", nil, []string{`max_sessions = 2`}, true},
		{"of the listener, close", nil, []string{`max_sessions = 2`, `refuse_with = "close"`}, false},
		{"of the process", []string{`max_sessions = 2`}, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			backend := harness.Serve(t, harness.Echo)
			b := world{Backends: []string{backend.Address()}, Global: tc.global, Listener: tc.listener}.start(t)
			first, second := b.Dial(t, "main"), b.Dial(t, "main")
			check(t, harness.PingPong(first, 1, 1))
			check(t, harness.PingPong(second, 1, 1))

			if err := refusal(t, b.Address(t, "main")); errors.Is(err, syscall.ECONNRESET) != tc.reset {
				t.Errorf("refused with %v, expected a reset: %t", err, tc.reset)
			}
			if backend.Accepted() != 2 {
				t.Errorf("the backend got %d sessions, expected 2", backend.Accepted())
			}

			check(t, first.Close())
			b.WaitSession(t, first.LocalAddr())
			harness.Eventually(t, "another session is served", func() error {
				return tryService(b.Address(t, "main"))
			})
			check(t, harness.PingPong(second, 1, 1))

			// refusals are counted and have no lines, since a flood of clients must not flood the log
			for _, line := range b.Sessions() {
				if line.Reason == "max_sessions" {
					t.Errorf("a refused client has an access line: %s", line.Text)
				}
			}
		})
	}
}

// refusal connects to an address where it must be refused, and returns the error: io.EOF after an orderly end.
func refusal(t *testing.T, address string) error {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, harness.Patience)
	if err != nil {
		return err // the reset may come before connect has returned
	}
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
	n, err := c.Read(make([]byte, 1))
	if n > 0 {
		t.Error("a refused client got data")
	}
	return err
}

// tryService connects one client, gets an answer from an echoing backend, and closes.
func tryService(address string) error {
	c, err := net.DialTimeout("tcp", address, harness.Patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return err
	}
	return harness.PingPong(c, 1, 1)
}

// TestDescriptorsExhausted connects three times as many clients as the limit of descriptors allows: the balancer does
// not spin, keeps established sessions and health checks, and serves waiting clients when others leave.
func TestDescriptorsExhausted(t *testing.T) {
	const (
		descriptors = 200
		clients     = 300
		window      = 2 * time.Second
		cpu         = window / 5 // an idle balancer uses next to nothing, a spinning one all of it on each loop
	)
	backend := harness.Serve(t, harness.Echo)
	started := time.Now()
	b := world{
		Backends: []string{backend.Address()}, Descriptors: descriptors, Measured: true,
		Global: []string{`max_sessions = 100000`}, // beyond the descriptors: only they limit
		Health: []string{`interval = "200ms"`, `fast_interval = "200ms"`},
	}.start(t)
	b.WaitVerdict(t, "b1", "healthy", started)

	q := startQueue(t, b.Address(t, "main"), clients)
	q.awaitStandstill(t, 50)
	established := q.served()
	t.Logf("%d sessions are served with %d descriptors", len(established), descriptors)
	if len(established) >= descriptors/2 {
		t.Fatalf("%d sessions with %d descriptors: the limit was not in force", len(established), descriptors)
	}

	before := b.CPUTime(t)
	<-time.After(window) // a window of measurement, not a wait for something
	used := b.CPUTime(t) - before
	t.Logf("%v of CPU time in %v", used, window)
	if used > cpu {
		t.Errorf("%v of CPU time in %v without descriptors, expected at most %v", used, window, cpu)
	}

	for _, c := range established {
		if err := harness.PingPong(c, 1, 1); err != nil {
			t.Errorf("an established session: %v", err)
		}
	}
	for _, l := range b.Lines() {
		if l.Message == harness.MessageVerdict && l.To == "unhealthy" {
			t.Errorf("no descriptor was left for health checks: %s", l.Text)
		}
	}
	for len(q.open()) > 0 { // as some leave, others are served, until all have been
		now := q.served()
		for _, c := range now[:(len(now)+1)/2] {
			q.leave(c)
		}
		if want := q.answered() + 1; want <= clients {
			harness.Eventually(t, "waiting clients are served", func() error { return q.atLeast(want) })
		}
	}
	if err := q.stop(); err != nil {
		t.Error(err)
	}
	sessions := b.WaitSessions(t, clients)
	oneOf(t, sessions, "client_closed")
}

// A queue has clients that all connect and send one byte, and are answered when the balancer has room for them.
type queue struct {
	running sync.WaitGroup

	// mu guards the fields below
	mu      sync.Mutex
	conns   map[net.Conn]bool // those that have not left; true when answered
	answers int
	errs    []error
}

func startQueue(t *testing.T, address string, clients int) *queue {
	t.Helper()
	q := &queue{conns: map[net.Conn]bool{}}
	for range clients {
		q.conns[harness.Dial(t, address)] = false
	}
	for _, c := range q.open() {
		q.running.Go(func() { q.ask(c) })
	}
	return q
}

func (q *queue) ask(c net.Conn) {
	err := harness.PingPong(c, 1, 1)
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.errs = append(q.errs, fmt.Errorf("waiting client: %w", err))
		delete(q.conns, c)
		return
	}
	q.conns[c] = true
	q.answers++
}

// served returns the clients that have been answered and have not left.
func (q *queue) served() []net.Conn {
	q.mu.Lock()
	defer q.mu.Unlock()
	var served []net.Conn
	for c, answered := range q.conns {
		if answered {
			served = append(served, c)
		}
	}
	return served
}

// open returns all clients that have not left.
func (q *queue) open() []net.Conn {
	q.mu.Lock()
	defer q.mu.Unlock()
	var open []net.Conn
	for c := range q.conns {
		open = append(open, c)
	}
	return open
}

// answered returns how many have been answered so far, those included that have left.
func (q *queue) answered() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.answers
}

func (q *queue) atLeast(n int) error {
	if now := q.answered(); now < n {
		q.mu.Lock()
		defer q.mu.Unlock()
		return fmt.Errorf("%d answered, expected %d: %v", now, n, errors.Join(q.errs...))
	}
	return nil
}

func (q *queue) leave(c net.Conn) {
	c.Close()
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.conns, c)
}

// stop waits until all have been answered, and returns what went wrong.
func (q *queue) stop() error {
	q.running.Wait()
	return errors.Join(q.errs...)
}

// awaitStandstill waits until at least n clients have been answered, and then no more during half a second of polling.
func (q *queue) awaitStandstill(t *testing.T, n int) {
	t.Helper()
	var last, same int
	harness.Eventually(t, "the descriptors are used up", func() error {
		now := q.answered()
		if now != last {
			last, same = now, 0
		}
		if same++; now < n || same < 50 {
			return fmt.Errorf("%d clients answered", now)
		}
		return nil
	})
}
