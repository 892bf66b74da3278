package test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// waiting returns how many sessions wait for a backend of the balancer's only pool.
func waiting(t *testing.T, b *harness.Balancer) (n int) {
	t.Helper()
	var all struct{ Pools []struct{ Waiting int } }
	b.Ask(t, "GET", "/v1/pools", nil, &all)
	return all.Pools[0].Waiting
}

// awaitWaiting waits until n sessions wait for a backend.
func awaitWaiting(t *testing.T, b *harness.Balancer, n int) {
	t.Helper()
	harness.Eventually(t, "clients wait", func() error {
		if now := waiting(t, b); now != n {
			return fmt.Errorf("%d wait, not %d", now, n)
		}
		return nil
	})
}

// TestHoldServesAll has 2,000 clients come while the only backend is in maintenance. A part of them leaves, which frees
// their descriptors and places. When the backend is back, the others are served in the order in which they came, none
// twice, and the balancer has nothing left of it. slow_start spreads them over its time, which is longer than the
// queue's timeout.
func TestHoldServesAll(t *testing.T) {
	const clients, everyLeaves = 2000, 10
	var mu sync.Mutex
	var order []uint32
	var half time.Time // when half of those who stay were there
	backend := harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		var number [4]byte
		if _, err := io.ReadFull(c, number[:]); err != nil {
			return
		}
		mu.Lock()
		if order = append(order, binary.BigEndian.Uint32(number[:])); len(order) == clients/2-clients/everyLeaves/2 {
			half = time.Now()
		}
		mu.Unlock()
		_, _ = c.Write(number[:])
		_, _ = io.Copy(io.Discard, c)
	})
	b := world{
		Backends: []string{backend.Address()},
		Pool: []string{`hold = { timeout = "1m", max = 2000 }`, `queue = { max = 0, timeout = "100ms" }`,
			`slow_start = "2s"`},
	}.start(t)
	mode := func(m string) {
		t.Helper()
		b.Ask(t, "PATCH", "/v1/pools/all/backends/b1", map[string]string{"mode": m}, nil)
	}
	mode("maintenance")
	descriptors, memory := b.Descriptors(t).Total(), b.AnonMemory(t)
	came := make([]*net.TCPConn, clients)
	for i := range came {
		came[i] = b.Dial(t, "main")
		var number [4]byte
		binary.BigEndian.PutUint32(number[:], uint32(i))
		_, err := came[i].Write(number[:])
		check(t, err)
		if i%50 == 49 { // several loops accept: not more than this much disorder
			awaitWaiting(t, b, i+1)
		}
	}
	// cost returns an error if n clients do not have one descriptor each; those of the API's connections come and go.
	cost := func(n int) error {
		if more := b.Descriptors(t).Total() - descriptors; more < n-2 || more > n+2 {
			return fmt.Errorf("%d descriptors for %d clients that wait", more, n)
		}
		return nil
	}
	check(t, cost(clients))
	each := (b.AnonMemory(t) - memory) / clients
	t.Logf("%d clients wait: one descriptor and %d bytes each", clients, each)
	if err := refusal(t, b.Address(t, "main")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one more is refused with %v", err)
	}
	var stay []uint32
	for i, c := range came {
		if i%everyLeaves == 0 {
			check(t, c.SetLinger(0))
			check(t, c.Close())
		} else {
			stay = append(stay, uint32(i))
		}
	}
	awaitWaiting(t, b, len(stay))
	harness.Eventually(t, "those who have left cost no descriptor", func() error { return cost(len(stay)) })
	// A place that has become free is there for another client, which then leaves, too.
	late := b.Dial(t, "main")
	awaitWaiting(t, b, len(stay)+1)
	check(t, late.SetLinger(0))
	check(t, late.Close())
	awaitWaiting(t, b, len(stay))
	began := time.Now()
	mode("ready")
	for _, i := range stay {
		var number [4]byte
		_, err := io.ReadFull(came[i], number[:])
		check(t, err)
		if got := binary.BigEndian.Uint32(number[:]); got != i {
			t.Fatalf("client %d got the answer of %d", i, got)
		}
	}
	took := time.Since(began)
	mu.Lock()
	t.Logf("%d clients are served after %v, half of them after %v", len(stay), took.Round(time.Millisecond),
		half.Sub(began).Round(time.Millisecond))
	if took < 1800*time.Millisecond || half.Sub(began) < 800*time.Millisecond {
		t.Error("they were not spread over the slow start")
	}
	off := 0 // how many places one was served after another that came later, at most
	for at, n := range order {
		if place, found := slices.BinarySearch(stay, n); found {
			off = max(off, at-place, place-at)
		}
	}
	if slices.Sort(order); !slices.Equal(order, stay) {
		t.Errorf("%d sessions for %d clients", len(order), len(stay))
	}
	mu.Unlock()
	if t.Logf("at most %d places from the order in which they came", off); off > 100 {
		t.Errorf("a client was served %d places from its own", off)
	}
	if n := backend.Accepted(); n != len(stay) {
		t.Errorf("the backend got %d connections for %d clients", n, len(stay))
	}
	for _, i := range stay {
		check(t, came[i].Close())
	}
	reasons := map[string]int{}
	for _, l := range b.WaitSessions(t, clients+2) {
		reasons[l.Reason]++
		if l.Reason == "client_closed" && l.QueueTime <= 0 {
			t.Errorf("a client was served without a wait: %s", l.Text)
		}
	}
	if reasons["client_closed"] != len(stay) || reasons["hold_full"] != 1 ||
		reasons["client_reset"] != clients-len(stay) || reasons["probe"] != 1 {
		t.Errorf("sessions ended with %v", reasons)
	}
	measured(t, b, map[string]float64{
		`limeload_pool_hold_full_total{pool="all"}`:                           1,
		`limeload_listener_refused_total{listener="main",reason="hold_full"}`: 1,
		`limeload_pool_queue_sessions{pool="all"}`:                            0,
	})
}

