package flow_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestFlowStranger holds that an answer from another port than the one asked reaches no client.
func TestFlowStranger(t *testing.T) {
	stranger := startUDP(t, nil)
	b := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
		_, _ = stranger.WriteToUDPAddrPort([]byte("forged"), from)
		_, _ = b.WriteToUDPAddrPort(d, from)
	})
	s := start(t, l4.Options{Loops: 1}, flowSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	for range 50 {
		if got := askUDP(t, c, "x"); got != "x" {
			t.Fatalf("got %q", got)
		}
	}
}

// TestFlowRefused holds that a backend whose port is closed costs the datagram that found it out, which is counted
// and reported to the pool, and that the flow goes on with another backend.
func TestFlowRefused(t *testing.T) {
	b := startUDP(t, naming("b"))
	p := newPool(t, refusing(t), b.Address())
	s := start(t, l4.Options{Loops: 1}, flowSpec(p))
	c := dialUDP(t, address(s))
	if got := askUDP(t, c, "x"); got != "b" {
		t.Fatal(got)
	}
	awaitDropped(t, s, tally.DropBackendRefused, 1)
	if info := info(s); info.Accepted != 1 {
		t.Errorf("%d flows", info.Accepted)
	}
	if n := p.Backends()[0].Outcomes[pool.ConnectRefused]; n != 1 {
		t.Errorf("%d refusals reported to the pool", n)
	}
	list, err := s.List(t.Context(), l4.SessionFilter{})
	if err != nil || list.Total != 1 || list.Sessions[0].Backend != b.Address() || list.Sessions[0].Retries != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestFlowOnlyRefused holds that a flow whose only backend refuses goes to it again and again, and works when the
// backend comes back.
func TestFlowOnlyRefused(t *testing.T) {
	for _, key := range []l4.FlowKey{l4.ByClient, l4.ByClientIP, l4.ByPacket} {
		t.Run(key.String(), func(t *testing.T) {
			at := refusing(t)
			spec := flowSpec(newPool(t, at))
			spec.Flows.Key = key
			s := start(t, l4.Options{Loops: 1}, spec)
			c := dialUDP(t, address(s))
			for n := range uint64(3) {
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				awaitDropped(t, s, tally.DropBackendRefused, n+1)
			}
			addr := netip.MustParseAddrPort(at)
			back, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
			if err != nil {
				t.Fatal(err)
			}
			defer back.Close()
			if _, err := c.Write([]byte("now")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 10)
			if n, ok := readUDP(t, back, buf, 20*time.Second); !ok || string(buf[:n]) != "now" {
				t.Fatalf("%q, %v", buf[:n], ok)
			}
			if n := s.Flows(); n != 1 {
				t.Errorf("%d flows", n)
			}
		})
	}
}

// TestFlowNoBackend holds that datagrams nobody can take are dropped under their reasons, and hold nothing.
func TestFlowNoBackend(t *testing.T) {
	b := startUDP(t, echoUDP)
	p := newPool(t)
	s := start(t, l4.Options{Loops: 1}, flowSpec(p))
	c, other := dialUDP(t, address(s)), dialUDP(t, address(s))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	awaitDropped(t, s, tally.DropNoBackend, 1)
	err := p.Add(pool.Spec{ID: "b", Addr: pool.At(netip.MustParseAddrPort(b.Address())), Weight: 1, MaxSessions: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := askUDP(t, c, "x"); got != "x" {
		t.Fatal(got)
	}
	if _, err := other.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	awaitDropped(t, s, tally.DropBackendsFull, 1)
	if n := s.Flows(); n != 1 {
		t.Errorf("%d flows", n)
	}
}

// TestFlowNoWay holds that a backend there is no way to costs nothing: the datagram goes to another at once.
func TestFlowNoWay(t *testing.T) {
	b := startUDP(t, naming("b"))
	p := newPool(t, "255.255.255.255:53", b.Address()) // to connect to a broadcast address is not permitted
	s := start(t, l4.Options{Loops: 1}, flowSpec(p))
	c := dialUDP(t, address(s))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, ok := readUDP(t, c, buf, 20*time.Second); !ok || string(buf[:n]) != "b" {
		t.Fatalf("%q, %v", buf[:n], ok)
	}
	if n := p.Backends()[0].Outcomes[pool.ConnectUnreachable]; n != 1 {
		t.Errorf("%d reported to the pool", n)
	}
	if err := p.Remove(b.Address()); err != nil {
		t.Fatal(err)
	}
	if _, err := dialUDP(t, address(s)).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	awaitDropped(t, s, tally.DropBackendRefused, 1)
}

// TestFlowReceiveBuffer holds that datagrams the kernel had no room for are counted.
func TestFlowReceiveBuffer(t *testing.T) {
	b := startUDP(t, nil)
	spec := flowSpec(newPool(t, b.Address()))
	spec.Flows.ReceiveBuffer = 16 << 10
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	const sent = 500
	release := hold(t, s, 0)
	defer release()
	for range sent {
		if _, err := c.Write(make([]byte, 500)); err != nil {
			t.Fatal(err)
		}
	}
	release()
	eventually(t, "all are counted", func() bool {
		if _, err := c.Write([]byte("one more")); err != nil {
			t.Fatal(err)
		}
		info := info(s)
		lost := info.Dropped[tally.DropReceiveBuffer]
		return lost > 0 && info.DatagramsIn+lost > sent
	})
}

// TestFlowNoDescriptors holds that flows take no more descriptors than there are, and that datagrams dropped for want
// of one are counted.
func TestFlowNoDescriptors(t *testing.T) {
	b := startUDP(t, echoUDP)
	s := start(t, l4.Options{Loops: 1}, flowSpec(newPool(t, b.Address())))
	leaveRoom(s, 2)
	for range 4 {
		askUDP(t, dialUDP(t, address(s)), "x")
	}
	for range 3 {
		if _, err := dialUDP(t, address(s)).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	awaitDropped(t, s, tally.DropNoDescriptors, 3)
	awaitFlows(t, s, 4)
	if ls, _ := l4test.ListenerOf(s, "test"); ls.Room() {
		t.Error("there is room for a session")
	}
}
