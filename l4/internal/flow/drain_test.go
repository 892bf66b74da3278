package flow_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestFlowShutdown holds that a shutdown lets flows go on until they are idle, refuses new clients, and cuts those
// that are left when its context is done.
func TestFlowShutdown(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut %v", cut), func(t *testing.T) {
			before := descriptors(t)
			b := startUDP(t, echoUDP)
			spec := flowSpec(newPool(t, b.Address()))
			spec.Flows.Timeout = time.Second
			if cut {
				spec.Flows.Timeout = time.Hour
			}
			s := start(t, l4.Options{Loops: 2}, spec)
			at := address(s)
			c := dialUDP(t, at)
			askUDP(t, c, "x")
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- s.Shutdown(ctx) }()
			eventually(t, "it drains", func() bool { return l4test.Draining(s) })
			if got := askUDP(t, c, "y"); got != "y" {
				t.Errorf("a flow of before got %q", got)
			}
			late := dialUDP(t, at)
			// One that comes to the other loop's socket, which is closed, is refused by ICMP.
			for sent := uint64(1); ; sent++ {
				_, _ = late.Write([]byte("x"))
				if info(s).Dropped[tally.DropDraining] > 0 || sent > 3 {
					break
				}
			}
			if s.Flows() != 1 {
				t.Errorf("%d flows", s.Flows())
			}
			if cut {
				stop()
			}
			if err := <-ended; cut != errors.Is(err, context.Canceled) {
				t.Errorf("Shutdown: %v", err)
			}
			want := tally.Idle
			if cut {
				want = tally.Drained
			}
			if e := info(s).Ended; e[want] != 1 {
				t.Errorf("%v", e)
			}
			c.Close()
			late.Close()
			b.Close()
			eventually(t, "the descriptors are back", func() bool { return descriptors(t) == before })
		})
	}
}

