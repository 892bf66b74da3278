package flow_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// movePool makes a pool of two backends that are asked in order.
func movePool(t *testing.T, o pool.Options) (p *pool.Pool, a, b *l4test.UDPBackend) {
	t.Helper()
	o.Name, o.Algorithm, o.Initial = "pool", "first", pool.Healthy
	p, err := pool.New(o)
	if err != nil {
		t.Fatal(err)
	}
	a, b = startUDP(t, naming("a")), startUDP(t, naming("b"))
	for _, x := range []*l4test.UDPBackend{a, b} {
		if err := p.Add(pool.Spec{ID: x.Address(), Addr: pool.At(netip.MustParseAddrPort(x.Address())), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return p, a, b
}

// TestFlowMoves holds that a flow goes to another backend at its next datagram when its own is not eligible any more,
// whatever the reason and the flow key; that no lease is left over; and that it stays when there is no other backend.
func TestFlowMoves(t *testing.T) {
	for _, key := range []l4.FlowKey{l4.ByClient, l4.ByClientIP, l4.ByPacket} {
		t.Run(key.String(), func(t *testing.T) {
			p, a, b := movePool(t, pool.Options{})
			spec := flowSpec(p)
			spec.Flows.Key = key
			s := start(t, l4.Options{Loops: 2}, spec)
			clients := []*net.UDPConn{dialUDP(t, address(s)), dialUDP(t, address(s))}
			want := func(what, backend string) {
				t.Helper()
				for _, c := range clients {
					if got := askUDP(t, c, "x"); got != backend {
						t.Fatalf("%s: %s answers, want %s", what, got, backend)
					}
				}
			}
			becomes := func(what, backend string) {
				t.Helper()
				for _, c := range clients {
					eventually(t, what, func() bool { return askUDP(t, c, "x") == backend })
				}
			}
			want("at first", "a")
			if err := p.SetVerdict(a.Address(), pool.Unhealthy, "test"); err != nil {
				t.Fatal(err)
			}
			want("a is unhealthy", "b")
			if err := p.SetVerdict(b.Address(), pool.Unhealthy, "test"); err != nil {
				t.Fatal(err)
			}
			if key != l4.ByPacket {
				want("nobody is eligible", "b")
			} else {
				if _, err := clients[0].Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				awaitDropped(t, s, tally.DropNoBackend, 1)
			}
			if err := p.SetVerdict(a.Address(), pool.Healthy, "test"); err != nil {
				t.Fatal(err)
			}
			becomes("a is back", "a") // not at once: the flow has looked in vain a moment ago
			if err := p.SetVerdict(b.Address(), pool.Healthy, "test"); err != nil {
				t.Fatal(err)
			}
			if err := p.Remove(a.Address()); err != nil {
				t.Fatal(err)
			}
			becomes("a is removed, and has no time to drain", "b")
			if _, err := s.End(t.Context(), l4.SessionFilter{}); err != nil {
				t.Fatal(err)
			}
			if left := p.Backends()[0].Leases; left != 0 {
				t.Errorf("%d leases are left", left)
			}
		})
	}
}

// TestFlowTrial holds that a flow which a half-open breaker lets through as a trial stays with its backend, and that
// the backend's answer closes the breaker.
func TestFlowTrial(t *testing.T) {
	p, a, _ := movePool(t, pool.Options{Breaker: pool.BreakerOptions{
		Failures: 1, OpenFor: 50 * time.Millisecond, MaxOpenFor: 50 * time.Millisecond, Trials: 1, MaxOpenShare: 1,
	}})
	ctx, stop := context.WithCancel(t.Context())
	running := make(chan struct{})
	go func() {
		defer close(running)
		p.Run(ctx)
	}()
	defer func() {
		stop()
		<-running
	}()
	at := a.LocalAddr().(*net.UDPAddr)
	a.Close()
	s := start(t, l4.Options{Loops: 1}, flowSpec(p))
	breaker := func() pool.Breaker { return p.Backends()[0].Breaker }
	for i := 0; breaker() != pool.Open; i++ {
		_, _ = dialUDP(t, address(s)).Write(fmt.Append(nil, i))
		awaitDropped(t, s, tally.DropBackendRefused, uint64(i+1))
		eventually(t, "the breaker opens", func() bool { return breaker() != pool.Closed })
	}
	back, err := net.ListenUDP("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	eventually(t, "it is half-open", func() bool { return breaker() == pool.HalfOpen })
	c := dialUDP(t, address(s))
	buf := make([]byte, 10)
	for _, d := range []string{"1", "2"} { // the second comes while the backend is not eligible yet
		if _, err := c.Write([]byte(d)); err != nil {
			t.Fatal(err)
		}
		if err := back.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, from, err := back.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != d {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		if d == "2" {
			if _, err := back.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "the breaker closes", func() bool { return breaker() == pool.Closed })
}

// TestFlowMovesWithBacklog holds that datagrams that wait for a socket go to the next backend before later ones.
func TestFlowMovesWithBacklog(t *testing.T) {
	p, a, _ := movePool(t, pool.Options{})
	got := make(chan string, 10)
	c := startUDP(t, func(_ *l4test.UDPBackend, _ netip.AddrPort, d []byte) { got <- string(d) })
	if err := p.Add(pool.Spec{ID: "c", Addr: pool.At(netip.MustParseAddrPort(c.Address())), Weight: 1}); err != nil {
		t.Fatal(err)
	}
	s := start(t, l4.Options{Loops: 1}, flowSpec(p))
	client := dialUDP(t, address(s))
	askUDP(t, client, "x")
	onOneFlow(s, func(_ *flow.Loop, f *flow.Flow) { flow.Block(f) })
	if _, err := client.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits", func() (waits bool) {
		onOneFlow(s, func(_ *flow.Loop, f *flow.Flow) { waits = flow.Keeps(f) })
		return waits
	})
	for _, b := range p.Backends()[:2] {
		if err := p.SetVerdict(b.ID, pool.Unhealthy, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	if first, second := <-got, <-got; first != "first" || second != "second" {
		t.Errorf("%q came before %q", first, second)
	}
	if n := a.Got.Load(); n != 1 {
		t.Errorf("%d came to the first backend", n)
	}
}

// TestFlowPendingError holds that a datagram which finds out that an earlier one was refused is not lost: it goes to
// another backend.
func TestFlowPendingError(t *testing.T) {
	p, a, b := movePool(t, pool.Options{})
	s := start(t, l4.Options{Loops: 1}, flowSpec(p))
	askUDP(t, dialUDP(t, address(s)), "x")
	onOneFlow(s, func(l *flow.Loop, f *flow.Flow) {
		a.Close()
		if e := sock.SendDatagram(flow.Descriptor(f), []byte("lost")); e != 0 {
			t.Error(e)
		}
		flow.SendOne(l, f, []byte("goes on"))
	})
	eventually(t, "the other backend has it", func() bool { return b.Got.Load() == 1 })
	awaitDropped(t, s, tally.DropBackendRefused, 1)
}

// TestFlowLastAnswer holds that what a backend has answered before its port was closed is delivered.
func TestFlowLastAnswer(t *testing.T) {
	p, a, _ := movePool(t, pool.Options{})
	s := start(t, l4.Options{Loops: 1}, flowSpec(p))
	c := dialUDP(t, address(s))
	askUDP(t, c, "x")
	onOneFlow(s, func(_ *flow.Loop, f *flow.Flow) {
		at, err := sock.LocalAddr(flow.Descriptor(f))
		if err != nil {
			t.Error(err)
		}
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port())
		if _, err := a.WriteToUDPAddrPort([]byte("last"), to); err != nil {
			t.Error(err)
		}
		a.Close()
		if e := sock.SendDatagram(flow.Descriptor(f), []byte("lost")); e != 0 {
			t.Error(e)
		}
	})
	buf := make([]byte, 10)
	if n, ok := readUDP(t, c, buf, 20*time.Second); !ok || string(buf[:n]) != "last" {
		t.Errorf("%q, %v", buf[:n], ok)
	}
	awaitDropped(t, s, tally.DropBackendRefused, 1)
	if got := askUDP(t, c, "x"); got != "b" {
		t.Error(got)
	}
}

// TestSharedAssignmentFailsOnce holds that a flow which finds out late that its last backend is gone does not report
// the backend that its client has now.
func TestSharedAssignmentFailsOnce(t *testing.T) {
	p, _, b := movePool(t, pool.Options{})
	spec := flowSpec(p)
	spec.Flows.Key = l4.ByClientIP
	s := start(t, l4.Options{Loops: 1}, spec)
	for range 2 {
		askUDP(t, dialUDP(t, address(s)), "x")
	}
	onFirstLoop(s, func(l *flow.Loop) {
		var flows []*flow.Flow
		flow.Each(l, func(f *flow.Flow) { flows = append(flows, f) })
		flow.Fail(l, flows[0], sock.Report{Errno: sock.ConnRefused, Sure: true})
		if drop := flow.MakeReady(l, flows[0]); drop != tally.NoDrop {
			t.Error(drop)
		}
		flow.Fail(l, flows[1], sock.Report{Errno: sock.ConnRefused, Sure: true})
	})
	for i, want := range []uint64{1, 0} {
		if n := p.Backends()[i].Outcomes[pool.ConnectRefused]; n != want {
			t.Errorf("%d refusals of backend %d", n, i)
		}
	}
	if n := p.Backends()[1].Leases; n != 1 {
		t.Errorf("%d leases on %s", n, b.Address())
	}
}
