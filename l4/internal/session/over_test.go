package session_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool/rate"
)

// startOver starts a server in front of an echo, with limits.
func startOver(t *testing.T, loops int, change func(*l4.ListenerSpec)) *l4.Server {
	t.Helper()
	s := spec(newPool(t, backend(t, echo)))
	change(&s)
	return start(t, l4.Options{Loops: loops}, s)
}

// come connects to the server. A reset may be there before the connect is over: then there is no connection.
func come(t *testing.T, s *l4.Server) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address(s), 5*time.Second)
	if err != nil {
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		return nil
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// ended is how many clients were refused for a reason.
func ended(s *l4.Server, name string) (n uint64) {
	for why, count := range l4test.Info(s).Ended {
		if why.String() == name {
			n += count
		}
	}
	return n
}

// TestOver holds what becomes of a client that is over a limit, in each way.
func TestOver(t *testing.T) {
	hears := func(c *net.TCPConn, patience time.Duration) (string, error) {
		if c == nil {
			return "", syscall.ECONNRESET
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(c)
		return string(got), err
	}
	for _, tt := range []struct {
		over    l4.Over
		refuse  l4.Refusal
		spec    func(*l4.ListenerSpec)
		hears   string
		resets  bool // else the client finds an end
		silence bool // or nothing at all
	}{
		{over: l4.OverReset, refuse: l4.RefuseClose, resets: true},
		{over: l4.OverClose},
		{over: l4.OverRefuse, resets: true},
		{over: l4.OverRefuse, refuse: l4.RefuseClose},
		{over: l4.OverDelay, resets: true}, // for one client
		{over: l4.OverDrop, silence: true},
		{over: l4.OverTell, hears: "-ERR max number of clients reached\r\n",
			spec: func(s *l4.ListenerSpec) { s.OverFarewell = l4.Redis }},
		{over: l4.OverRefuse, hears: "-ERR max number of clients reached\r\n",
			spec: func(s *l4.ListenerSpec) { s.Farewell = l4.Redis }},
		{over: l4.OverReset, resets: true, spec: func(s *l4.ListenerSpec) { s.Farewell = l4.Redis }},
	} {
		s := startOver(t, 2, func(s *l4.ListenerSpec) {
			s.Refuse, s.Limits.Over, s.Limits.ClientSessions = tt.refuse, tt.over, 1
			if tt.spec != nil {
				tt.spec(s)
			}
		})
		served := dial(t, address(s))
		if err := ask(served); err != nil {
			t.Fatal(err)
		}
		over := come(t, s)
		patience := 5 * time.Second
		if tt.silence {
			patience = 300 * time.Millisecond
		}
		if tt.hears != "" || tt.silence {
			_, _ = over.Write([]byte("PING\r\n"))
		}
		got, err := hears(over, patience)
		switch {
		case got != tt.hears:
			t.Errorf("%v: the client hears %q, error %v, want %q", tt.over, got, err, tt.hears)
		case tt.resets && !errors.Is(err, os.ErrDeadlineExceeded) && err != nil:
		case tt.silence && errors.Is(err, os.ErrDeadlineExceeded):
		case !tt.resets && !tt.silence && err == nil:
		default:
			t.Errorf("%v, refuse %v: error %v", tt.over, tt.refuse, err)
		}
		if n := ended(s, "client_sessions"); n != 1 {
			t.Errorf("%v: %d are counted", tt.over, n)
		}
		served.Close()
		l4test.Eventually(t, "the first client leaves", func() bool { return s.Sessions() == 0 })
		if err := ask(dial(t, address(s))); err != nil {
			t.Errorf("%v: afterwards: %v", tt.over, err)
		}
	}
}

// TestMuteIsBounded holds that clients which are refused without a word keep few descriptors, and give them back with
// the server.
func TestMuteIsBounded(t *testing.T) {
	before := openDescriptors(t)
	s := startOver(t, 1, func(s *l4.ListenerSpec) {
		s.Limits.Over, s.Limits.Rate = l4.OverDrop, rate.PerSecond(1, 1)
	})
	const floods = 1500
	for n := range floods { // each from another address: none is shunned
		from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}
		d := net.Dialer{LocalAddr: from, Timeout: 5 * time.Second}
		c, err := d.Dial("tcp", address(s))
		if err == nil {
			c.Close()
		} else if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
	}
	l4test.Eventually(t, "all are refused", func() bool { return ended(s, "rate") >= floods-10 })
	if n := openDescriptors(t) - before; n > 1024+50 {
		t.Errorf("%d descriptors", n)
	}
	if err := s.Shutdown(done(t)); err != nil {
		t.Fatal(err)
	}
	l4test.Eventually(t, "the descriptors are closed", func() bool { return openDescriptors(t) <= before+1 })
}

// TestDelay holds that clients beyond the limits of sessions wait in the kernel's queue, that all of them are served as
// others leave, on whichever loop, and that none is refused.
func TestDelay(t *testing.T) {
	for name, change := range map[string]func(*l4.ListenerSpec, *l4.Options){
		"listener": func(s *l4.ListenerSpec, _ *l4.Options) { s.MaxSessions = 3 },
		"process":  func(_ *l4.ListenerSpec, o *l4.Options) { o.MaxSessions = 3 },
	} {
		o, ls := l4.Options{Loops: 3}, spec(newPool(t, backend(t, echo)))
		ls.Limits.Over = l4.OverDelay
		change(&ls, &o)
		s := start(t, o, ls)
		const clients = 60
		var most atomic.Int64
		results := make(chan error, clients)
		for range clients {
			go func() {
				c, err := net.Dial("tcp", address(s))
				if err == nil {
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					err = ask(c)
					if n := int64(s.Sessions()); n > most.Load() {
						most.Store(n)
					}
					time.Sleep(5 * time.Millisecond)
					c.Close()
				}
				results <- err
			}()
		}
		began := time.Now()
		for range clients {
			if err := <-results; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := most.Load(); n > 3 {
			t.Errorf("%s: %d sessions at once", name, n)
		}
		if n := ended(s, "max_sessions"); n != 0 {
			t.Errorf("%s: %d were refused", name, n)
		}
		t.Logf("%s: %d clients, 3 at a time, took %v", name, clients, time.Since(began))
	}
}

// TestDelayRate holds that clients who come too often are all served, no more of them than the rate allows.
func TestDelayRate(t *testing.T) {
	s := startOver(t, 2, func(s *l4.ListenerSpec) {
		s.Limits.Over, s.Limits.Rate = l4.OverDelay, rate.PerSecond(200, 10)
	})
	const clients = 110 // a burst, and what half a second allows
	began := time.Now()
	results := make(chan error, clients)
	for range clients {
		go func() {
			c, err := net.Dial("tcp", address(s))
			if err == nil {
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				err = ask(c)
				c.Close()
			}
			results <- err
		}()
	}
	for range clients {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took < 490*time.Millisecond {
		t.Errorf("they took %v", took)
	}
	if n := ended(s, "rate"); n != 0 {
		t.Errorf("%d were refused", n)
	}
}

// TestRates holds that no more sessions begin than the rates allow, and that each refusal is counted.
func TestRates(t *testing.T) {
	for reason, limits := range map[string]l4.Limits{
		"client_rate": {ClientRate: rate.PerSecond(10, 5)},
		"rate":        {Rate: rate.PerSecond(10, 5)},
	} {
		s := startOver(t, 2, func(s *l4.ListenerSpec) { s.Limits = limits })
		began := time.Now()
		served := 0
		for range 50 {
			if c := come(t, s); c != nil {
				if ask(c) == nil {
					served++
				}
				c.Close()
			}
		}
		if most := 5 + int(time.Since(began)/(100*time.Millisecond)) + 1; served < 5 || served > most {
			t.Errorf("%s: %d were served, want 5 to %d", reason, served, most)
		}
		l4test.Eventually(t, "all refusals are counted", func() bool { return ended(s, reason) == uint64(50-served) })
	}
}

// TestNotShunned holds that a client which is refused only since all clients together come too often is not shunned:
// its connections go on to be accepted.
func TestNotShunned(t *testing.T) {
	s := startOver(t, 1, func(s *l4.ListenerSpec) {
		s.Limits.Over, s.Limits.Rate = l4.OverDrop, rate.PerSecond(1, 1)
	})
	const times = 200
	for range times {
		c, err := net.DialTimeout("tcp", address(s), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	l4test.Eventually(t, "all are counted", func() bool { return ended(s, "rate") >= times-20 })
}

// TestShunned holds that the kernel drops the requests of a client that floods a listener which refuses without a word,
// that others are served meanwhile, that the client's own session goes on, and that it is served again afterwards.
func TestShunned(t *testing.T) {
	s := startOver(t, 2, func(s *l4.ListenerSpec) {
		s.Limits.Over, s.Limits.ClientRate = l4.OverDrop, rate.PerSecond(20, 5)
	})
	from := func(addr string, patience time.Duration) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: patience}
		return d.Dial("tcp", address(s))
	}
	own, err := from("127.0.0.2", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := ask(own); err != nil {
		t.Fatal(err)
	}
	dropped := false
	for began := time.Now(); !dropped && time.Since(began) < 10*time.Second; {
		c, err := from("127.0.0.2", 20*time.Millisecond)
		if err == nil {
			c.Close()
		} else {
			var e net.Error
			dropped = errors.As(err, &e) && e.Timeout()
		}
	}
	if !dropped {
		t.Fatal("the client is never shunned")
	}
	if err := ask(dial(t, address(s))); err != nil {
		t.Errorf("another client: %v", err)
	}
	if err := ask(own); err != nil {
		t.Errorf("the client's own session: %v", err)
	}
	l4test.Eventually(t, "the client is served again", func() bool {
		c, err := from("127.0.0.2", 5*time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
		return ask(c) == nil
	})
}
