package session_test

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A script is a kind of preface that a test makes up. It counts what the seam promises: a preface that was opened is
// released once, and nothing is called after that. Its numbers may be read from any goroutine.
type script struct {
	t    *testing.T
	step func(p *scripted, s *session.Session, why session.Cause) session.Step
	cut  func(p *scripted, s *session.Session) (whole bool) // nil leaves nothing whole

	opened, released, steps, expired, cuts atomic.Int64
}

// A scripted is a session's preface of a script.
type scripted struct {
	*script
	loop     *session.Loop
	began    bool
	released bool
}

func (x *script) Open(l *session.Loop, s *session.Session) session.Preface {
	x.opened.Add(1)
	if s.Preface() != nil {
		x.t.Error("a preface is opened while another one has the session")
	}
	return &scripted{script: x, loop: l}
}

func (p *scripted) Step(s *session.Session, why session.Cause) session.Step {
	if p.released || p.began == (why == session.Begun) || s.Preface() != session.Preface(p) {
		p.t.Errorf("a step for cause %d, released %v, begun %v", why, p.released, p.began)
	}
	p.began = true
	if why == session.Expired {
		p.expired.Add(1)
	}
	defer p.steps.Add(1)
	return p.step(p, s, why)
}

func (p *scripted) Cut(s *session.Session) (whole bool) {
	if p.released {
		p.t.Error("cut after its release")
	}
	p.cuts.Add(1)
	return p.cut != nil && p.cut(p, s)
}

func (p *scripted) Release(*session.Session) {
	if p.released {
		p.t.Error("released twice")
	}
	p.released = true
	p.script.released.Add(1)
}

func (p *scripted) Phase() string { return "scripted" }

// An openerFunc is an Opener that is a function.
type openerFunc func(*session.Loop, *session.Session) session.Preface

func (f openerFunc) Open(l *session.Loop, s *session.Session) session.Preface { return f(l, s) }

// patience is how long the prefaces here wait for a client that says nothing.
const patience = 20 * time.Second

// peeking makes a script that peeks at the client's first n bytes, and goes on as then says when they are there. A
// client that has closed its half before is refused.
func peeking(t *testing.T, n int, patience time.Duration, then func(first string) session.Step) *script {
	return &script{t: t, step: func(p *scripted, s *session.Session, why session.Cause) session.Step {
		switch why {
		case session.Begun:
			return session.More(p.loop.Now + patience)
		case session.Expired:
			return session.Refuse(tally.Idle)
		}
		if e, broken := s.Broken(); broken {
			return session.Lost(s, e)
		}
		first, ended, e := session.Peek(s, n)
		switch {
		case e == sock.Again:
			return session.More(0)
		case e != 0:
			return session.Lost(s, e)
		case len(first) == n:
			return then(string(first))
		case ended:
			return session.Refuse(tally.Malformed)
		}
		return session.More(0)
	}}
}

// routing makes a script that sends clients whose first bytes are "two!" to another pool, and refuses those that begin
// with neither that nor "one!". These four bytes are not for the backend.
func routing(t *testing.T, two *pool.Pool, patience time.Duration) *script {
	return peeking(t, 4, patience, func(first string) session.Step {
		switch first {
		case "one!":
			return session.PassOn(session.Pass{Skip: len(first)})
		case "two!":
			return session.PassOn(session.Pass{Skip: len(first), Pool: two})
		}
		return session.Refuse(tally.Malformed)
	})
}

// realClient is whom the script named takes its clients for.
var realClient = netip.MustParseAddrPort("192.0.2.7:4711")

// named makes a script that takes each client for realClient, after six bytes that are not for the backend.
func named(t *testing.T) *script {
	return peeking(t, 6, patience, func(first string) session.Step {
		return session.PassOn(session.Pass{Skip: len(first), Client: realClient})
	})
}

// A prefaced is a server with one loop whose listener has prefaces. Its backend says "1" and then echoes; that of the
// pool two says "2".
type prefaced struct {
	*l4.Server
	lines    *l4test.Capture
	one, two *pool.Pool
}

func startPrefaced(t *testing.T, change func(*l4.ListenerSpec)) *prefaced {
	t.Helper()
	says := func(greeting string) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			c.Write([]byte(greeting))
			echo(c)
		}
	}
	x := &prefaced{one: newPool(t, backend(t, says("1"))), two: otherPool(t, backend(t, says("2")))}
	ls := spec(x.one)
	if change != nil {
		change(&ls)
	}
	lines, log := newCapture()
	x.lines, x.Server = lines, start(t, l4.Options{Loops: 1, Access: true, Log: log}, ls)
	return x
}

// otherPool makes a pool that has the name "two".
func otherPool(t *testing.T, addrs ...string) *pool.Pool {
	t.Helper()
	p, err := pool.New(pool.Options{
		Name: "two", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: time.Second, Retries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if err := p.Add(pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// use gives the listener prefaces, and has the test end with all of them released.
func (x *prefaced) use(t *testing.T, scripts ...*script) {
	openers := make([]session.Opener, len(scripts))
	for i, s := range scripts {
		openers[i] = s
	}
	l4test.SetPrefaces(x.Server, "test", openers...)
	t.Cleanup(func() {
		eventually(t, "no session is left", func() bool { return x.Sessions() == 0 })
		for i, s := range scripts {
			if opened, released := s.opened.Load(), s.released.Load(); opened != released {
				t.Errorf("preface %d: %d were opened, and %d released", i, opened, released)
			}
		}
	})
}

// send sends bytes one by one, each in a segment of its own, and each but the last after the script has looked at the
// one before.
func (x *script) send(t *testing.T, c *net.TCPConn, bytes string) {
	t.Helper()
	for i := range bytes {
		before := x.steps.Load()
		if _, err := c.Write([]byte(bytes[i : i+1])); err != nil {
			t.Fatal(err)
		}
		if i < len(bytes)-1 {
			eventually(t, "the preface has looked", func() bool { return x.steps.Load() > before })
		}
	}
}
