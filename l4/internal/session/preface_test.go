package session_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestPrefaceRoutes has a preface choose between two pools by the client's first bytes, which the backend does not get,
// whether they come alone, with more behind them, or one by one.
func TestPrefaceRoutes(t *testing.T) {
	x := startPrefaced(t, nil)
	route := routing(t, x.two, patience)
	x.use(t, route)
	for _, test := range []struct{ sends, gets, pool string }{
		{"one!", "1", "pool"},
		{"two!", "2", "two"},
		{"one!hello", "1hello", "pool"},
		{"two!hello", "2hello", "two"},
		{"two!two!", "2two!", "two"},
	} {
		for _, slowly := range []bool{false, true} {
			before := route.steps.Load()
			c := dial(t, address(x.Server))
			if slowly {
				eventually(t, "the preface has begun", func() bool { return route.steps.Load() > before })
				route.send(t, c, test.sends[:4])
				c.Write([]byte(test.sends[4:]))
			} else if _, err := c.Write([]byte(test.sends)); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil || string(got) != test.gets {
				t.Errorf("%q, slowly %v: the answer is %q, error %v", test.sends, slowly, got, err)
			}
			line := x.lines.Next(t)
			if line.Pool != test.pool || line.Client != c.LocalAddr().String() ||
				line.In != uint64(len(test.sends)-4) || line.Reason != tally.ClientClosed.String() {
				t.Errorf("%q, slowly %v: %+v", test.sends, slowly, line)
			}
		}
	}
}

// TestPrefacesInARow composes two prefaces: the first says who the client is, the second one which pool it goes to. It
// also holds that an Opener may have no preface for a session, and that with no preface left the backend is chosen.
func TestPrefacesInARow(t *testing.T) {
	for _, slowly := range []bool{false, true} {
		x := startPrefaced(t, nil)
		first, second := named(t), routing(t, x.two, patience)
		step := second.step
		second.step = func(p *scripted, s *session.Session, why session.Cause) session.Step {
			if s.Client() != realClient {
				t.Errorf("the second preface sees client %v", s.Client())
			}
			return step(p, s, why)
		}
		x.use(t, first, second)
		none := openerFunc(func(*session.Loop, *session.Session) session.Preface { return nil })
		l4test.SetPrefaces(x.Server, "test", none, first, none, second, none)
		c := dial(t, address(x.Server))
		if slowly {
			eventually(t, "the first preface has begun", func() bool { return first.steps.Load() > 0 })
			first.send(t, c, "I am 7")
			eventually(t, "the second preface has begun", func() bool { return second.steps.Load() > 0 })
			second.send(t, c, "two!")
			c.Write([]byte("hello"))
		} else {
			c.Write([]byte("I am 7two!hello")) // in one event, and the second preface gets no other
		}
		got := make([]byte, 6)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "2hello" {
			t.Errorf("slowly %v: the answer is %q, error %v", slowly, got, err)
		}
		c.Close()
		if line := x.lines.Next(t); line.Client != realClient.String() || line.Pool != "two" || line.In != 5 {
			t.Errorf("slowly %v: %+v", slowly, line)
		}
		if a, b := first.opened.Load(), second.opened.Load(); a != 1 || b != 1 {
			t.Errorf("slowly %v: %d and %d were opened", slowly, a, b)
		}
	}
}

