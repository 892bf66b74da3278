package flow_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// TestFlowSendProxy holds that each datagram has the header in front of it, those of a train too, and that one which
// is too long with it is counted.
func TestFlowSendProxy(t *testing.T) {
	withOffload(t, func(t *testing.T, o sock.Offload) {
		testSendProxy(t, o, "127.0.0.9")
		testSendProxy(t, o, "0.0.0.0")
	})
}

func testSendProxy(t *testing.T, o sock.Offload, listen string) {
	got := make(chan []byte, 1000)
	b := startUDP(t, func(_ *l4test.UDPBackend, _ netip.AddrPort, d []byte) { got <- bytes.Clone(d) })
	spec := flowSpec(newPool(t, b.Address()))
	spec.Address = netip.AddrPortFrom(netip.MustParseAddr(listen), 0)
	spec.Flows.SendProxy = true
	s := startWith(t, o, l4.Options{Loops: 1}, spec)
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), info(s).Address.Port())
	c := dialUDP(t, to.String())
	header := wire.AppendProxyV2(nil, c.LocalAddr().(*net.UDPAddr).AddrPort(), to)
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
	awaitDropped(t, s, tally.DropTooLong, 1)
}
