package gate_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// hoard connects idle clients until no more are served.
func hoard(t *testing.T, s *l4.Server, ls l4.ListenerInfo, most int) (clients []net.Conn) {
	t.Helper()
	for range most {
		clients = append(clients, dial(t, ls.Address.String()))
	}
	paused := func() (n int) {
		for i := range s.loops {
			s.onLoop(i, func(l *loop) { n += l.paused })
		}
		return n
	}
	eventually(t, "it has paused", func() bool { return paused() > 0 })
	return clients
}

// tcpAndUDP are two listeners of l4.TCP and one of l4.UDP.
func tcpAndUDP(t *testing.T) (specs []l4.ListenerSpec) {
	one, other := spec(newPool(t, backend(t, echo))), spec(newPool(t, backend(t, echo)))
	udp := flowSpec(newPool(t, startUDP(t, echoUDP).address()))
	one.Name, other.Name, udp.Name = "a", "b", "c"
	udp.Flows.Timeout = time.Hour
	return []l4.ListenerSpec{one, other, udp}
}

// TestPauseAlone holds that a listener whose idle clients have all descriptors but those promised to others pauses
// alone: the others serve as many as they are promised, and it goes on when some of its own leave.
func TestPauseAlone(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprint(loops, " loops"), func(t *testing.T) {
			s := start(t, l4.Options{Loops: loops}, tcpAndUDP(t)...)
			s.capacity.Store(48) // 96 descriptors: 24 of them are promised, 8 to each
			infos := s.Listeners()
			idle := hoard(t, s, infos[0], 60)
			if n := s.listeners["a"].sessions.Load(); n < 40-2 || n > 40+int64(loops)-1 { // each loop may take one at the same time
				t.Errorf("%d sessions, want 40", n)
			}
			for range 3 { // 4 and 8, but for that
				c := dial(t, infos[1].Address.String())
				if err := ask(c); err != nil {
					t.Fatal(err)
				}
			}
			for range 6 {
				askUDP(t, dialUDP(t, infos[2].Address.String()), "x")
			}
			if n := s.Listeners()[2].Dropped[tally.DropNoDescriptors]; n != 0 {
				t.Errorf("%d datagrams dropped", n)
			}
			// Those of a who wait are served as others leave.
			for _, c := range idle[:40] {
				c.Close()
			}
			for _, c := range idle[40:] {
				if err := ask(c); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestFlowsLeaveWhatIsPromised holds that flows of forged clients, answered ones too, leave l4.TCP listeners what these
// are promised.
func TestFlowsLeaveWhatIsPromised(t *testing.T) {
	s := start(t, l4.Options{Loops: 1}, tcpAndUDP(t)...)
	s.capacity.Store(48)
	infos := s.Listeners()
	for range 80 {
		askUDP(t, dialUDP(t, infos[2].Address.String()), "x")
	}
	if _, err := dialUDP(t, infos[2].Address.String()).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one too many is dropped", func() bool { return s.Listeners()[2].Dropped[tally.DropNoDescriptors] == 1 })
	for _, ls := range infos[:2] {
		for range 4 {
			if err := ask(dial(t, ls.Address.String())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := s.descriptorsLeft(); n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
}

// TestOneListenerHasAll holds that nothing is held back from a listener that is alone.
func TestOneListenerHasAll(t *testing.T) {
	s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, echo))))
	s.capacity.Store(10)
	hoard(t, s, info(s), 15)
	if n := s.Sessions(); n != 10 {
		t.Errorf("%d sessions", n)
	}
}

// TestHalfClosedMakeRoom holds that sessions whose clients have left, and whose backends do not care, make room for
// clients that are there, and that the others stay.
func TestHalfClosedMakeRoom(t *testing.T) {
	release := make(chan struct{})
	spec := spec(newPool(t, backend(t, func(c *net.TCPConn) {
		echo(c)
		<-release
	})))
	t.Cleanup(func() { close(release) })
	spec.HalfCloseTimeout = time.Hour
	s := start(t, l4.Options{Loops: 1}, spec)
	s.capacity.Store(10)
	var there []net.Conn
	for i := range 10 {
		c := dial(t, address(s))
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			there = append(there, c)
		} else {
			c.Close()
		}
	}
	for range 8 {
		c := dial(t, address(s))
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		there = append(there, c)
	}
	for _, c := range there {
		if err := ask(c); err != nil {
			t.Error(err)
		}
	}
	if e := info(s).Ended; e[tally.HalfClose] != 8 || len(e) != 1 {
		t.Errorf("ended: %v", e)
	}
}

// TestHalfClosedMayAnswer holds that a session that is half closed is not over while its backend answers, or while its
// client has not taken the answer.
func TestHalfClosedMayAnswer(t *testing.T) {
	s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		_, _ = c.Write(make([]byte, 16<<20))
	}))))
	c := dial(t, address(s))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	ls := s.listeners["test"]
	var held *session
	eventually(t, "the client takes no more", func() bool {
		s.onFirstLoop(func(l *loop) {
			if q := ls.halfClosed[0].first; q != nil && q.of.out.held() {
				held = q.of
			}
		})
		return held != nil
	})
	s.onFirstLoop(func(l *loop) {
		held.active -= time.Hour
		l.endHalfClosed(ls)
	})
	if n, err := io.Copy(io.Discard, c); n != 16<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestPromises holds who may have something of a budget: what nobody was promised goes to anybody, and the rest to
// those who have less than they were promised.
func TestPromises(t *testing.T) {
	have := map[string]int64{}
	has := func(ls *listener) int64 { return have[ls.name] }
	a, b, c := &listener{name: "a"}, &listener{name: "b"}, &listener{name: "c"}
	all := []*listener{a, b, c}
	const total = 120 // 10 are promised to each
	for _, tt := range []struct {
		a, b, c int64 // what they have, with what a is to get
		may     bool
	}{
		{1, 0, 0, true},
		{100, 0, 0, true},
		{101, 0, 0, false},
		{95, 5, 0, true},
		{95, 10, 10, true},
		{100, 10, 9, true},
		{101, 10, 9, false},
		{101, 10, 10, false},
		{1, 109, 0, true},
		{10, 100, 0, true},
		{11, 100, 0, false},
		{10, 50, 60, true},
		{10, 50, 61, false},
	} {
		have["a"], have["b"], have["c"] = tt.a, tt.b, tt.c
		if may := a.keepsPromises(total-tt.a-tt.b-tt.c, total, all, has); may != tt.may {
			t.Errorf("%+v: %v", tt, may)
		}
	}
}
