//go:build soak

package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// startSoakUDP starts a plain build, so that it can be measured, without access lines, of which there would be too many.
func startSoakUDP(t *testing.T, w world) *harness.Balancer {
	t.Helper()
	w.Listener = append([]string{`protocol = "udp"`}, w.Listener...)
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Config: w.config(t) + "[log]\naccess = false\n", Measured: true})
	t.Cleanup(func() { endFlows(t, b) })
	return b
}

// TestSoakUDPShortFlows has a million flows of one question and one answer, each from a socket of its own: when they are over, the balancer
// has no more than after the first of them.
func TestSoakUDPShortFlows(t *testing.T) {
	const flows, warm, clients = 1_000_000, 20_000, 4
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	b := startSoakUDP(t, world{Backends: []string{backend.Address()}, Listener: []string{"responses = 1"}})
	address := b.Address(t, "main")
	run := func(n int) {
		var asking sync.WaitGroup
		for i := range clients {
			asking.Go(func() {
				for k := range n / clients {
					if err := shortFlow(address, fmt.Sprintf("client %d, flow %d", i, k)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		asking.Wait()
	}
	settled := func() int64 { // all flows have ended, and their sockets are closed
		b.CheckLeaks(t)
		return b.AnonMemory(t)
	}
	run(warm)
	memory, cpu, began := settled(), b.CPUTime(t), time.Now()
	run(flows - warm)
	took, used, after := time.Since(began), b.CPUTime(t)-cpu, settled()
	t.Logf("%d flows in %v, %.1f us of CPU time each; memory %d KiB, after the first %d flows %d KiB",
		flows, took.Round(time.Millisecond), float64(used.Microseconds())/(flows-warm), after>>10, warm, memory>>10)
	l := udpFigures(t, b)
	if l.Accepted != flows || l.DatagramsIn != flows || l.DatagramsOut != flows || len(l.drops()) != 0 {
		t.Errorf("%+v", l)
	}
	if more := after - memory; more > 8<<20 { // eight bytes a flow, the collector's slack included
		t.Errorf("%d KiB more than after the first %d flows", more>>10, warm)
	}
}

// shortFlow asks one question from a new socket.
func shortFlow(address, question string) error {
	c, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return err
	}
	answer, err := harness.AskUDP(c, []byte(question))
	if err == nil && string(answer) != question {
		err = fmt.Errorf("the answer to %q is %q", question, answer)
	}
	return err
}

// TestSoakUDPManyFlows has 15,000 flows at once, which leaves this machine's usual limit of 20,000 descriptors some room; each asks
// again and again, and when they have ended nothing is left.
func TestSoakUDPManyFlows(t *testing.T) {
	const flows, rounds = 15_000, 3
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	b := startSoakUDP(t, world{Backends: []string{backend.Address()}})
	address := b.Address(t, "main")
	ask(t, harness.DialUDP(t, address), "the loops have what they need")
	before, open := b.AnonMemory(t), b.Descriptors(t).Total()
	clients := make([]*net.UDPConn, flows)
	for i := range clients {
		// not from ports that the kernel gives out: there are 28,000 of those, and the balancer needs as many as there are flows
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 10, byte(1+i/200)), Port: 5000 + i%200}, udpAddr(t, address))
		check(t, err)
		defer c.Close()
		clients[i] = c
	}
	for round := range rounds {
		began := time.Now()
		for i, c := range clients {
			check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
			if got := ask(t, c, fmt.Sprintf("%d %d", round, i)); got != fmt.Sprintf("%d %d", round, i) {
				t.Fatalf("client %d got the answer %q", i, got)
			}
		}
		memory, now := b.AnonMemory(t), b.Descriptors(t).Total()
		t.Logf("round %d: %v; %d flows, %d bytes of memory and %.2f descriptors each", round, time.Since(began).Round(time.Millisecond),
			udpFigures(t, b).Sessions, (memory-before)/flows, float64(now-open)/flows)
	}
	if l := udpFigures(t, b); l.Sessions != flows+1 || len(l.drops()) != 0 {
		t.Errorf("%+v", l)
	}
	endFlows(t, b)
	b.CheckLeaks(t)
	t.Logf("memory at the start %d KiB, at the end %d KiB", before>>10, b.AnonMemory(t)>>10)
}

func udpAddr(t *testing.T, address string) *net.UDPAddr {
	t.Helper()
	a, err := net.ResolveUDPAddr("udp", address)
	check(t, err)
	return a
}

// TestSoakUDPFlood states what a client that sends as fast as it can does to others: one socket's flood, and one of new flows.
func TestSoakUDPFlood(t *testing.T) {
	const window = 10 * time.Second
	for _, tc := range []struct {
		name     string
		backend  harness.DatagramHandler // the flood's
		listener []string
		flood    func(address string, stop <-chan struct{}) (sent int)
	}{
		{"nobody floods", nil, nil, func(_ string, stop <-chan struct{}) int { <-stop; return 0 }},
		{"one flow", harness.SilentDatagrams, nil, floodFlow},
		{"one flow, every datagram answered", harness.EchoDatagrams, nil, floodFlow},
		{"new flows", harness.SilentDatagrams, nil, floodFlows},
		{"new flows, client_flows = 100", harness.SilentDatagrams, []string{"client_flows = 100"}, floodFlows},
	} {
		t.Run(tc.name, func(t *testing.T) {
			handle := tc.backend
			if handle == nil {
				handle = harness.EchoDatagrams
			}
			// two backends by hash: the flood of 127.0.0.66 goes to one, others to both, and only those of the other are looked at
			well, flooded := harness.ServeUDP(t, harness.EchoDatagrams), harness.ServeUDP(t, handle)
			b := startSoakUDP(t, world{
				Backends: []string{well.Address(), flooded.Address()}, Pool: []string{`algorithm = "client_hash"`},
				Listener: append([]string{`flow_timeout = "5s"`}, tc.listener...),
			})
			sources := sourcesOf(t, b, "b1", 20)
			flooder := sourcesOf(t, b, "b2", 1)[0]
			stop := make(chan struct{})
			var running sync.WaitGroup
			sent := 0
			running.Go(func() { sent = tc.flood(flooder+" "+b.Address(t, "main"), stop) })
			ends := time.After(window)
			asked := make([]paced, len(sources))
			for i, from := range sources {
				c := harness.DialUDPFrom(t, from, b.Address(t, "main"))
				running.Go(func() { asked[i].run(c, stop) })
			}
			<-ends
			close(stop)
			running.Wait()
			var all paced
			for _, a := range asked {
				all.times, all.lost = append(all.times, a.times...), all.lost+a.lost
				if a.err != nil {
					t.Error(a.err)
				}
			}
			if len(all.times) == 0 {
				t.Fatal("nobody was answered")
			}
			slices.Sort(all.times)
			t.Logf("%d datagrams of a flood in %v; others: %d of %d lost, p50 %v, p99 %v; dropped %v", sent, window, all.lost, all.lost+len(all.times),
				all.times[len(all.times)/2], all.times[len(all.times)*99/100], udpFigures(t, b).drops())
		})
	}
}

// sourcesOf finds n addresses of clients whose backend is that one.
func sourcesOf(t *testing.T, b *harness.Balancer, backend string, n int) (sources []string) {
	t.Helper()
	for i := 1; len(sources) < n; i++ {
		from := fmt.Sprintf("127.0.20.%d", i)
		var e explanation
		b.Ask(t, "GET", "/v1/explain?listener=main&client="+from, nil, &e)
		if e.Backend == backend {
			sources = append(sources, from)
		}
	}
	return sources
}

// A paced is a client that asks a hundred times a second, and how that went.
type paced struct {
	times []time.Duration // of questions that were answered
	lost  int
	err   error
}

func (p *paced) run(c *net.UDPConn, stop <-chan struct{}) {
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	answer := make([]byte, 100)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-pace.C:
		}
		question := fmt.Sprintf("question %d", i)
		began := time.Now()
		if _, p.err = c.Write([]byte(question)); p.err != nil {
			return
		}
		if p.err = c.SetReadDeadline(began.Add(time.Second)); p.err != nil {
			return
		}
		for { // an answer that came after its second is nobody's
			n, err := c.Read(answer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				p.lost++
				break
			}
			if p.err = err; err != nil {
				return
			}
			if string(answer[:n]) == question {
				p.times = append(p.times, time.Since(began))
				break
			}
		}
	}
}

