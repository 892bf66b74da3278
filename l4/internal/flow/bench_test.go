package flow_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// BenchmarkFlow measures a question and its answer over loopback: by one flow that stays, by flows that end with the
// answer, and by many flows in turn. It includes the clients' and the backend's work.
func BenchmarkFlow(b *testing.B) {
	for _, tc := range []struct {
		name      string
		responses int
		clients   int
	}{
		{"one", 0, 1}, {"short", 1, 1}, {"many", 0, 1000},
	} {
		b.Run(tc.name, func(b *testing.B) {
			backend := startUDP(b, echoUDP)
			spec := flowSpec(newPool(b, backend.Address()))
			spec.Flows.Responses = tc.responses
			s := start(b, l4.Options{Loops: 1}, spec)
			var clients []*net.UDPConn
			for range tc.clients {
				c := dialUDP(b, address(s))
				askUDP(b, c, "a question of the usual length")
				clients = append(clients, c)
			}
			buf := make([]byte, 100)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c := clients[i%len(clients)]
				if _, err := c.Write(buf[:30]); err != nil {
					b.Fatal(err)
				}
				if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFlowBulk measures datagrams of 1200 bytes one way, 40 at a time, as QUIC sends them, with and without
// trains. It reports what the kernel drops.
func BenchmarkFlowBulk(b *testing.B) {
	for _, o := range []sock.Offload{{GRO: true, GSO: true}, {}} {
		b.Run(fmt.Sprintf("trains=%v", o.GSO), func(b *testing.B) {
			backend := startUDP(b, nil)
			s := startWith(b, o, l4.Options{Loops: 1}, flowSpec(newPool(b, backend.Address())))
			c := dialUDP(b, address(s))
			datagrams := make([][]byte, 40)
			for i := range datagrams {
				datagrams[i] = make([]byte, 1200)
			}
			sent := int64(0)
			b.SetBytes(40 * 1200)
			for b.Loop() {
				sendTrain(b, c, datagrams)
				sent += 40
				deadline := time.Now().Add(time.Second)
				for backend.Got.Load() < sent-400 && time.Now().Before(deadline) {
					time.Sleep(50 * time.Microsecond) // the window of the sender
				}
			}
			b.ReportMetric(100*(1-float64(backend.Got.Load())/float64(sent)), "%lost")
		})
	}
}

// TestFlowsAllocateNothing holds that nothing is allocated for a datagram and its answer on a flow that there is, nor
// for a flow that comes and goes.
func TestFlowsAllocateNothing(t *testing.T) {
	for _, responses := range []int{0, 1} {
		for _, key := range []l4.FlowKey{l4.ByClient, l4.ByClientIP, l4.ByPacket} {
			t.Run(fmt.Sprintf("responses %d, %s", responses, key), func(t *testing.T) {
				b := startUDP(t, echoUDP)
				spec := flowSpec(newPool(t, b.Address()))
				spec.Flows = l4.FlowSettings{Key: key, Responses: responses, SendProxy: true, ClientMax: 10}
				s := start(t, l4.Options{Loops: 1}, spec)
				c := dialUDP(t, address(s))
				if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 200)
				ask := func() {
					if _, err := c.Write(buf[:50]); err != nil {
						t.Fatal(err)
					}
					if _, err := c.Read(buf); err != nil {
						t.Fatal(err)
					}
				}
				ask()
				const rounds = 1000
				if n := allocations(rounds, ask); n >= rounds/10 { // not once per datagram
					t.Errorf("%d allocations for %d datagrams", n, rounds)
				}
				if responses == 1 && info(s).Accepted < 1000 {
					t.Errorf("only %d flows", info(s).Accepted)
				}
			})
		}
	}
}
