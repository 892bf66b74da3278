package session_test

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestQueue has clients wait for a backend that takes one at a time. They are served in their order, no more wait than
// may, and each line says how long its client has waited.
func TestQueue(t *testing.T) {
	p := newQueuePool(t, pool.Options{QueueMax: 2, QueueTimeout: 20 * time.Second}, backend(t, echo))
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(p))
	holder := dial(t, address(s))
	if err := ask(holder); err != nil {
		t.Fatal(err)
	}
	waiting := queuedClients(t, s, p, 2)
	if !refusedWithReset(t, address(s)) {
		t.Error("a third client was not refused with a reset")
	}
	if line := lines.Next(t); line.Reason != tally.QueueFull.String() {
		t.Errorf("the third client ended with %s", line.Reason)
	}
	for i, c := range append([]*net.TCPConn{holder}, waiting...) {
		if err := ask(c); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		c.Close()
		if line := lines.Next(t); line.Reason != tally.ClientClosed.String() || (line.QueueTime > 0) != (i > 0) {
			t.Errorf("client %d ended with %s after %v s in the queue", i, line.Reason, line.QueueTime)
		}
	}
	if n := p.Waiting(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// TestQueueRefusals holds how a wait ends without a backend, each under its own reason.
func TestQueueRefusals(t *testing.T) {
	for _, test := range []struct {
		name string
		o    pool.Options
		end  func(t *testing.T, s *l4.Server, p *pool.Pool, waiting *net.TCPConn) // what ends the wait
		want l4.Reason
	}{
		{"timeout", pool.Options{QueueMax: 1, QueueTimeout: 50 * time.Millisecond}, nil, tally.QueueTimeout},
		{"no queue", pool.Options{QueueTimeout: time.Minute}, nil, tally.BackendsFull},
		{"timeout without an eligible backend", pool.Options{QueueMax: 1, QueueTimeout: time.Second},
			func(t *testing.T, _ *l4.Server, p *pool.Pool, _ *net.TCPConn) {
				if err := p.SetWeight(p.Backends()[0].ID, 0); err != nil {
					t.Fatal(err)
				}
			}, tally.NoBackend},
		{"no pool any more", pool.Options{QueueMax: 1, QueueTimeout: time.Minute},
			func(t *testing.T, _ *l4.Server, p *pool.Pool, _ *net.TCPConn) {
				if err := p.Remove(p.Backends()[0].ID); err != nil {
					t.Fatal(err)
				}
				p.Close()
			}, tally.NoBackend},
		{"client leaves", pool.Options{QueueMax: 1, QueueTimeout: time.Minute},
			func(_ *testing.T, _ *l4.Server, _ *pool.Pool, c *net.TCPConn) { c.Close() }, tally.Probe},
		{"client resets", pool.Options{QueueMax: 1, QueueTimeout: time.Minute},
			func(_ *testing.T, _ *l4.Server, _ *pool.Pool, c *net.TCPConn) { c.SetLinger(0); c.Close() }, tally.Probe},
		{"client asks and resets", pool.Options{QueueMax: 1, QueueTimeout: time.Minute},
			func(_ *testing.T, _ *l4.Server, _ *pool.Pool, c *net.TCPConn) {
				c.Write([]byte("x"))
				c.SetLinger(0)
				c.Close()
			}, tally.ClientReset},
		{"shutdown", pool.Options{QueueMax: 1, QueueTimeout: time.Minute},
			func(t *testing.T, s *l4.Server, _ *pool.Pool, _ *net.TCPConn) {
				if err := s.Shutdown(done(t)); err == nil {
					t.Error("the shutdown cut nobody")
				}
			}, tally.Drained},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newQueuePool(t, test.o, backend(t, echo))
			lines, log := newCapture()
			s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(p))
			holder := dial(t, address(s))
			if err := ask(holder); err != nil {
				t.Fatal(err)
			}
			client := "" // whoever's line comes first: the reset may come so soon that it is connect that sees it
			if test.want == tally.BackendsFull {
				if !refusedWithReset(t, address(s)) {
					t.Error("the client was not refused with a reset")
				}
			} else {
				c := dial(t, address(s))
				client = c.LocalAddr().String()
				if test.end != nil {
					eventually(t, "the client waits", func() bool { return p.Waiting() == 1 })
					test.end(t, s, p, c)
				}
			}
			for line := lines.Next(t); client != "" && line.Client != client; line = lines.Next(t) {
				if line.Reason != tally.Drained.String() {
					t.Errorf("another session ended with %s", line.Reason)
				}
			}
			if n := s.Listeners(); len(n) > 0 && n[0].Ended[test.want] == 0 {
				t.Errorf("sessions ended for %v, want one for %v", n[0].Ended, test.want)
			}
			if n := p.Waiting(); n != 0 {
				t.Errorf("%d still wait", n)
			}
		})
	}
}

