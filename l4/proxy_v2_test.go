package l4

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// TestProxyV2 holds what the header looks like, by the specification's layout.
func TestProxyV2(t *testing.T) {
	const signature = "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
	for _, tc := range []struct{ client, local, want string }{
		{"192.0.2.1:258", "198.51.100.2:53", signature + "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x01\x02\x00\x35"},
		{"[2001:db8::1]:65535", "[2001:db8::2]:1", signature + "\x21\x22\x00\x24" +
			"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xff\xff\x00\x01"},
		{"[::ffff:192.0.2.1]:258", "[::ffff:198.51.100.2]:53", signature + "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x01\x02\x00\x35"},
	} {
		got := appendProxyV2([]byte("before"), netip.MustParseAddrPort(tc.client), netip.MustParseAddrPort(tc.local))
		if string(got) != "before"+tc.want {
			t.Errorf("%s to %s: %x", tc.client, tc.local, got)
		}
	}
}

// TestFlowSendProxy holds that each datagram has the header in front of it, those of a train too, and that one which is too long with
// it is counted.
func TestFlowSendProxy(t *testing.T) {
	withOffload(t, func(t *testing.T, o sock.Offload) {
		testSendProxy(t, o, "127.0.0.9")
		testSendProxy(t, o, "0.0.0.0")
	})
}

func testSendProxy(t *testing.T, o sock.Offload, listen string) {
	got := make(chan []byte, 1000)
	b := startUDP(t, func(_ *udpBackend, _ netip.AddrPort, d []byte) { got <- bytes.Clone(d) })
	spec := flowSpec(newPool(t, b.address()))
	spec.Address = netip.AddrPortFrom(netip.MustParseAddr(listen), 0)
	spec.Flows.SendProxy = true
	s := startWith(t, o, Options{Loops: 1}, spec)
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), s.info().Address.Port())
	c := dialUDP(t, to.String())
	header := appendProxyV2(nil, c.LocalAddr().(*net.UDPAddr).AddrPort(), to)
	var want [][]byte
	for i := range 70 {
		want = append(want, bytes.Repeat([]byte{byte(i)}, 900))
	}
	want = append(want, []byte("shorter"))
	sendTrain(t, c, want)
	want = append(want, nil)
	if _, err := c.Write(nil); err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		if d := <-got; !bytes.Equal(d, append(header[:len(header):len(header)], w...)) {
			t.Fatalf("datagram %d came as %d bytes", i, len(d))
		}
	}
	if _, err := c.Write(make([]byte, 65507)); err != nil {
		t.Fatal(err)
	}
	s.awaitDropped(t, DropTooLong, 1)
}
