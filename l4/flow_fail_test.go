package l4

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// TestFlowStranger holds that an answer from another port than the one asked reaches no client.
func TestFlowStranger(t *testing.T) {
	stranger := startUDP(t, nil)
	b := startUDP(t, func(b *udpBackend, from netip.AddrPort, d []byte) {
		_, _ = stranger.WriteToUDPAddrPort([]byte("forged"), from)
		_, _ = b.WriteToUDPAddrPort(d, from)
	})
	s := start(t, Options{Loops: 1}, flowSpec(newPool(t, b.address())))
	c := dialUDP(t, s.address())
	for range 50 {
		if got := askUDP(t, c, "x"); got != "x" {
			t.Fatalf("got %q", got)
		}
	}
}

// TestFlowRefused holds that a backend whose port is closed costs the datagram that found it out, which is counted and told to the
// pool, and that the flow goes on with another.
func TestFlowRefused(t *testing.T) {
	b := startUDP(t, naming("b"))
	p := newPool(t, refusing(t), b.address())
	s := start(t, Options{Loops: 1}, flowSpec(p))
	c := dialUDP(t, s.address())
	if got := askUDP(t, c, "x"); got != "b" {
		t.Fatal(got)
	}
	s.awaitDropped(t, DropBackendRefused, 1)
	if info := s.info(); info.Accepted != 1 {
		t.Errorf("%d flows", info.Accepted)
	}
	if n := p.Backends()[0].Outcomes[pool.ConnectRefused]; n != 1 {
		t.Errorf("%d refusals told to the pool", n)
	}
	list, err := s.List(t.Context(), SessionFilter{})
	if err != nil || list.Total != 1 || list.Sessions[0].Backend != b.address() || list.Sessions[0].Retries != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestFlowOnlyRefused holds that a flow whose only backend refuses goes to it again and again, and works when it comes back.
func TestFlowOnlyRefused(t *testing.T) {
	for _, key := range []FlowKey{ByClient, ByClientIP, ByPacket} {
		t.Run(key.String(), func(t *testing.T) {
			at := refusing(t)
			spec := flowSpec(newPool(t, at))
			spec.Flows.Key = key
			s := start(t, Options{Loops: 1}, spec)
			c := dialUDP(t, s.address())
			for n := range uint64(3) {
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				s.awaitDropped(t, DropBackendRefused, n+1)
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
	s := start(t, Options{Loops: 1}, flowSpec(p))
	c, other := dialUDP(t, s.address()), dialUDP(t, s.address())
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	s.awaitDropped(t, DropNoBackend, 1)
	err := p.Add(pool.Spec{ID: "b", Addr: netip.MustParseAddrPort(b.address()), Weight: 1, MaxSessions: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := askUDP(t, c, "x"); got != "x" {
		t.Fatal(got)
	}
	if _, err := other.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	s.awaitDropped(t, DropBackendsFull, 1)
	if n := s.Flows(); n != 1 {
		t.Errorf("%d flows", n)
	}
}

// TestFlowNoWay holds that a backend there is no way to costs nothing: the datagram goes to another at once.
func TestFlowNoWay(t *testing.T) {
	b := startUDP(t, naming("b"))
	p := newPool(t, "255.255.255.255:53", b.address()) // to connect to a broadcast address is not permitted
	s := start(t, Options{Loops: 1}, flowSpec(p))
	c := dialUDP(t, s.address())
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, ok := readUDP(t, c, buf, 20*time.Second); !ok || string(buf[:n]) != "b" {
		t.Fatalf("%q, %v", buf[:n], ok)
	}
	if n := p.Backends()[0].Outcomes[pool.ConnectUnreachable]; n != 1 {
		t.Errorf("%d told to the pool", n)
	}
	if err := p.Remove(b.address()); err != nil {
		t.Fatal(err)
	}
	if _, err := dialUDP(t, s.address()).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	s.awaitDropped(t, DropBackendRefused, 1)
}

// TestFlowReceiveBuffer holds that datagrams the kernel had no room for are counted.
func TestFlowReceiveBuffer(t *testing.T) {
	b := startUDP(t, nil)
	spec := flowSpec(newPool(t, b.address()))
	spec.Flows.ReceiveBuffer = 16 << 10
	s := start(t, Options{Loops: 1}, spec)
	c := dialUDP(t, s.address())
	const sent = 500
	release := s.hold(t, 0)
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
		info := s.info()
		return info.Dropped[DropReceiveBuffer] > 0 && info.DatagramsIn+info.Dropped[DropReceiveBuffer] > sent
	})
}

// TestFlowNoDescriptors holds that flows do not take the descriptors that are not there, and count what they drop.
func TestFlowNoDescriptors(t *testing.T) {
	b := startUDP(t, echoUDP)
	s := start(t, Options{Loops: 1}, flowSpec(newPool(t, b.address())))
	s.capacity.Store(2) // sessions, of two descriptors each
	for range 4 {
		askUDP(t, dialUDP(t, s.address()), "x")
	}
	for range 3 {
		if _, err := dialUDP(t, s.address()).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	s.awaitDropped(t, DropNoDescriptors, 3)
	s.awaitFlows(t, 4)
	if s.room(s.listeners["test"]) {
		t.Error("there is room for a session")
	}
}