// TestPrefaceEnds holds how a session ends that never comes to a backend: by the preface or by its client.
func TestPrefaceEnds(t *testing.T) {
	const soon = 50 * time.Millisecond
	sends := func(text string) func(*net.TCPConn) { return func(c *net.TCPConn) { c.Write([]byte(text)) } }
	halfCloses := func(text string) func(*net.TCPConn) {
		return func(c *net.TCPConn) { c.Write([]byte(text)); c.CloseWrite() }
	}
	for _, test := range []struct {
		name     string
		patience time.Duration
		client   func(*net.TCPConn)
		want     l4.Reason
	}{
		{"refuses", patience, sends("three"), tally.Malformed},
		{"needs more and the client closes its half", patience, halfCloses("tw"), tally.Malformed},
		{"the client closes its half at once", patience, halfCloses(""), tally.Malformed},
		{"the client resets at once", patience, resets, tally.Probe},
		{"the client sends too little and resets", patience, func(c *net.TCPConn) { c.Write([]byte("tw")); resets(c) },
			tally.ClientReset},
		{"the client never sends", soon, sends(""), tally.Idle},
		{"the client sends too little", soon, sends("tw"), tally.Idle},
		{"nobody serves the chosen pool", patience, sends("two!"), tally.NoBackend},
	} {
		for how, refuse := range map[string]l4.Refusal{"reset": l4.RefuseReset, "close": l4.RefuseClose} {
			t.Run(test.name+"/"+how, func(t *testing.T) {
				x := startPrefaced(t, func(ls *l4.ListenerSpec) { ls.Refuse = refuse })
				x.use(t, routing(t, otherPool(t), test.patience))
				c := dial(t, address(x.Server))
				test.client(c)
				if test.want != tally.Probe && test.want != tally.ClientReset { // in which the client has gone
					if got := reset(t, c); got != (refuse == l4.RefuseReset) {
						t.Errorf("ended with a reset: %v", got)
					}
				}
				if line := x.lines.Next(t); line.Reason != test.want.String() || line.Backend != "" || line.In != 0 {
					t.Errorf("%+v", line)
				}
				if n := x.Listeners()[0].Ended[test.want]; n != 1 {
					t.Errorf("%d sessions are counted", n)
				}
			})
		}
	}
}

