package gate_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// hoard connects idle clients until no more are served.
func hoard(t *testing.T, s *l4.Server, ls l4.ListenerInfo, most int) (clients []net.Conn) {
	t.Helper()
	for range most {
		clients = append(clients, dial(t, ls.Address.String()))
	}
	eventually(t, "it has paused", func() bool { return l4test.PausedSockets(s) > 0 })
	return clients
}

// tcpAndUDP are two listeners of TCP and one of UDP.
func tcpAndUDP(t *testing.T) (specs []l4.ListenerSpec) {
	one, other := spec(newPool(t, backend(t, echo))), spec(newPool(t, backend(t, echo)))
	udp := flowSpec(newPool(t, startUDP(t, echoUDP).Address()))
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
			gate.SetCapacity(l4test.RoomsOf(s).Gate, 48) // 96 descriptors: 24 of them are promised, 8 to each
			infos := s.Listeners()
			idle := hoard(t, s, infos[0], 60)
			if n := s.Listeners()[0].Sessions; n < 40-2 || n > 40+loops-1 { // each loop may take one at the same time
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

// TestFlowsLeaveWhatIsPromised holds that flows of forged clients, answered ones too, leave listeners of TCP what
// these are promised.
func TestFlowsLeaveWhatIsPromised(t *testing.T) {
	s := start(t, l4.Options{Loops: 1}, tcpAndUDP(t)...)
	gate.SetCapacity(l4test.RoomsOf(s).Gate, 48)
	infos := s.Listeners()
	for range 80 {
		askUDP(t, dialUDP(t, infos[2].Address.String()), "x")
	}
	if _, err := dialUDP(t, infos[2].Address.String()).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one too many is dropped", func() bool {
		return s.Listeners()[2].Dropped[tally.DropNoDescriptors] == 1
	})
	for _, ls := range infos[:2] {
		for range 4 {
			if err := ask(dial(t, ls.Address.String())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := gate.DescriptorsLeft(l4test.RoomsOf(s).Gate); n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
}

// TestOneListenerHasAll holds that nothing is held back from a listener that is alone.
func TestOneListenerHasAll(t *testing.T) {
	s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, echo))))
	gate.SetCapacity(l4test.RoomsOf(s).Gate, 10)
	hoard(t, s, info(s), 15)
	if n := s.Sessions(); n != 10 {
		t.Errorf("%d sessions", n)
	}
}
