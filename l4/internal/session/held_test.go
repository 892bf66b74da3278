package session_test

import (
	"net"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// heldPool returns a pool with one backend and a hold, and whether the backend is eligible is for the caller to say.
func heldPool(t *testing.T, o pool.Options, address string) (*pool.Pool, func(pool.Mode)) {
	t.Helper()
	p := newQueuePool(t, o, address)
	if err := p.SetMaxSessions(address, 0); err != nil {
		t.Fatal(err)
	}
	return p, func(m pool.Mode) {
		t.Helper()
		if err := p.SetMode(address, m); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHeld has clients wait for a backend that is in maintenance. They are served when it is back, and a newcomer
// beyond the bound is refused with a reason of its own.
func TestHeld(t *testing.T) {
	p, mode := heldPool(t, pool.Options{HoldMax: 3, HoldTimeout: time.Minute}, backend(t, echo))
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(p))
	mode(pool.Maintenance)
	waiting := queuedClients(t, s, p, 3)
	if !refusedWithReset(t, address(s)) {
		t.Error("a fourth client was not refused with a reset")
	}
	if line := lines.Next(t); line.Reason != tally.HoldFull.String() {
		t.Errorf("the fourth client ended with %s", line.Reason)
	}
	mode(pool.Ready)
	for i, c := range waiting {
		if err := ask(c); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		c.Close()
		if line := lines.Next(t); line.Reason != tally.ClientClosed.String() || line.QueueTime <= 0 {
			t.Errorf("client %d ended with %s after %v s in the queue", i, line.Reason, line.QueueTime)
		}
	}
	c := dial(t, address(s)) // and nobody waits behind
	if err := ask(c); err != nil {
		t.Error(err)
	}
}

// TestHeldEnds holds how a hold ends without a backend, each under its own reason.
func TestHeldEnds(t *testing.T) {
	const soon, never = 50 * time.Millisecond, time.Minute
	for _, test := range []struct {
		name string
		o    pool.Options
		end  func(p *pool.Pool, mode func(pool.Mode), c *net.TCPConn)
		want l4.Reason
	}{
		{"timeout", pool.Options{HoldTimeout: soon, QueueTimeout: never}, nil, tally.HoldTimeout},
		{"timeout, and the queue's is shorter", pool.Options{HoldTimeout: 4 * soon, QueueTimeout: soon}, nil,
			tally.HoldTimeout},
		{"the client leaves", pool.Options{HoldTimeout: never, QueueTimeout: never},
			func(_ *pool.Pool, _ func(pool.Mode), c *net.TCPConn) { c.Close() }, tally.Probe},
		{"the pool is closed", pool.Options{HoldTimeout: never, QueueTimeout: never},
			func(p *pool.Pool, _ func(pool.Mode), _ *net.TCPConn) { p.Close() }, tally.NoBackend},
		{"all are full when one is back", pool.Options{HoldTimeout: never, QueueTimeout: soon},
			func(_ *pool.Pool, mode func(pool.Mode), _ *net.TCPConn) { mode(pool.Ready) }, tally.QueueTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			address1 := backend(t, echo)
			test.o.HoldMax = 1
			p, mode := heldPool(t, test.o, address1)
			lines, log := newCapture()
			s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
			if err := p.SetMaxSessions(address1, 1); err != nil {
				t.Fatal(err)
			}
			holder := dial(t, address(s))
			if err := ask(holder); err != nil {
				t.Fatal(err)
			}
			mode(pool.Drain)
			c := dial(t, address(s))
			if test.end != nil {
				eventually(t, "the client waits", func() bool { return p.Waiting() == 1 })
				test.end(p, mode, c)
			}
			if line := lines.Next(t); line.Reason != test.want.String() {
				t.Errorf("it ended with %s after %v s, want %v", line.Reason, line.QueueTime, test.want)
			}
			for _, b := range p.Backends() {
				if n := b.Outcomes[pool.CutEarly] + b.Outcomes[pool.ConnectRefused]; n > 0 || p.Waiting() != 0 {
					t.Errorf("%d outcomes speak against the backend, %d wait", n, p.Waiting())
				}
			}
		})
	}
}

// TestHeldAfterFailures holds what becomes of a session that has failed on the last eligible backend: it rests until
// that may help or none is eligible, tries it again, and as often as retries allow.
func TestHeldAfterFailures(t *testing.T) {
	refuses := refusing(t)
	options := pool.Options{HoldMax: 10, HoldTimeout: time.Minute, QueueTimeout: time.Minute}
	t.Run("it refuses for good", func(t *testing.T) {
		p, _ := heldPool(t, options, refuses)
		lines, log := newCapture()
		s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
		c := dial(t, address(s))
		line := lines.Next(t)
		if line.Reason != tally.ConnectFailed.String() || line.QueueTime < 1.9 || line.QueueTime > 5 {
			t.Errorf("it ended with %s after %v s in the queue, want two rests of a second", line.Reason, line.QueueTime)
		}
		if b := p.Backends()[0]; b.Outcomes[pool.ConnectRefused] != 3 || p.Waiting() != 0 {
			t.Errorf("%d connects were refused, want 3; %d wait", b.Outcomes[pool.ConnectRefused], p.Waiting())
		}
		c.Close()
	})
	t.Run("it goes out of use, and comes back well", func(t *testing.T) {
		p, mode := heldPool(t, options, refuses)
		lines, log := newCapture()
		s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
		c := dial(t, address(s))
		eventually(t, "the client rests", func() bool { return p.Waiting() == 1 })
		mode(pool.Maintenance)
		well, err := net.Listen("tcp", refuses)
		if err != nil {
			t.Fatal(err)
		}
		defer well.Close()
		go func() {
			for {
				one, err := well.Accept()
				if err != nil {
					return
				}
				go func() { echo(one.(*net.TCPConn)); one.Close() }()
			}
		}()
		mode(pool.Ready)
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if line := lines.Next(t); line.Reason != tally.ClientClosed.String() || line.QueueTime == 0 {
			t.Errorf("it ended with %s after %v s in the queue", line.Reason, line.QueueTime)
		}
	})
}
