package flow_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// TestFlowApply holds that new flows have the new settings when those change, that old ones keep the settings that
// they began with, and that the sockets go on serving.
func TestFlowApply(t *testing.T) {
	a, b := startUDP(t, naming("a")), startUDP(t, naming("b"))
	spec := flowSpec(newPool(t, a.Address()))
	s := start(t, l4.Options{Loops: 2}, spec)
	old := dialUDP(t, address(s))
	if got := askUDP(t, old, "x"); got != "a" {
		t.Fatal(got)
	}
	changed := spec
	changed.Pool = newPool(t, b.Address())
	changed.Flows = l4.FlowSettings{ClientMax: 1, ReceiveBuffer: 1 << 20, SendBuffer: 1 << 20}
	if fate := s.Compare(l4.Plan{Listeners: []l4.ListenerSpec{changed}})[0].Fate; fate != l4.Updated {
		t.Errorf("it is to be %s", fate)
	}
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{changed}}); err != nil {
		t.Fatal(err)
	}
	// The client may come to the other loop now, which does not know it.
	if got := askUDP(t, old, "x"); got != "a" && got != "b" {
		t.Fatal(got)
	}
	for range 5 {
		c := dialUDP(t, address(s))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the limit holds on one loop", func() bool { return info(s).Dropped[tally.DropClientLimit] >= 4 })
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec}}); err != nil {
		t.Fatal(err)
	}
	if got := askUDP(t, dialUDP(t, address(s)), "x"); got != "a" {
		t.Error(got)
	}
	wrong := spec
	wrong.Flows.Responses = -1
	err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{wrong}})
	if err == nil || !strings.Contains(err.Error(), "negative") {
		t.Errorf("%v", err)
	}
}

// TestFlowProtocolChanges holds that one name and address may change from UDP to TCP and back, and that both may have
// it.
func TestFlowProtocolChanges(t *testing.T) {
	u, c := startUDP(t, naming("udp")), backend(t, echo)
	udp := flowSpec(newPool(t, u.Address()))
	udp.Address = netip.MustParseAddrPort("127.0.4.1:0") // where nobody else takes the port's number for TCP
	s := start(t, l4.Options{Loops: 1}, udp)
	udp.Address = info(s).Address.AddrPort
	tcp := spec(newPool(t, c))
	tcp.Address = udp.Address
	if fate := s.Compare(l4.Plan{Listeners: []l4.ListenerSpec{tcp}})[0].Fate; fate != l4.Rebound {
		t.Errorf("it is to be %s", fate)
	}
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{tcp}}); err != nil {
		t.Fatal(err)
	}
	if err := ask(dial(t, tcp.Address.String())); err != nil {
		t.Fatal(err)
	}
	both := tcp
	both.Name = "tcp"
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{udp, both}}); err != nil {
		t.Fatal(err)
	}
	if err := ask(dial(t, tcp.Address.String())); err != nil {
		t.Error(err)
	}
	if got := askUDP(t, dialUDP(t, udp.Address.String()), "x"); got != "udp" {
		t.Error(got)
	}
	twice := udp
	twice.Name = "twice"
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{udp, twice}}); err == nil {
		t.Error("two UDP listeners have one address")
	}
}

// TestFlowAddressTaken holds that a UDP address of another process is an error that names it.
func TestFlowAddressTaken(t *testing.T) {
	other := startUDP(t, nil)
	spec := flowSpec(newPool(t))
	spec.Address = netip.MustParseAddrPort(other.Address())
	s, err := l4.New(l4.Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown(done(t)) }()
	before := descriptors(t)
	var failed *l4.ListenError
	err = s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec}})
	if !errors.As(err, &failed) || failed.Address.AddrPort != spec.Address {
		t.Errorf("%v", err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors of %d", after, before)
	}
}

// TestFlowAddressFree holds that the address of a removed listener without flows is free when Apply has returned.
func TestFlowAddressFree(t *testing.T) {
	spec := flowSpec(newPool(t))
	s := start(t, l4.Options{Loops: 4}, spec)
	for range 20 {
		at := info(s).Address.AddrPort
		if err := s.Apply(l4.Plan{}); err != nil {
			t.Fatal(err)
		}
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlowInherited holds that a UDP socket which another process has opened serves clients; a single one is on one
// loop.
func TestFlowInherited(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	file, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	at := c.LocalAddr().String()
	c.Close()
	b := startUDP(t, echoUDP)
	spec := flowSpec(newPool(t, b.Address()))
	fd, err := sock.Duplicate(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	spec.Address, spec.Inherited = netip.AddrPort{}, []int{fd}
	s := start(t, l4.Options{Loops: 2}, spec)
	if got := address(s); got != at {
		t.Errorf("it listens on %s, want %s", got, at)
	}
	for range 20 {
		if got := askUDP(t, dialUDP(t, at), "x"); got != "x" {
			t.Fatal(got)
		}
	}
	awaitFlows(t, s, 20)
}

// TestFlowDiscard holds that datagrams which came to the sockets of a change that is discarded are served by the
// listener whose address includes theirs.
func TestFlowDiscard(t *testing.T) {
	b := startUDP(t, echoUDP)
	wide := flowSpec(newPool(t, b.Address()))
	wide.Address = netip.MustParseAddrPort("0.0.0.0:0")
	s := start(t, l4.Options{Loops: 2}, wide)
	before := descriptors(t)
	wide.Address = info(s).Address.AddrPort
	narrow := wide
	narrow.Name, narrow.Address = "narrow", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), wide.Address.Port())
	change, err := s.Prepare(l4.Plan{Listeners: []l4.ListenerSpec{wide, narrow}})
	if err != nil {
		t.Fatal(err)
	}
	c := dialUDP(t, narrow.Address.String())
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	change.Discard()
	buf := make([]byte, 10)
	if n, ok := readUDP(t, c, buf, 20*time.Second); !ok || string(buf[:n]) != "x" {
		t.Errorf("%q, %v", buf[:n], ok)
	}
	if _, err := s.End(t.Context(), l4.SessionFilter{}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	eventually(t, "the descriptors are back", func() bool { return descriptors(t) == before })
}