// TestQueueOutlastsAMoment takes the only backend out of use for a moment while clients wait for it. When it is back,
// it serves them in their order.
func TestQueueOutlastsAMoment(t *testing.T) {
	p := newQueuePool(t, pool.Options{QueueMax: 3, QueueTimeout: time.Minute}, backend(t, echo))
	id := p.Backends()[0].ID
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(p))
	holder := dial(t, address(s))
	if err := ask(holder); err != nil {
		t.Fatal(err)
	}
	waiting := queuedClients(t, s, p, 3)
	for _, moment := range [][2]func() error{
		{func() error { return p.SetWeight(id, 0) }, func() error { return p.SetWeight(id, 1) }},
		{func() error { return p.SetMode(id, pool.Maintenance) }, func() error { return p.SetMode(id, pool.Ready) }},
		{func() error { return p.SetVerdict(id, pool.Unhealthy, "test") },
			func() error { return p.SetVerdict(id, pool.Healthy, "test") }},
	} {
		for _, change := range moment {
			if err := change(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, c := range append([]*net.TCPConn{holder}, waiting...) {
		if err := ask(c); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		c.Close()
		if line := lines.Next(t); line.Reason != tally.ClientClosed.String() {
			t.Errorf("client %d ended with %s after %v s in the queue", i, line.Reason, line.QueueTime)
		}
	}
}

// TestQueuedHalfClose holds that a client which has asked and closed its half while it waited gets its answer, and that
// what a waiting client has sent is not lost.
func TestQueuedHalfClose(t *testing.T) {
	p := newQueuePool(t, pool.Options{QueueMax: 2, QueueTimeout: 20 * time.Second}, backend(t, echo))
	s := start(t, l4.Options{Loops: 1}, spec(p))
	holder := dial(t, address(s))
	if err := ask(holder); err != nil {
		t.Fatal(err)
	}
	c := queuedClients(t, s, p, 1)[0]
	if _, err := c.Write([]byte("a question")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loop has seen the FIN", func() bool {
		return anySession(s, func(s *session.Session) bool {
			waits, ended := session.Queued(s)
			return waits && ended
		})
	})
	holder.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "a question" {
		t.Errorf("the answer is %q, error %v", got, err)
	}
}

// TestQueueUnderLoad has many clients share few places. All are served, at no time more than there are places, and at
// the end nothing is held.
func TestQueueUnderLoad(t *testing.T) {
	const clients, rounds = 40, 20
	p := newQueuePool(t, pool.Options{QueueMax: clients, QueueTimeout: 20 * time.Second},
		backend(t, echo), backend(t, echo))
	s := start(t, l4.Options{Loops: 2}, spec(p))
	failed := make(chan error, clients)
	for range clients {
		go func() {
			for range rounds {
				c, err := net.Dial("tcp", address(s))
				if err == nil {
					c.SetDeadline(time.Now().Add(20 * time.Second))
					err = ask(c)
					c.Close()
				}
				if err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range clients {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "all leases are back", func() bool {
		for _, b := range p.Backends() {
			if b.Leases != 0 {
				return false
			}
		}
		return p.Waiting() == 0 && s.Sessions() == 0
	})
}

// TestRevoke holds what becomes of sessions when their backend goes: with "close" they are cut with their reason, one
// that is still connecting is served by another backend, and without it all go on.
func TestRevoke(t *testing.T) {
	for _, test := range []struct {
		name string
		o    pool.Options
		do   func(p *pool.Pool, id string) error
		want l4.Reason // none: the sessions go on
	}{
		{"removed, drain", pool.Options{}, (*pool.Pool).Remove, tally.NoReason},
		{"removed, close", pool.Options{CloseOnRemove: true}, (*pool.Pool).Remove, tally.BackendRemoved},
		{"maintenance, close", pool.Options{CloseOnRemove: true},
			func(p *pool.Pool, id string) error { return p.SetMode(id, pool.Maintenance) }, tally.BackendRemoved},
		{"drained, close", pool.Options{CloseOnRemove: true},
			func(p *pool.Pool, id string) error { return p.SetMode(id, pool.Drain) }, tally.NoReason},
		{"unhealthy, keep", pool.Options{},
			func(p *pool.Pool, id string) error { return p.SetVerdict(id, pool.Unhealthy, "test") }, tally.NoReason},
		{"unhealthy, close", pool.Options{CloseOnUnhealthy: true},
			func(p *pool.Pool, id string) error { return p.SetVerdict(id, pool.Unhealthy, "test") },
			tally.BackendUnhealthy},
	} {
		t.Run(test.name, func(t *testing.T) {
			going, staying := backend(t, echo), backend(t, echo)
			p := newQueuePool(t, test.o, going)
			lines, log := newCapture()
			s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(p))
			if err := p.SetMaxSessions(going, 0); err != nil {
				t.Fatal(err)
			}
			var clients []*net.TCPConn
			for range 4 {
				c := dial(t, address(s))
				if err := ask(c); err != nil {
					t.Fatal(err)
				}
				clients = append(clients, c)
			}
			if err := p.Add(pool.Spec{ID: staying, Addr: pool.At(netip.MustParseAddrPort(staying)), Weight: 1}); err != nil {
				t.Fatal(err)
			}
			if err := test.do(p, going); err != nil {
				t.Fatal(err)
			}
			for _, c := range clients {
				if test.want == tally.NoReason {
					if err := ask(c); err != nil {
						t.Errorf("a session was cut: %v", err)
					}
					continue
				}
				if !reset(t, c) {
					t.Error("a session ended without a reset")
				}
				if line := lines.Next(t); line.Reason != test.want.String() || line.Backend != going {
					t.Errorf("a session of %s ended with %s", line.Backend, line.Reason)
				}
			}
			c := dial(t, address(s))
			if err := ask(c); err != nil {
				t.Fatal(err)
			}
			c.Close()
			if line := lines.Next(t); line.Backend != staying {
				t.Errorf("a new session went to %s", line.Backend)
			}
		})
	}
}

// TestRevokeWhileConnecting removes a backend that answers no SYN while a session connects to it. The session goes to
// the other one at once, and the attempt does not count; the one before it, which failed, counts once.
func TestRevokeWhileConnecting(t *testing.T) {
	refuses, silent, good := refusing(t), swallowing(t), backend(t, echo)
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: time.Minute,
		CloseOnRemove: true, Retries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{refuses, silent, good} {
		if err := p.Add(pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, l4.Options{Loops: 1}, spec(p))
	c := dial(t, address(s))
	eventually(t, "the session connects", func() bool {
		return anySession(s, func(s *session.Session) bool { return session.ConnectingTo(s) == silent })
	})
	if err := p.Remove(silent); err != nil {
		t.Fatal(err)
	}
	if err := ask(c); err != nil {
		t.Error(err)
	}
	if got := s.Listeners()[0].Retries; len(got) != 1 || got[pool.ConnectRefused] != 1 {
		t.Errorf("retries are %v, want one", got)
	}
}