// floodFlow sends from one socket. Where is the address it comes from, and the one it goes to.
func floodFlow(where string, stop <-chan struct{}) (sent int) { return flood(where, 1, stop) }

// floodFlows sends from 5,000 sockets in turn.
func floodFlows(where string, stop <-chan struct{}) (sent int) { return flood(where, 5000, stop) }

func flood(where string, sockets int, stop <-chan struct{}) (sent int) {
	var from, to string
	if _, err := fmt.Sscan(where, &from, &to); err != nil {
		return 0
	}
	datagram := make([]byte, 100)
	var conns []net.Conn
	for i := range sockets {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from), Port: 5000 + i}}
		c, err := d.Dial("udp", to)
		if err != nil {
			return 0
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for {
		select {
		case <-stop:
			return sent
		default:
		}
		for range 64 {
			if _, err := conns[sent%len(conns)].Write(datagram); err == nil {
				sent++
			}
		}
	}
}

// TestSoakQUIC moves 40 GB through the balancer in 200 QUIC connections, which takes minutes: once with senders that hand the kernel trains
// of datagrams (GSO), and once with single ones.
func TestSoakQUIC(t *testing.T) {
	const clients, each = 200, 100 << 20
	for _, tc := range []struct{ name, disable string }{{"with GSO", "false"}, {"without GSO", "true"}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("QUIC_GO_DISABLE_GSO", tc.disable) // quic-go's
			q := startQUIC(t, each, clients)
			b := startSoakUDP(t, world{Backends: []string{q.address}})
			cpu, began := b.CPUTime(t), time.Now()
			q.askAll(t, b.Address(t, "main"), clients)
			took, used := time.Since(began), b.CPUTime(t)-cpu
			l := udpFigures(t, b)
			bytes := float64(l.BytesIn + l.BytesOut)
			t.Logf("%.1f GB in %v: %.1f MB/s, %.0f ms of CPU time per GB; %d datagrams in, %d out, dropped %v; memory %d KiB", bytes/1e9,
				took.Round(time.Millisecond), bytes/1e6/took.Seconds(), float64(used.Milliseconds())/(bytes/1e9), l.DatagramsIn, l.DatagramsOut, l.drops(), b.AnonMemory(t)>>10)
		})
	}
}
