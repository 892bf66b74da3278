package flow_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
)

// TestPortlessBackend holds that the flows of each port of a listener go to that port of a backend without one, and that
// the list and the log have it.
func TestPortlessBackend(t *testing.T) {
	p := l4test.NewPool(t)
	ip := netip.MustParseAddr("127.0.0.2")
	if err := p.Add(pool.Spec{ID: "b", Addr: pool.At(netip.AddrPortFrom(ip, 0)), Weight: 1}); err != nil {
		t.Fatal(err)
	}
	var ports []uint16
	for range 2 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: ip.AsSlice()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		at := c.LocalAddr().(*net.UDPAddr).AddrPort()
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort([]byte(at.String()), from)
			}
		}()
		ports = append(ports, at.Port())
	}
	local := netip.MustParseAddr("127.0.0.1")
	one := l4test.FlowSpec(p)
	one.Address = netip.AddrPortFrom(local, ports[0])
	one.More = []l4.Place{{Address: netip.AddrPortFrom(local, ports[1])}}
	lines, log := l4test.NewCapture()
	s := l4test.Start(t, l4.Options{Loops: 2, Access: true, Log: log}, one)
	for _, port := range ports {
		c := l4test.DialUDP(t, netip.AddrPortFrom(local, port).String())
		want := netip.AddrPortFrom(ip, port)
		if got := l4test.AskUDP(t, c, "x"); got != want.String() {
			t.Errorf("port %d: got %q", port, got)
		}
		list, err := s.List(t.Context(), l4.SessionFilter{Backend: want.String()})
		if err != nil || len(list.Sessions) != 1 || list.Sessions[0].BackendAddress != pool.At(want) {
			t.Errorf("port %d: the list has %+v, %v", port, list.Sessions, err)
		}
		if n, err := s.End(t.Context(), l4.SessionFilter{}); n != 1 || err != nil {
			t.Fatalf("%d flows were ended: %v", n, err)
		}
		if line := <-lines.Lines(); !bytes.Contains(line, []byte(`"backend_address":"`+want.String()+`"`)) {
			t.Errorf("access line %s", line)
		}
	}
}