// TestHoldRedis stops a real Redis, has 2,000 clients send PING meanwhile, and starts it again: each gets its answer,
// once.
func TestHoldRedis(t *testing.T) {
	const clients = 2000
	server := harness.StartRedis(t)
	_, port, err := net.SplitHostPort(server.Address)
	check(t, err)
	number, err := strconv.Atoi(port)
	check(t, err)
	began := time.Now()
	b := world{
		Backends: []string{server.Address}, Listener: []string{`profile = "redis"`},
		Pool:   []string{`hold = { timeout = "1m", max = 2000 }`, `slow_start = "1s"`},
		Health: []string{`type = "redis"`, `interval = "50ms"`, `fast_interval = "50ms"`, `rise = 1`, `fall = 1`},
	}.start(t)
	b.WaitVerdict(t, "b1", "healthy", began)
	stopped := time.Now()
	server.Signal(t, syscall.SIGTERM)
	server.Wait(t)
	b.WaitVerdict(t, "b1", "unhealthy", stopped)
	came := make([]net.Conn, clients)
	for i := range came {
		came[i] = b.Dial(t, "main")
		_, err := io.WriteString(came[i], "PING\r\n")
		check(t, err)
	}
	awaitWaiting(t, b, clients)
	back := time.Now()
	server = harness.StartRedisOn(t, number)
	for i, c := range came {
		var answer [7]byte
		if _, err := io.ReadFull(c, answer[:]); err != nil || string(answer[:]) != "+PONG\r\n" {
			t.Fatalf("client %d got %q, %v", i, answer, err)
		}
	}
	t.Logf("%d clients had their answer %v after the start of Redis", clients, time.Since(back).Round(time.Millisecond))
	if stats := server.Do(t, "info", "commandstats"); !strings.Contains(stats, "cmdstat_ping:calls=") {
		t.Errorf("Redis has counted no PING:\n%s", stats)
	}
	for _, c := range came {
		check(t, c.Close())
	}
	oneOf(t, b.WaitSessions(t, clients), "client_closed")
}

// TestHoldNotForDatagrams has a datagram of a UDP client and questions of DNS clients find no eligible backend in a
// pool with a hold: the datagram is dropped at once, and the questions are answered with SERVFAIL.
func TestHoldNotForDatagrams(t *testing.T) {
	t.Parallel()
	asked, byTCP := harness.FreeAddress(t), harness.FreeAddress(t)
	b := world{
		Backends: []string{harness.FreeAddress(t)}, Keys: []string{`mode = "maintenance"`},
		Pool: []string{`hold = { timeout = "1m", max = 10 }`},
		Listener: []string{
			`protocol = "udp"`,
			`[listener.dns]`, fmt.Sprintf("address = %q", asked), `pool = "all"`, `protocol = "udp"`, `profile = "dns"`,
			`[listener.tcp]`, fmt.Sprintf("address = %q", byTCP), `pool = "all"`, `profile = "dns"`, `cache = {}`,
		},
	}.start(t)
	c := harness.DialUDP(t, b.Address(t, "main"))
	_, err := c.Write([]byte("one"))
	check(t, err)
	awaitMetric(t, b, `limeload_listener_dropped_total{listener="main",reason="no_backend"}`, 1)
	question := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	for network, address := range map[string]string{"udp": asked, "tcp": byTCP} {
		m, _, err := (&dns.Client{Net: network, Timeout: harness.Patience}).Exchange(question, address)
		if err != nil || m.Rcode != dns.RcodeServerFailure {
			t.Errorf("by %s: %v, %v", network, m, err)
		}
	}
	measured(t, b, map[string]float64{
		`limeload_pool_queue_sessions{pool="all"}`: 0, `limeload_pool_hold_full_total{pool="all"}`: 0,
	})
}

// TestHoldEnds holds the reason when no backend comes back in time, and what explain says meanwhile; and that a check
// that finds the backend again ends a hold.
func TestHoldEnds(t *testing.T) {
	t.Parallel()
	address := harness.FreeAddress(t)
	b := world{
		Backends: []string{address},
		Pool:     []string{`hold = { timeout = "1s", max = 10 }`},
		Health:   []string{`interval = "50ms"`, `fast_interval = "50ms"`, `rise = 1`},
	}.start(t)
	began := time.Now()
	c := b.Dial(t, "main")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("it ended with %v", err)
	}
	l := b.WaitSession(t, c.LocalAddr())
	if took := time.Since(began); l.Reason != "hold_timeout" || l.QueueTime < 0.9 || took < 900*time.Millisecond {
		t.Errorf("it ended with %s after %v, %v s in the queue", l.Reason, took, l.QueueTime)
	}
	measured(t, b, map[string]float64{`limeload_listener_refused_total{listener="main",reason="hold_timeout"}`: 1})
	stdout, _, _ := b.Command(t, "explain", "--pool", "all", "192.0.2.1")
	if want := "would wait for a backend: none is eligible"; !strings.Contains(stdout, want) {
		t.Errorf("explain does not say %q:\n%s", want, stdout)
	}
	c = b.Dial(t, "main")
	time.Sleep(100 * time.Millisecond)
	harness.ServeOn(t, address, harness.SpeakFirst("b1"))
	if _, err := c.Read(make([]byte, 2)); err != nil {
		t.Errorf("a client that waited for the check got %v", err)
	}
}
