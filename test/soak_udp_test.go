//go:build soak

package test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// startSoakUDP starts a plain build, so that it can be measured, without access lines, of which there would be too
// many.
func startSoakUDP(t *testing.T, w world) *harness.Balancer {
	t.Helper()
	w.Listener = append([]string{`protocol = "udp"`}, w.Listener...)
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Config: w.config(t) + "[log]\naccess = false\n",
		Measured: true})
	t.Cleanup(func() { endFlows(t, b) })
	return b
}

// TestSoakUDPShortFlows makes a million flows of one question and one answer, each from its own socket: afterwards the
// balancer holds no more than after the first of them.
func TestSoakUDPShortFlows(t *testing.T) {
	const flows, warm, clients = 1_000_000, 20_000, 4
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	b := startSoakUDP(t, world{Backends: []string{backend.Address()}, Listener: []string{"responses = 1"}})
	address := b.Address(t, "main")
	run := func(n int) {
		var running sync.WaitGroup
		for i := range clients {
			running.Go(func() {
				for k := range n / clients {
					if err := shortFlow(address, fmt.Sprintf("client %d, flow %d", i, k)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		running.Wait()
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
	if more := after - memory; more > 8<<20 { // eight bytes a flow, including the collector's slack
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

// TestSoakUDPManyFlows has 15,000 concurrent flows, below the usual limit of 20,000 descriptors; each asks repeatedly,
// and when they have ended nothing is left. A second wave takes no more than the first.
func TestSoakUDPManyFlows(t *testing.T) {
	const flows, rounds = 15_000, 3
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	b := startSoakUDP(t, world{Backends: []string{backend.Address()}})
	address := b.Address(t, "main")
	ask(t, harness.DialUDP(t, address), "the loops have what they need")
	endFlows(t, b)
	b.CheckLeaks(t)
	before, open := b.AnonMemory(t), b.Descriptors(t).Total()
	clients := make([]*net.UDPConn, flows)
	for i := range clients {
		// not from ephemeral ports: there are 28,000 of those, and the balancer needs one for each flow
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 10, byte(1+i/200)), Port: 5000 + i%200},
			udpAddr(t, address))
		check(t, err)
		defer c.Close()
		clients[i] = c
	}
	wave := func(n int) (peak, after int64) {
		for round := range rounds {
			began := time.Now()
			for i, c := range clients {
				check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
				if got := ask(t, c, fmt.Sprintf("%d %d %d", n, round, i)); got != fmt.Sprintf("%d %d %d", n, round, i) {
					t.Fatalf("client %d got the answer %q", i, got)
				}
			}
			now := b.Descriptors(t).Total()
			peak = b.AnonMemory(t)
			t.Logf("wave %d, round %d: %v; %d flows, %d bytes of memory and %.2f descriptors each",
				n, round, time.Since(began).Round(time.Millisecond),
				udpFigures(t, b).Sessions, (peak-before)/flows, float64(now-open)/flows)
		}
		if l := udpFigures(t, b); l.Sessions != flows || len(l.drops()) != 0 {
			t.Errorf("%+v", l)
		}
		endFlows(t, b)
		b.CheckLeaks(t)
		after = b.AnonMemory(t)
		t.Logf("wave %d: memory before the first %d KiB, at its peak %d KiB, after it %d KiB; descriptors before the "+
			"first %d, after it %d", n, before>>10, peak>>10,
			after>>10, open, b.Descriptors(t).Total())
		return peak, after
	}
	peak, after := wave(1)
	peakAgain, afterAgain := wave(2)
	if more := max(peakAgain-peak, afterAgain-after); more > 2<<20 { // the collector's slack
		t.Errorf("the second wave takes %d KiB more than the first", more>>10)
	}
}

// TestSoakDNSInFlight has 50,000 questions that wait for a backend at once, repeatedly, and reports times and memory.
// Freed memory stays with the collector, which keeps about twice the memory in use, mostly buffers for datagrams; the
// last burst needs no more.
func TestSoakDNSInFlight(t *testing.T) {
	const questions, waves = 50_000, 3
	h := holdDNS(t, questions)
	b := flightWorld(h).start(t)
	before := b.AnonMemory(t)
	var peaks []int64
	for wave := range waves {
		if wave > 0 {
			h.stop()
			h = holdDNSOn(t, h.conn.LocalAddr().String(), questions)
		}
		f := askAtOnce(t, b, h, questions)
		peaks = append(peaks, f.memory)
		answered := b.AnonMemory(t)
		b.CheckLeaks(t) // sockets without a question are closed when they are renewed
		// so that garbage of one wave does not count as growth in the next one
		if status, answer := b.API(t, "GET", "/debug/pprof/heap?gc=1", nil); status != http.StatusOK {
			t.Fatalf("garbage collection: %d %s", status, answer)
		}
		t.Logf("wave %d: %d questions asked in %v, all answered in %v; %d sockets more; memory before %d KiB, with "+
			"all in flight %d KiB, answered %d KiB, "+
			"collected %d KiB", wave, questions, f.sending.Round(time.Millisecond), f.answering.Round(time.Millisecond),
			f.sockets,
			before>>10, f.memory>>10, answered>>10, b.AnonMemory(t)>>10)
		if f.sockets > flightSockets {
			t.Errorf("%d sockets, expected at most %d", f.sockets, flightSockets)
		}
	}
	l := udpFigures(t, b)
	if l.DatagramsIn != waves*questions || l.DatagramsOut != waves*questions || len(l.drops()) != 0 {
		t.Errorf("%+v", l)
	}
	measured(t, b, map[string]float64{
		`limeload_dns_in_flight{listener="main"}`: 0, `limeload_dns_sockets{listener="main"}`: 0,
		`limeload_dns_failed_total{listener="main"}`:                        0,
		`limeload_dns_tries_ended_total{listener="main",result="answered"}`: waves * questions,
		`limeload_dns_mismatched_total{listener="main"}`:                    0,
	})
	if more := peaks[waves-1] - peaks[waves-2]; more > 8<<20 { // 160 bytes a question, the collector's slack
		t.Errorf("the last wave takes %d KiB more than the one before", more>>10)
	}
}

// TestSoakDNSStale makes the backend silent for a minute, and then stops one for a minute: clients that ask at a steady
// pace get expired answers throughout, and fresh ones when it is back.
func TestSoakDNSStale(t *testing.T) {
	for _, tc := range []struct {
		name       string
		gone, back func(d *harness.DNS, t testing.TB)
	}{{"frozen", (*harness.DNS).Freeze, (*harness.DNS).Thaw}, {"killed", (*harness.DNS).Kill, (*harness.DNS).Restart}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			server, b, names := staleWorld(t)
			clients, stop := startSteady(t, b, 20*time.Millisecond, names...)
			awaitEach(t, clients, "an answer", func(a steadyAnswer) bool { return a.address == "192.0.2.1" })
			tc.gone(server, t)
			time.Sleep(time.Minute)
			back := time.Now()
			tc.back(server, t)
			server.SetZone(t, staleZone("192.0.2.2"))
			awaitEach(t, clients, "an answer of the backend that is back", func(a steadyAnswer) bool {
				return a.address == "192.0.2.2" && !a.isStale()
			})
			fresh := time.Since(back)
			stop()
			var first, later time.Duration
			stale := 0
			for _, c := range clients {
				f, l, n := c.checkStale(t, back)
				first, later, stale = max(first, f), max(later, l), stale+n
			}
			t.Logf("%d clients had %d expired answers, the first in %v or less, others in %v or less; fresh ones %v "+
				"after the backend came back",
				len(clients), stale, first, later, fresh.Round(time.Millisecond))
			if later > time.Second { // the client does not wait for the question to the backend
				t.Errorf("a client has waited for %v while there was an expired answer", later)
			}
		})
	}
}

// TestSoakUDPFlood reports the effect on other clients of one that sends as fast as it can, from one socket and in new
// flows.
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
			// two backends by hash: the flood from 127.0.0.66 goes to one, and only clients of the other are measured
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
			t.Logf("%d datagrams of a flood in %v; others: %d of %d lost, p50 %v, p99 %v; dropped %v",
				sent, window, all.lost, all.lost+len(all.times),
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

// A paced is a client that asks a hundred times a second, with its results.
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
		for { // late answers are discarded
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

// TestSoakQUIC moves 200 QUIC connections' bytes through the balancer: 100 MiB in each direction with all
// optimizations, which takes minutes. Then it moves a tenth of that with and without the balancer's UDP offload, with
// and without quic-go's, through nginx, and directly.
func TestSoakQUIC(t *testing.T) {
	const clients, whole, part = 200, 100 << 20, 10 << 20
	t.Run("whole", func(t *testing.T) { soakQUIC(t, clients, whole, balancerQUIC("udp_offload = true")) })
	for _, gso := range []string{"GSO", "no GSO"} {
		for _, tc := range []struct {
			name  string
			start func(t *testing.T, backend string) quicWay
		}{
			{"udp_offload = true", balancerQUIC("udp_offload = true")},
			{"udp_offload = false", balancerQUIC("udp_offload = false")},
			{"nginx", nginxQUIC},
			{"nothing between", func(_ *testing.T, backend string) quicWay {
				return quicWay{backend, func() time.Duration { return 0 }}
			}},
		} {
			t.Run(gso+"/"+tc.name, func(t *testing.T) {
				t.Setenv("QUIC_GO_DISABLE_GSO", fmt.Sprint(gso != "GSO")) // quic-go's
				soakQUIC(t, clients, part, tc.start)
			})
		}
	}
}

// A quicWay is an address that leads to a QUIC server, with a function that returns the CPU time at the end.
type quicWay struct {
	address string
	cpu     func() time.Duration
}

func balancerQUIC(key string) func(t *testing.T, backend string) quicWay {
	return func(t *testing.T, backend string) quicWay {
		b := startSoakUDP(t, world{Global: []string{key}, Backends: []string{backend}})
		before := b.CPUTime(t)
		return quicWay{b.Address(t, "main"), func() time.Duration {
			used, l := b.CPUTime(t)-before, udpFigures(t, b)
			t.Logf("%d flows, %d datagrams in, %d out, dropped %v; memory %d KiB",
				l.Accepted, l.DatagramsIn, l.DatagramsOut, l.drops(), b.AnonMemory(t)>>10)
			return used
		}}
	}
}

func nginxQUIC(t *testing.T, backend string) quicWay {
	n := harness.StartNginxUDP(t, backend, runtime.NumCPU())
	return quicWay{n.Address, func() time.Duration { return n.End(t) }}
}

func soakQUIC(t *testing.T, clients int, each int64, start func(t *testing.T, backend string) quicWay) {
	q := startQUIC(t, each, clients)
	way := start(t, q.address)
	began := time.Now()
	q.askAll(t, way.address, clients)
	took := time.Since(began)
	bytes := 2 * float64(each) * float64(clients)
	t.Logf("%.1f GB in %v: %.1f MB/s, %.2f s of CPU time per GB", bytes/1e9, took.Round(time.Millisecond),
		bytes/1e6/took.Seconds(), way.cpu().Seconds()/(bytes/1e9))
}
