package dial_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// looped makes listeners at an address that are each other's backends in a circle: each one's backend is the next one,
// and the last one's is the first.
func looped(
	t *testing.T, listeners int, make func(*pool.Pool) l4.ListenerSpec, at netip.Addr,
) (specs []l4.ListenerSpec) {
	t.Helper()
	for i := range listeners {
		one := make(newPool(t))
		one.Name = string(rune('a' + i))
		one.Address = netip.AddrPortFrom(at, netip.MustParseAddrPort(refusing(t)).Port())
		one.DualStack = at == netip.IPv6Unspecified()
		specs = append(specs, one)
	}
	for i := range specs {
		next := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), specs[(i+1)%listeners].Address.Port())
		if err := specs[i].Pool.Add(pool.Spec{ID: "own", Addr: pool.At(next), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return specs
}

// ways are the circles that are tried.
var ways = []struct {
	name      string
	listeners int
	at        string
}{
	{"itself", 1, "127.0.0.1"}, {"through all addresses", 1, "0.0.0.0"}, {"through both families", 1, "::"},
	{"a pair", 2, "127.0.0.1"}, {"three", 3, "0.0.0.0"},
}

// TestLoop holds that a session which comes back to its listener is refused there, and ends with that. It is counted and
// logged like any other.
func TestLoop(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			specs := looped(t, way.listeners, spec, netip.MustParseAddr(way.at))
			lines, log := l4test.NewCapture()
			s := start(t, l4.Options{Loops: 2, MaxSessions: 500, Access: true, Log: log}, specs...)
			if !refusedWithReset(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), specs[0].Address.Port()).String()) {
				t.Error("the client got an orderly end")
			}
			eventually(t, "all sessions are over", func() bool { return s.Sessions() == 0 })
			var accepted, refused uint64
			for _, ls := range s.Listeners() {
				accepted += ls.Accepted
				refused += ls.Ended[tally.Loop]
			}
			if refused != 1 || accepted != uint64(way.listeners)+1 {
				t.Errorf("%d sessions, %d of them refused; want %d and 1", accepted, refused, way.listeners+1)
			}
			for lines.Next(t).Reason != tally.Loop.String() { // it fails when there is none
				continue
			}
			if n := l4test.KnownSockets(s); n != 0 {
				t.Errorf("%d sockets are still known", n)
			}
		})
	}
}

// TestPortlessLoop holds that a backend which gets the client's port is recognized as a listener of this process.
func TestPortlessLoop(t *testing.T) {
	for name, make := range map[string]func(*pool.Pool) l4.ListenerSpec{"sessions": spec, "flows": flowSpec} {
		t.Run(name, func(t *testing.T) {
			one := make(newPool(t))
			one.Address = netip.MustParseAddrPort(refusing(t))
			at := pool.At(netip.AddrPortFrom(one.Address.Addr(), 0))
			if err := one.Pool.Add(pool.Spec{ID: "own", Addr: at, Weight: 1}); err != nil {
				t.Fatal(err)
			}
			s := start(t, l4.Options{Loops: 2, MaxSessions: 500}, one)
			if one.Protocol == l4.UDP {
				if _, err := dialUDP(t, one.Address.String()).Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the datagram is dropped", func() bool { return dropped(s, tally.DropLoop) == 1 })
				return
			}
			if !refusedWithReset(t, one.Address.String()) {
				t.Error("the client got an orderly end")
			}
			eventually(t, "the second session is refused", func() bool { return s.Listeners()[0].Ended[tally.Loop] == 1 })
		})
	}
}

// TestChain holds that a listener may be the backend of others, of several at once, as long as no session comes back.
func TestChain(t *testing.T) {
	last := spec(newPool(t, backend(t, echo)))
	last.Name, last.Address = "last", netip.MustParseAddrPort(refusing(t))
	middle := spec(newPool(t, last.Address.String()))
	middle.Name, middle.Address = "middle", netip.MustParseAddrPort(refusing(t))
	first := spec(newPool(t, middle.Address.String(), last.Address.String()))
	first.Name, first.Address = "first", netip.MustParseAddrPort(refusing(t))
	s := start(t, l4.Options{Loops: 2}, first, middle, last)
	for range 20 {
		c := dial(t, first.Address.String())
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if n := l4test.KnownSockets(s); n != 30 { // ten clients come by three listeners, and ten by two
		t.Errorf("%d sockets are known, want 30", n)
	}
}

// TestLoopUDP holds of flows what TestLoop does of sessions.
func TestLoopUDP(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			specs := looped(t, way.listeners, flowSpec, netip.MustParseAddr(way.at))
			s := start(t, l4.Options{Loops: 2}, specs...)
			c := dialUDP(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), specs[0].Address.Port()).String())
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the datagram is dropped", func() bool { return dropped(s, tally.DropLoop) == 1 })
			if n := s.Flows(); n != way.listeners {
				t.Errorf("%d flows, want %d", n, way.listeners)
			}
		})
	}
}

// dropped counts the datagrams of all listeners that were dropped for a reason.
func dropped(s *l4.Server, d l4.Drop) (n uint64) {
	for _, ls := range s.Listeners() {
		n += ls.Dropped[d]
	}
	return n
}

// TestLoopDNS holds of questions what TestLoop does of sessions: one question is asked of each listener once.
func TestLoopDNS(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			l4test.EitherWay(t, func(t *testing.T, make func(*pool.Pool) l4.ListenerSpec) {
				specs := looped(t, way.listeners, func(p *pool.Pool) l4.ListenerSpec {
					one := make(p)
					l4test.SetDNSTimeout(one.DNS, time.Second)
					return one
				}, netip.MustParseAddr(way.at))
				s := start(t, l4.Options{Loops: 2}, specs...)
				c := dialUDP(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), specs[0].Address.Port()).String())
				if _, err := c.Write(l4test.DNSQuery(t, 7, l4test.NameOf(0), dns.TypeA)); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the question is dropped where it comes back", func() bool { return dropped(s, tally.DropLoop) >= 1 })
				asked := uint64(0)
				for _, ls := range s.Listeners() {
					asked += ls.DNS.Asked
				}
				if asked > 3*uint64(way.listeners) { // it may be asked again, of each
					t.Errorf("one question was asked %d times", asked)
				}
			})
		})
	}
}
