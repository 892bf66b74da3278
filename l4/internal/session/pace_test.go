package session_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// bandwidth limits the sessions of a listener.
func bandwidth(rate int) func(*l4.ListenerSpec) {
	return func(ls *l4.ListenerSpec) { ls.Limits.SessionBandwidth = int64(rate) }
}

// apply gives the server's listener other limits.
func apply(t *testing.T, s *l4.Server, to l4.ListenerSpec) {
	t.Helper()
	to.Address = l4test.Info(s).Address.AddrPort
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{to}}); err != nil {
		t.Fatal(err)
	}
}

// TestBandwidth holds that sessions get their bandwidth, each way and both ways at once, evenly.
func TestBandwidth(t *testing.T) {
	for _, test := range []struct {
		name     string
		rate     int
		tls      bool
		splices  bool
		sessions []int
	}{
		{name: "copied", rate: 200_000, sessions: []int{1, 10, 100}},
		{name: "spliced", rate: 3_000_000, splices: true, sessions: []int{1, 10}},
		{name: "TLS", rate: 1_000_000, tls: true, sessions: []int{1, 10}},
	} {
		for _, sessions := range test.sessions {
			t.Run(fmt.Sprintf("%s/%d sessions", test.name, sessions), func(t *testing.T) {
				t.Parallel()
				const long = 2500 * time.Millisecond
				var ends sync.WaitGroup
				streams := make(chan *stream, 2*sessions)
				both := func(c net.Conn) {
					ends.Go(func() { send(c) })
					streams <- receive(c, long)
				}
				pair := l4test.NewKeyPair(t, "localhost")
				ls := spec(newPool(t, backend(t, func(c *net.TCPConn) { both(c); <-t.Context().Done() })))
				if test.tls {
					ls.TLS = l4test.TLSServer(t, l4.TLSServerSettings{}, pair)
				}
				bandwidth(test.rate)(&ls)
				s := start(t, l4.Options{Loops: 1}, ls)
				var clients []net.Conn
				for range sessions {
					var c net.Conn = dial(t, address(s))
					if test.tls {
						c = tls.Client(c, &tls.Config{RootCAs: l4test.Roots(t, pair), ServerName: "localhost"})
					}
					clients = append(clients, c)
					go both(c)
				}
				for i := range 2 * sessions {
					x := <-streams
					x.holds(t, test.rate)
					if i == 0 && test.splices && !anySession(s, func(one *session.Session) bool {
						in, out := session.Splices(one)
						return in && out
					}) {
						t.Error("the bytes are copied")
					}
				}
				for _, c := range clients {
					c.Close()
				}
				_ = s.Shutdown(done(t))
				ends.Wait()
			})
		}
	}
}

// TestPacedSleeps holds that a sender without a pause does not wake the loop for its packets.
func TestPacedSleeps(t *testing.T) {
	for _, test := range []l4.Limits{
		{SessionBandwidth: 100_000}, {SessionBandwidth: 1_000_000}, {ClientBandwidth: 1_000_000},
		{SessionBandwidth: 1_000_000, ClientBandwidth: 1_100_000},
	} {
		t.Run(fmt.Sprintf("%d of a session, %d of a client", test.SessionBandwidth, test.ClientBandwidth),
			func(t *testing.T) {
				t.Parallel()
				s, client, server := stuck(t, func(ls *l4.ListenerSpec) { ls.Limits = test })
				go send(client)
				go func() { _, _ = io.Copy(io.Discard, server) }()
				time.Sleep(time.Second)
				least := math.Inf(1)
				for range 8 { // a sender that does not get its CPU pauses, and then its bytes are events
					before, began := s.Loops()[0].Turns, time.Now()
					time.Sleep(time.Second)
					turns := s.Loops()[0].Turns - before
					if least = min(least, float64(turns)/time.Since(began).Seconds()); least <= 25 {
						return
					}
				}
				t.Errorf("it wakes up %.0f times a second", least)
			})
	}
}

// TestPacedEnd holds that a FIN follows behind all bytes that wait for their turn.
func TestPacedEnd(t *testing.T) {
	for _, size := range []int{1, 5000, 50_000, 100_000, 700_001} {
		for _, out := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, to the client %v", size, out), func(t *testing.T) {
				t.Parallel()
				s, from, to := stuck(t, bandwidth(500_000))
				if out {
					from, to = to, from
				}
				sent := random(size)
				go func() {
					_, _ = from.Write(sent)
					_ = from.CloseWrite()
				}()
				got, err := io.ReadAll(to)
				if err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("got %d bytes, error %v", len(got), err)
				}
				if _, err := to.Write(sent[:1]); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(from, make([]byte, 1)); err != nil {
					t.Error("the other way: ", err)
				}
				to.Close()
				eventually(t, "the session has ended", func() bool { return s.Sessions() == 0 })
			})
		}
	}
}

// exchange sends a byte each way.
func exchange(a, b net.Conn) error {
	for range 2 {
		if _, err := a.Write([]byte("x")); err != nil {
			return err
		}
		if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
			return err
		}
		a, b = b, a
	}
	return nil
}

// TestPacedReset holds that a reset ends a session one of whose directions is held back, whichever side it comes from.
func TestPacedReset(t *testing.T) {
	for _, test := range []struct {
		toClient, bySender bool
		want               l4.Reason
	}{
		{false, true, tally.ClientReset},
		{false, false, tally.BackendReset},
		{true, true, tally.BackendReset},
		{true, false, tally.ClientReset},
	} {
		t.Run(fmt.Sprintf("to the client %v, by the sender %v", test.toClient, test.bySender), func(t *testing.T) {
			t.Parallel()
			s, from, to := stuck(t, bandwidth(200_000))
			if test.toClient {
				from, to = to, from
			}
			if err := exchange(from, to); err != nil { // a client that says nothing is a probe
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, to) }()
			if _, err := from.Write(make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is held back", func() bool { return anySession(s, session.HeldBack) })
			resets := to
			if test.bySender {
				resets = from
			}
			resets.SetLinger(0)
			resets.Close()
			eventually(t, "the session has ended", func() bool { return s.Sessions() == 0 })
			if n := l4test.Info(s).Ended[test.want]; n != 1 {
				t.Errorf("it has ended as %v", l4test.Info(s).Ended)
			}
		})
	}
}

