//go:build netns

package l4_test

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
)

// TestNetnsFlowPorts holds that a flood of new clients neither ends flows that have had an answer nor takes all local
// ports of the host, and that both hold, and new clients are served again, when others on the host have most of the
// ports.
func TestNetnsFlowPorts(t *testing.T) {
	connectFarEnd(t)
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40063"), 0); err != nil {
		t.Fatal(err)
	}
	for _, taken := range []int{0, 50} {
		b, err := net.ListenPacket("udp4", "127.0.0.1:30000")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			buf := make([]byte, 100)
			for {
				n, from, err := b.ReadFrom(buf)
				if err != nil {
					return
				}
				if string(buf[:n]) == "asked" {
					_, _ = b.WriteTo(buf[:n], from)
				}
			}
		}()
		var others []net.PacketConn
		for range taken {
			c, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, c)
		}
		spec := flowSpec(newPool(t, "127.0.0.1:30000"))
		spec.Address = netip.MustParseAddrPort("127.0.0.1:30001")
		spec.Flows.Timeout = time.Hour
		s := start(t, l4.Options{Loops: 1}, spec)
		client := func(port int) *net.UDPConn {
			from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
			c, err := net.DialUDP("udp4", from, net.UDPAddrFromAddrPort(spec.Address))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		var clients []*net.UDPConn
		for i := range 5 {
			c := client(20_000 + taken + i)
			askUDP(t, c, "asked")
			clients = append(clients, c)
		}
		before := l4test.FlowIDs(t, s)
		// A flow has 250 ms to be answered before it may give way.
		(&l4test.Forger{To: spec.Address, Age: 250 * time.Millisecond}).Send(t, s, 300)
		if taken == 0 {
			if d := info(s).Dropped; len(d) != 0 {
				t.Errorf("dropped: %v", d)
			}
			free, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Errorf("another program gets no port: %v", err)
			} else {
				free.Close()
			}
		}
		after := l4test.FlowIDs(t, s)
		for _, c := range clients {
			from := l4test.SourceOf(c)
			if id := before[from]; after[from] != id {
				t.Errorf("flow %v is %v now", id, after[from])
			}
			askUDP(t, c, "asked")
		}
		askUDP(t, client(20_005+taken), "asked")
		t.Logf("%d flows, ended %v, dropped %v", s.Flows(), info(s).Ended, info(s).Dropped)
		for _, c := range append(others, b) {
			c.Close()
		}
		<-served
		_ = s.Shutdown(done(t))
	}
}
