package flow_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

// TestFlowAnswersFromAddressAsked holds that answers come from the address that was asked, of listeners on all
// addresses, IPv4, IPv6 and both, and that one client may ask two of them.
func TestFlowAnswersFromAddressAsked(t *testing.T) {
	for _, tc := range []struct {
		listen string
		dual   bool
		ask    []string
	}{
		{"0.0.0.0:0", false, []string{"127.0.0.5", "127.0.0.6"}},
		{"[::]:0", true, []string{"127.0.0.5", "127.0.0.6", "::1"}},
		{"[::]:0", false, []string{"::1"}},
		{"127.0.0.7:0", false, []string{"127.0.0.7"}},
	} {
		t.Run(fmt.Sprintf("%s dual %v", tc.listen, tc.dual), func(t *testing.T) {
			b := startUDP(t, echoUDP)
			spec := flowSpec(newPool(t, b.Address()))
			spec.Address, spec.DualStack = netip.MustParseAddrPort(tc.listen), tc.dual
			s := start(t, l4.Options{Loops: 2}, spec)
			c, err := net.ListenUDP("udp", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, 100)
			for _, a := range tc.ask {
				to := netip.AddrPortFrom(netip.MustParseAddr(a), info(s).Address.Port())
				if _, err := c.WriteToUDPAddrPort([]byte(a), to); err != nil {
					t.Fatal(err)
				}
				if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
					t.Fatal(err)
				}
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil || string(buf[:n]) != a || from.Addr().Unmap() != to.Addr() || from.Port() != to.Port() {
					t.Errorf("asked %s, and %s answered %q (%v)", to, from, buf[:n], err)
				}
			}
			if n := s.Flows(); n != len(tc.ask) {
				t.Errorf("%d flows", n)
			}
		})
	}
}

// TestFlowIPv6 holds that datagrams pass between IPv6 addresses, up to the longest there is.
func TestFlowIPv6(t *testing.T) {
	b, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	spec := flowSpec(newPool(t, b.LocalAddr().String()))
	spec.Address = netip.MustParseAddrPort("[::1]:0")
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	buf := make([]byte, 1<<16)
	for _, size := range []int{0, 1, 1452, 65527} {
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := b.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, from, err := b.ReadFromUDPAddrPort(buf)
		if err != nil || n != size {
			t.Fatalf("%d of %d bytes came, %v", n, size, err)
		}
		if _, err := b.WriteToUDPAddrPort(buf[:n], from); err != nil {
			t.Fatal(err)
		}
		if n, ok := readUDP(t, c, buf, 20*time.Second); !ok || n != size {
			t.Fatalf("%d of %d bytes came back (%v)", n, size, ok)
		}
	}
}
