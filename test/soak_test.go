//go:build soak

// The tests here take long or measure; run them with
//
//	make soak
//
// They fail on wrong results. Figures are only reported, since a slow machine must not fail a test.

package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestSoakLarge reports the cost of operating a large balancer: 10,000 backends, 5,000 sessions.
func TestSoakLarge(t *testing.T) {
	const backends, sessions = 10_000, 5_000
	server := harness.ServeOn(t, fmt.Sprintf("0.0.0.0:%d", harness.FreePort(t)), harness.Echo)
	_, port, err := net.SplitHostPort(server.Address())
	check(t, err)
	address := harness.FreeAddress(t)
	config := func(round int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "[log]\naccess = false\n[listener.main]\naddress = %q\npool = \"all\"\n[pool.all]\n"+
			"algorithm = %q\nbackends = [\n",
			address, []string{"least_conn", "maglev"}[round%2])
		for i := range backends {
			// each time a hundred backends are added and removed, and every weight changes
			n := i + 100*round
			fmt.Fprintf(&b, "{ name = \"b%d\", address = \"127.%d.%d.%d:%s\", weight = %d },\n", n, 20+n>>16, n>>8&255,
				n&255, port, 1+(n+round)%10)
		}
		b.WriteString("]\n[pool.all.health]\ninterval = \"10s\"\ninitial = \"healthy\"\n")
		return b.String()
	}
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Config: config(0), Measured: true})
	conns := make([]net.Conn, sessions)
	for i := range conns {
		conns[i] = harness.Dial(t, address)
		check(t, harness.PingPong(conns[i], 1, 10))
	}
	t.Logf("memory with %d backends and %d sessions: %d MiB", backends, sessions, b.AnonMemory(t)>>20)

	var measuring sync.WaitGroup
	stalls := func(during func()) (longest time.Duration) {
		ctx, stop := context.WithCancel(t.Context())
		measuring.Go(func() {
			for c := conns[0]; ctx.Err() == nil; {
				began := time.Now()
				if err := harness.PingPong(c, 1, 10); err != nil {
					t.Error(err)
					return
				}
				longest = max(longest, time.Since(began))
			}
		})
		during()
		stop()
		measuring.Wait()
		return longest
	}
	t.Logf("longest request in two seconds without a reload: %v", stalls(func() { time.Sleep(2 * time.Second) }))
	for round := 1; round <= 4; round++ {
		b.Configure(t, config(round))
		var took struct {
			Took float64 `json:"took_seconds"`
		}
		longest := stalls(func() { b.Ask(t, "POST", "/v1/reload", nil, &took) })
		t.Logf("reload %d: %.0f ms; longest request meanwhile: %v; memory %d MiB", round, 1000*took.Took, longest,
			b.AnonMemory(t)>>20)
	}
	for range 3 {
		var size int
		began := time.Now()
		longest := stalls(func() {
			status, answer := b.API(t, "GET", "/metrics", nil)
			if status != http.StatusOK {
				t.Errorf("/metrics: %d", status)
			}
			size = len(answer)
		})
		t.Logf("/metrics: %d KiB in %v; longest request meanwhile: %v",
			size>>10, time.Since(began).Round(time.Millisecond), longest)
	}
	began := time.Now()
	_, answer := b.API(t, "GET", "/v1/backends", nil)
	t.Logf("/v1/backends: %d KiB in %v", len(answer)>>10, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	_, answer = b.API(t, "GET", "/v1/sessions?limit=10000", nil)
	t.Logf("/v1/sessions: %d KiB in %v", len(answer)>>10, time.Since(began).Round(time.Millisecond))
	for _, c := range conns {
		c.Close()
	}
}

// TestSoakAPI reports the latency of redis-benchmark with 200 calls of the control API a second, and with none.
func TestSoakAPI(t *testing.T) {
	redis := harness.StartRedis(t)
	b := harness.StartBalancerWith(t,
		harness.BalancerOptions{Config: world{Backends: []string{redis.Address}}.config(t), Measured: true})
	host, port, err := net.SplitHostPort(b.Address(t, "main"))
	check(t, err)
	benchmark := func() string {
		// about thirty seconds each here
		stdout := harness.MustRun(t, harness.Command{Path: harness.Tool(t, "redis-benchmark"),
			Args: []string{"-h", host, "-p", port, "-c", "20", "-n", "1500000", "-t", "get", "--csv"}})
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		return lines[len(lines)-1]
	}
	paths := []string{"/v1/status", "/v1/listeners", "/v1/pools", "/v1/backends", "/v1/sessions",
		"/v1/explain?pool=all&client=10.0.0.7", "/ready"}
	for range 3 {
		t.Logf("without calls: %s", benchmark())
		ctx, stop := context.WithCancel(t.Context())
		var calling sync.WaitGroup
		calls := 0
		calling.Go(func() {
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-pace.C:
				}
				if status, answer, err := b.TryAPI(ctx, "GET", paths[calls%len(paths)], nil); ctx.Err() == nil &&
					(err != nil || status != http.StatusOK) {
					t.Errorf("%d %s %v", status, answer, err)
				}
				calls++
			}
		})
		line := benchmark()
		stop()
		calling.Wait()
		t.Logf("with calls:    %s (%d calls)", line, calls)
	}
}
