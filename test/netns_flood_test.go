//go:build netns

package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv4"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestNetnsForgedFlows floods a UDP listener with more new clients than it has room for, each from another address, and
// holds that no flow which has had an answer is lost: whether the backend answers the forged ones or not, and with and
// without limits.
func TestNetnsForgedFlows(t *testing.T) {
	const answered, flows, forged = 50, 500, 20_000
	layClients(t)
	for _, tt := range []struct {
		name   string
		answer harness.DatagramHandler
		limits string
	}{
		{"no answers", answerOwn, ""},
		{"answers", harness.EchoDatagrams, ""},
		{"no answers, with limits", answerOwn, limitLines(`client_rate = "10/s burst 100"`, `rate = "1000/s"`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			backend := harness.ServeUDP(t, tt.answer)
			b := world{Backends: []string{backend.Address()}, Listener: []string{
				fmt.Sprintf("max_flows = %d", flows), `flow_timeout = "10m"`, tt.limits,
			}}.startUDP(t)
			var own []*net.UDPConn
			for i := range answered {
				c := harness.DialUDPFrom(t, fmt.Sprintf("198.19.0.%d", i+1), b.Address(t, "main"))
				ask(t, c, "own")
				own = append(own, c)
			}
			sources := backend.Sources()
			for sent := 0; sent < forged; sent += forged / 20 {
				forgeFrom(t, b.Address(t, "main"), sent, forged/20)
				for _, c := range own {
					ask(t, c, "own")
				}
			}
			now := backend.Sources()
			for from, n := range sources {
				if now[from] != n+20 {
					t.Errorf("a flow of before sent %d more datagrams from %s, want 20", now[from]-n, from)
				}
			}
			if n := udpFigures(t, b).Sessions; n > flows {
				t.Errorf("%d flows", n)
			}
			t.Logf("%d flows reached the backend; dropped %v", len(now), udpFigures(t, b).drops())
			endFlows(t, b)
		})
	}
}

// answerOwn answers the datagrams of the test's own clients.
func answerOwn(c *net.UDPConn, from netip.AddrPort, datagram []byte) {
	if string(datagram) == "own" {
		harness.EchoDatagrams(c, from, datagram)
	}
}

// forgeFrom sends n datagrams, each from another address of 198.18.0.0/16, the first of which has this number.
func forgeFrom(t *testing.T, address string, first, n int) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: harness.FreePort(t)})
	check(t, err)
	defer c.Close()
	to := netip.MustParseAddrPort(address)
	oob := (&ipv4.ControlMessage{Src: net.IPv4(198, 18, 0, 0)}).Marshal()
	source := oob[bytes.Index(oob, []byte{198, 18, 0, 0}):][:4]
	for i := range n {
		binary.BigEndian.PutUint32(source, 198<<24|18<<16|uint32(first+i))
		_, _, err := c.WriteMsgUDPAddrPort([]byte("forged"), oob, to)
		check(t, err)
	}
}