// TestPacedIsNotIdle holds that neither idle_timeout nor half_close_timeout ends a session that waits for its turn.
func TestPacedIsNotIdle(t *testing.T) {
	t.Parallel()
	const rate, size = 1024, 4000
	s, from, to := stuck(t, func(ls *l4.ListenerSpec) {
		ls.Limits.SessionBandwidth = rate // a turn every 1.4 s
		ls.IdleTimeout, ls.HalfCloseTimeout = 300*time.Millisecond, 200*time.Millisecond
	})
	if _, err := from.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	from.CloseWrite()
	if n, err := io.Copy(io.Discard, to); n != size || err != nil {
		t.Errorf("%d bytes, error %v; %v", n, err, l4test.Info(s).Ended)
	}
	eventually(t, "it is silent afterwards", func() bool { return s.Sessions() == 0 })
}

// TestPacedDrains holds that a server shuts down while a session is held back.
func TestPacedDrains(t *testing.T) {
	s, from, to := stuck(t, bandwidth(10_000))
	go send(from)
	go func() { _, _ = io.Copy(io.Discard, to) }()
	eventually(t, "it is held back", func() bool { return anySession(s, session.HeldBack) })
	_ = s.Shutdown(done(t))
	if n := s.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestPacedIsReported holds that what a session's side sends is reported again once the session is not held back any
// more, so that a question has its answer at once.
func TestPacedIsReported(t *testing.T) {
	s := start(t, l4.Options{Loops: 1}, limited(spec(newPool(t, backend(t, echo))), 1_000_000))
	c := dial(t, address(s))
	for range 3 {
		sent := random(200_000)
		go func() { _, _ = c.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatal("other bytes came back, or an error: ", err)
		}
		eventually(t, "both sides are reported", func() bool {
			return anySession(s, func(one *session.Session) bool {
				client, backend := session.Unreported(one)
				return !client && !backend
			})
		})
		began := time.Now()
		for range 100 {
			if err := ask(c); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("100 questions took %v", took)
		}
	}
}

func limited(ls l4.ListenerSpec, rate int) l4.ListenerSpec {
	bandwidth(rate)(&ls)
	return ls
}

// TestPacedUrgent holds that nothing is lost behind an urgent byte that comes while a session is held back.
func TestPacedUrgent(t *testing.T) {
	for _, fin := range []bool{false, true} {
		t.Run(fmt.Sprintf("FIN %v", fin), func(t *testing.T) {
			s, from, to := stuck(t, bandwidth(500_000))
			before, behind := bytes.Repeat([]byte("b"), 100_000), bytes.Repeat([]byte("a"), 100_000)
			from.Write(before)
			eventually(t, "it is held back", func() bool { return anySession(s, session.HeldBack) })
			sendUrgent(t, from)
			from.Write(behind)
			if fin {
				from.CloseWrite()
			}
			buf, n := make([]byte, 1<<20), 0
			to.SetReadDeadline(time.Now().Add(10 * time.Second))
			for n < len(before)+len(behind) {
				m, err := to.Read(buf)
				if err != nil {
					t.Fatalf("%d of %d bytes: %v", n, len(before)+len(behind), err)
				}
				n += m - bytes.Count(buf[:m], []byte("!"))
			}
		})
	}
}

// TestBandwidthChanges holds that running sessions get a limit that is set, changed or taken away.
func TestBandwidthChanges(t *testing.T) {
	t.Parallel()
	p := newPool(t, backend(t, func(c *net.TCPConn) { send(c) }))
	s := start(t, l4.Options{Loops: 1}, limited(spec(p), 100_000))
	c := dial(t, address(s))
	receive(c, time.Second/2)
	apply(t, s, limited(spec(p), 1_000_000))
	receive(c, time.Second/2) // what waits on the way
	receive(c, 2*time.Second).holds(t, 1_000_000)
	apply(t, s, spec(p))
	eventually(t, "there is no limit", func() bool { return receive(c, time.Second/10).total > 10_000_000 })
	apply(t, s, limited(spec(p), 2_000_000))
	receive(c, time.Second/2)
	receive(c, 2*time.Second).holds(t, 2_000_000)
}

// TestBandwidthForRunning holds that sessions that have begun without a limit get one, with the next round of their
// loop.
func TestBandwidthForRunning(t *testing.T) {
	p := newPool(t, backend(t, echo))
	s := start(t, l4.Options{Loops: 1}, spec(p))
	c := dial(t, address(s))
	apply(t, s, limited(spec(p), 1_000_000))
	eventually(t, "it has a limit", func() bool {
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		return anySession(s, session.Paces)
	})
}

// TestNoBandwidth holds that a session without a limit has nothing for one.
func TestNoBandwidth(t *testing.T) {
	for _, dryRun := range []bool{false, true} {
		ls := spec(newPool(t, backend(t, echo)))
		if ls.Limits.DryRun = dryRun; dryRun {
			bandwidth(1024)(&ls)
		}
		s := start(t, l4.Options{Loops: 1}, ls)
		c := dial(t, address(s))
		go func() { _, _ = c.Write(make([]byte, 1<<20)) }()
		if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if anySession(s, session.Paces) {
			t.Error("it is paced")
		}
	}
}