func resets(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// TestPrefaceTimes holds when a preface is called for time: at the moment it named last, however much its client has
// sent meanwhile, and not at the moment that another preface named before it.
func TestPrefaceTimes(t *testing.T) {
	const first, later = 60 * time.Millisecond, 180 * time.Millisecond
	var expired []time.Duration
	began := time.Duration(0)
	slow := &script{t: t, step: func(p *scripted, _ *session.Session, why session.Cause) session.Step {
		switch why {
		case session.Begun:
			began = p.loop.Now
			return session.More(began + first)
		case session.Ready:
			return session.More(0)
		}
		expired = append(expired, p.loop.Now-began)
		if len(expired) == 1 {
			return session.More(began + later)
		}
		return session.PassOn(session.Pass{})
	}}
	x := startPrefaced(t, nil)
	x.use(t, slow)
	c := dial(t, address(x.Server))
	for range 10 {
		c.Write([]byte("x"))
		time.Sleep(2 * time.Millisecond)
	}
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "1xxxxxxxxxx" {
		t.Errorf("the answer is %q, error %v", got, err)
	}
	x.lines.Next(t)
	if len(expired) != 2 || expired[0] < first || expired[1] < later {
		t.Errorf("the preface was called after %v", expired)
	}

	hasty := peeking(t, 4, first, func(string) session.Step { return session.PassOn(session.Pass{}) })
	timeless := &script{t: t, step: func(_ *scripted, s *session.Session, _ session.Cause) session.Step {
		if e, broken := s.Broken(); broken {
			return session.Lost(s, e)
		}
		return session.Step{}
	}}
	x.use(t, hasty, timeless)
	c = dial(t, address(x.Server))
	c.Write([]byte("four"))
	eventually(t, "the second preface has begun", func() bool { return timeless.steps.Load() > 0 })
	time.Sleep(2 * first)
	resets(c)
	if n := timeless.expired.Load(); n > 0 {
		t.Errorf("a preface that named no moment was called for time %d times", n)
	}
}

// TestPrefaceServes has a preface serve the client itself: it reads, answers and ends the session, in order or not.
func TestPrefaceServes(t *testing.T) {
	for _, whole := range []bool{true, false} {
		var read []byte
		x := startPrefaced(t, nil)
		x.use(t, &script{t: t, step: func(p *scripted, s *session.Session, _ session.Cause) session.Step {
			for s.Readable() {
				n, e := p.loop.Read(s)
				if e == sock.Again || n == 0 {
					break
				}
				read = append(read, p.loop.Scratch[:n]...)
			}
			if !bytes.HasSuffix(read, []byte("\n")) {
				return session.More(0)
			}
			if n, e := p.loop.Write(s, []byte("PONG\n")); n != 5 || e != 0 {
				t.Errorf("%d bytes written, error %v", n, e)
			}
			return session.End(tally.ClientClosed, whole)
		}})
		c := dial(t, address(x.Server))
		c.Write([]byte("PI"))
		c.Write([]byte("NG\n"))
		answer, err := io.ReadAll(c)
		if wasReset := errors.Is(err, syscall.ECONNRESET); wasReset == whole || whole && string(answer) != "PONG\n" {
			t.Errorf("whole %v: the answer is %q, error %v", whole, answer, err)
		}
		line := x.lines.Next(t)
		if line.In != 5 || line.Out != 5 || line.Backend != "" || line.Reason != tally.ClientClosed.String() {
			t.Errorf("%+v", line)
		}
		if string(read) != "PING\n" {
			t.Errorf("%q was read", read)
		}
		eventually(t, "the bytes are counted", func() bool {
			info := x.Listeners()[0]
			return info.BytesIn == 5 && info.BytesOut == 5
		})
	}
}

// TestPrefacePrefills has a preface read what the client sends, and give the backend that and a header of its own. It
// passes on outside Step, when the test says so.
func TestPrefacePrefills(t *testing.T) {
	var ref session.Ref
	var talk loop.ByteQueue // onLoop only
	x := startPrefaced(t, nil)
	reader := &script{t: t, step: func(p *scripted, s *session.Session, why session.Cause) session.Step {
		ref = s.Ref()
		if why == session.Ready && s.Readable() {
			n, _ := p.loop.Read(s)
			talk.Append(&p.loop.Buffers, p.loop.Scratch[:n])
		}
		return session.More(0)
	}}
	x.use(t, reader)
	c := dial(t, address(x.Server))
	c.Write([]byte("before "))
	onLoop := func(f func(l *session.Loop)) {
		l4test.OnLoop(x.Server, 0, func() { f(l4test.RoomsOf(x.Server).Sessions[0]) })
	}
	eventually(t, "the client's bytes are read", func() (read bool) {
		onLoop(func(*session.Loop) { read = talk.Size() == 7 })
		return read
	})
	onLoop(func(l *session.Loop) {
		s, alive := ref.Get()
		if !alive {
			t.Error("the session is gone")
			return
		}
		var header loop.ByteQueue
		header.Append(&l.Buffers, []byte("HEADER "))
		l.Prefill(s, &header, false)
		l.Prefill(s, &talk, true)
		l.Proceed(s, session.PassOn(session.Pass{Pool: x.two}))
	})
	c.Write([]byte("behind"))
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "2HEADER before behind" {
		t.Errorf("the answer is %q, error %v", got, err)
	}
	if line := x.lines.Next(t); line.In != 13 || line.Pool != "two" {
		t.Errorf("%+v", line)
	}
	if b := x.two.Backends()[0]; b.BytesIn != 13 || b.Outcomes[pool.Served] != 1 {
		t.Errorf("the backend has %+v", b)
	}
	onLoop(func(*session.Loop) {
		if _, alive := ref.Get(); alive {
			t.Error("the Ref outlives its session")
		}
	})
}

// TestPrefaceCut holds what happens to a client that a preface still has when its session is ended from outside. In a
// drain it gets an orderly end if the preface has sent all there was; the operator's end is always a reset.
func TestPrefaceCut(t *testing.T) {
	for _, test := range []struct {
		name      string
		shutdown  bool
		whole     bool
		want      l4.Reason
		wantReset bool
	}{
		{"drain", true, true, tally.Drained, false},
		{"drain, not whole", true, false, tally.Drained, true},
		{"operator", false, true, tally.EndedByOperator, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := startPrefaced(t, nil)
			held := routing(t, x.two, patience)
			held.cut = func(p *scripted, s *session.Session) bool {
				p.loop.Write(s, []byte("bye"))
				return test.whole
			}
			x.use(t, held)
			c := dial(t, address(x.Server))
			eventually(t, "the preface has the client", func() bool { return held.steps.Load() > 0 })
			list, err := x.List(t.Context(), l4.SessionFilter{})
			if err != nil || len(list.Sessions) != 1 || list.Sessions[0].Phase != "scripted" {
				t.Errorf("the sessions are %+v, error %v", list, err)
			}
			if test.shutdown {
				if err := x.Shutdown(done(t)); err == nil {
					t.Error("the shutdown cut nobody")
				}
			} else if n, err := x.End(t.Context(), l4.SessionFilter{}); n != 1 || err != nil {
				t.Errorf("%d ended, error %v", n, err)
			}
			got, err := io.ReadAll(c)
			if (err != nil) != test.wantReset || !test.wantReset && string(got) != "bye" {
				t.Errorf("the client got %q, error %v", got, err)
			}
			line := x.lines.Next(t)
			if line.Reason != test.want.String() || line.Out != 3 || held.cuts.Load() != 1 {
				t.Errorf("%d cuts, %+v", held.cuts.Load(), line)
			}
		})
	}
}
