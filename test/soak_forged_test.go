//go:build soak

package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
	"golang.org/x/net/ipv4"
)

// TestSoakForgedFlood floods a UDP listener from ever new addresses, with few descriptors, while other clients are
// served: no answered flow is lost, and a TCP listener still accepts. It reports the cost of the flood and its effect
// on the other clients.
func TestSoakForgedFlood(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer harness.DatagramHandler
		rate   int // datagrams a second; 0 = as many as go
	}{
		{"no answers, 20,000 a second", answerQuestions, 20_000},
		{"no answers, as many as go", answerQuestions, 0},
		{"answers, 20,000 a second", harness.EchoDatagrams, 20_000},
	} {
		t.Run(tc.name, func(t *testing.T) { soakForged(t, tc.answer, tc.rate) })
	}
}

// answerQuestions answers only the questions of paced clients.
func answerQuestions(c *net.UDPConn, from netip.AddrPort, datagram []byte) {
	if len(datagram) > 0 && datagram[0] == 'q' {
		_, _ = c.WriteToUDPAddrPort(datagram, from)
	}
}

func soakForged(t *testing.T, answer harness.DatagramHandler, rate int) {
	const window, clients = 10 * time.Second, 20
	udp, tcp := harness.ServeUDP(t, answer), harness.Serve(t, harness.Echo)
	b := harness.StartBalancerWith(t, harness.BalancerOptions{
		Config: fmt.Sprintf(`
[log]
access = false

[listener.main]
address = %q
protocol = "udp"
pool = "udp"
flow_timeout = "5m"

[listener.tcp]
address = %q
pool = "tcp"

[pool.udp]
backends = [{ name = "u", address = %q }]

[pool.tcp]
backends = [{ name = "t", address = %q }]
`, harness.FreeAddress(t), harness.FreeAddress(t), udp.Address(), tcp.Address()),
		Descriptors: 4096, Measured: true,
	})
	t.Cleanup(func() { endFlows(t, b) })
	conns := make([]*net.UDPConn, clients)
	for i := range conns {
		conns[i] = harness.DialUDPFrom(t, fmt.Sprintf("127.0.20.%d", i+1), b.Address(t, "main"))
		ask(t, conns[i], "question")
	}
	before := answeredFlows(t, b)
	neighbour := b.Dial(t, "tcp")
	check(t, harness.PingPong(neighbour, 1, 1))

	stop := make(chan struct{})
	var running sync.WaitGroup
	asked := make([]paced, clients)
	for i, c := range conns {
		running.Go(func() { asked[i].run(c, stop) })
	}
	var trips, connects []time.Duration
	var refused int
	running.Go(func() { trips = everyTen(stop, func() error { return harness.PingPong(neighbour, 1, 1) }) })
	running.Go(func() {
		connects = everyTen(stop, func() error {
			err := tryConnect(b.Address(t, "tcp"))
			if err != nil {
				refused++
			}
			return err
		})
	})
	var answers []time.Duration
	asks := 0
	running.Go(func() {
		answers = everyTen(stop, func() error {
			asks++
			return askNew(b.Address(t, "main"), asks)
		})
	})
	cpu, began := b.CPUTime(t), time.Now()
	sent := forge(t, b.Address(t, "main"), rate, began.Add(window))
	took, used := time.Since(began), b.CPUTime(t)-cpu
	close(stop)
	running.Wait()

	var all paced
	for i := range asked {
		check(t, asked[i].err)
		all.times, all.lost = append(all.times, asked[i].times...), all.lost+asked[i].lost
	}
	after := answeredFlows(t, b)
	lost := 0
	for client, id := range before {
		if after[client] != id {
			lost++
		}
	}
	l := udpFigures(t, b)
	t.Logf("%d forged datagrams in %v, %d of them taken, %.1f us of CPU time each; %d flows of %d; dropped %v",
		sent, took.Round(time.Millisecond), l.DatagramsIn,
		float64(used.Microseconds())/float64(sent), l.Accepted-uint64(l.Sessions), l.Accepted, l.drops())
	t.Logf("answered flows: %d of %d lost, %d of %d datagrams lost, p50 %v, p99 %v",
		lost, clients, all.lost, all.lost+len(all.times), at(all.times, 50), at(all.times, 99))
	t.Logf("TCP: round trip p50 %v, p99 %v; new clients: %d of %d not served, p50 %v, p99 %v",
		at(trips, 50), at(trips, 99), refused, refused+len(connects), at(connects, 50), at(connects, 99))
	t.Logf("new UDP clients: %d of %d answered at their first question, p50 %v, p99 %v",
		len(answers), asks, at(answers, 50), at(answers, 99))
	if lost > 0 || refused > 0 {
		t.Errorf("%d answered flows lost, %d TCP clients not served", lost, refused)
	}
}

// at returns a percentile of times.
func at(times []time.Duration, percent int) time.Duration {
	if len(times) == 0 {
		return -1
	}
	slices.Sort(times)
	return times[len(times)*percent/100].Round(10 * time.Microsecond)
}

// everyTen calls do repeatedly, with pauses of ten milliseconds, and returns how long each successful call took.
func everyTen(stop <-chan struct{}, do func() error) (times []time.Duration) {
	for {
		select {
		case <-stop:
			return times
		case <-time.After(10 * time.Millisecond):
		}
		began := time.Now()
		if do() == nil {
			times = append(times, time.Since(began))
		}
	}
}

// tryConnect checks that a TCP client is served within a second.
func tryConnect(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	return harness.PingPong(c, 1, 1)
}

// askNew asks once as a new UDP client.
func askNew(address string, n int) error {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 30, byte(n%250+1)), Port: 5000 + n}}
	c, err := d.Dial("udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return err
	}
	_, err = harness.AskUDP(c, []byte("question"))
	return err
}

// answeredFlows returns the ids of the served clients' flows.
func answeredFlows(t *testing.T, b *harness.Balancer) map[string]string {
	t.Helper()
	var list struct{ Sessions []struct{ ID, Client string } }
	b.Ask(t, "GET", "/v1/sessions?listener=main&client=127.0.20.0/24", nil, &list)
	ids := make(map[string]string)
	for _, s := range list.Sessions {
		ids[s.Client] = s.ID
	}
	return ids
}

// forge sends datagrams until a given time, each from another address of 127.64.0.0/10.
func forge(t *testing.T, address string, rate int, until time.Time) (sent int) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: harness.FreePort(t)})
	check(t, err)
	defer c.Close()
	to := udpAddr(t, address).AddrPort()
	oob := (&ipv4.ControlMessage{Src: net.IPv4(127, 64, 0, 0)}).Marshal()
	i := bytes.Index(oob, []byte{127, 64, 0, 0})
	source := oob[i : i+4]
	began := time.Now()
	for time.Now().Before(until) {
		for range 64 {
			binary.BigEndian.PutUint32(source, 127<<24|64<<16|uint32(sent)&(1<<22-1))
			if _, _, err := c.WriteMsgUDPAddrPort([]byte("forged"), oob, to); err == nil {
				sent++
			}
		}
		if rate > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(sent) * time.Second / time.Duration(rate))))
		}
	}
	return sent
}