// TestFlowShutdownBesideSessions holds that a shutdown waits for flows when the last session is over, and for
// sessions when the last flow is.
func TestFlowShutdownBesideSessions(t *testing.T) {
	for _, flowFirst := range []bool{false, true} {
		u := flowSpec(newPool(t, startUDP(t, echoUDP).Address()))
		u.Name = "udp"
		u.Flows.Timeout = time.Hour
		s := start(t, l4.Options{Loops: 2}, spec(newPool(t, backend(t, echo))), u)
		listeners := s.Listeners()
		stream := dial(t, listeners[0].Address.String())
		if err := ask(stream); err != nil {
			t.Fatal(err)
		}
		askUDP(t, dialUDP(t, listeners[1].Address.String()), "x")
		ended := make(chan error, 1)
		go func() { ended <- s.Shutdown(t.Context()) }()
		eventually(t, "it drains", func() bool { return l4test.Draining(s) })
		endFlow := func() {
			if n, err := s.End(t.Context(), l4.SessionFilter{Listener: "udp"}); n != 1 || err != nil {
				t.Errorf("%d ended, %v", n, err)
			}
		}
		if flowFirst {
			endFlow()
		}
		stream.Close()
		eventually(t, "the session is over", func() bool { return s.Sessions() == 0 })
		if !flowFirst {
			endFlow() // Shutdown has not returned: the loops still work
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestFlowDrainDrops holds that a new client of a listener that drains is dropped and counted.
func TestFlowDrainDrops(t *testing.T) {
	b := startUDP(t, echoUDP)
	s := start(t, l4.Options{Loops: 1}, flowSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	late := dialUDP(t, address(s))
	askUDP(t, c, "x")
	ls, bound := l4test.ListenerOf(s, "test")
	if err := s.Apply(l4.Plan{}); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is dropped", func() bool { return ls.Counters[0].Dropped[tally.DropDraining].Load() == 1 })
	if got := askUDP(t, c, "y"); got != "y" {
		t.Errorf("a flow of before got %q", got)
	}
	if n, err := s.End(t.Context(), l4.SessionFilter{Listener: "test"}); n != 1 || err != nil {
		t.Errorf("%d ended, %v", n, err)
	}
	eventually(t, "the socket is closed", bound.Ending.IsGone)
}

// TestFlowDrainKeepsSockets holds that a listener that drains keeps the sockets of all loops until its last flow is
// over: with fewer, the kernel would send clients to loops that do not know them.
func TestFlowDrainKeepsSockets(t *testing.T) {
	b := startUDP(t, echoUDP)
	s := start(t, l4.Options{Loops: 5}, flowSpec(newPool(t, b.Address())))
	var clients []*net.UDPConn
	for range 3 {
		c := dialUDP(t, address(s))
		clients = append(clients, c)
		askUDP(t, c, "x")
	}
	ls, bound := l4test.ListenerOf(s, "test")
	if err := s.Apply(l4.Plan{}); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		if got := askUDP(t, c, "y"); got != "y" {
			t.Error(got)
		}
		from := c.LocalAddr().(*net.UDPAddr).AddrPort()
		list, err := s.List(t.Context(), l4.SessionFilter{Client: netip.PrefixFrom(from.Addr(), 32)})
		if err != nil || list.Total != len(clients)-i {
			t.Fatalf("%d flows, %v", list.Total, err)
		}
		for _, f := range list.Sessions {
			if f.Client == from {
				if n, err := s.End(t.Context(), l4.SessionFilter{ID: f.ID}); n != 1 || err != nil {
					t.Fatal(n, err)
				}
			}
		}
	}
	eventually(t, "the sockets are closed", bound.Ending.IsGone)
	for i := range ls.Counters {
		for why := range ls.Counters[i].Dropped {
			if n := ls.Counters[i].Dropped[why].Load(); n != 0 {
				t.Errorf("loop %d has dropped %d: %s", i, n, tally.Drop(why))
			}
		}
	}
}

// TestFlowSuccessor holds that a listener which takes the address of one that drains gets the new clients, whichever
// socket they come by.
func TestFlowSuccessor(t *testing.T) {
	a, b := startUDP(t, naming("a")), startUDP(t, naming("b"))
	first := flowSpec(newPool(t, a.Address()))
	s := start(t, l4.Options{Loops: 1}, first)
	at := info(s).Address
	old := dialUDP(t, at.String())
	if got := askUDP(t, old, "x"); got != "a" {
		t.Fatal(got)
	}
	if err := s.Apply(l4.Plan{}); err != nil {
		t.Fatal(err)
	}
	second := flowSpec(newPool(t, b.Address()))
	second.Name, second.Address = "second", at.AddrPort
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{second}}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if got := askUDP(t, dialUDP(t, at.String()), "x"); got != "b" {
			t.Fatal(got)
		}
	}
	if info := info(s); info.Accepted != 20 || len(info.Dropped) != 0 {
		t.Errorf("%d accepted, dropped %v", info.Accepted, info.Dropped)
	}
}

// TestFlowRevoked holds that flows of a revoked backend end, and that their clients go on with another.
func TestFlowRevoked(t *testing.T) {
	a, b := startUDP(t, naming("a")), startUDP(t, naming("b"))
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "first", Initial: pool.Healthy, CloseOnUnhealthy: true, CloseOnRemove: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []*l4test.UDPBackend{a, b} {
		if err := p.Add(pool.Spec{ID: x.Address(), Addr: pool.At(netip.MustParseAddrPort(x.Address())), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, l4.Options{Loops: 2}, flowSpec(p))
	c := dialUDP(t, address(s))
	if got := askUDP(t, c, "x"); got != "a" {
		t.Fatal(got)
	}
	if err := p.SetVerdict(a.Address(), pool.Unhealthy, "test"); err != nil {
		t.Fatal(err)
	}
	awaitFlows(t, s, 0)
	if got := askUDP(t, c, "x"); got != "b" {
		t.Fatal(got)
	}
	if err := p.Remove(b.Address()); err != nil {
		t.Fatal(err)
	}
	awaitFlows(t, s, 0)
	if e := info(s).Ended; e[tally.BackendUnhealthy] != 1 || e[tally.BackendRemoved] != 1 {
		t.Errorf("%v", e)
	}
}
