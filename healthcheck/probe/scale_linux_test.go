package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// BenchmarkTenThousandTargets measures 10,000 targets at an interval of 2 s for 6 s, in one pool and in a thousand
// pools, with as many slots as the balancer has at most. It reports CPU time in percent of one core, heap per target,
// and the largest number of checks that begin in a tenth of a second; 500 are the mean.
//
//	go test -run '^$' -bench TenThousand -benchtime 1x ./healthcheck/probe
func BenchmarkTenThousandTargets(b *testing.B) {
	server := harness.ServeOn(b, "0.0.0.0:0", func(ctx context.Context, c *net.TCPConn) { readToEnd(ctx, c) })
	port := netip.MustParseAddrPort(server.Address()).Port()
	nothing := checkerFunc(func(context.Context, healthcheck.Target) (healthcheck.Result, error) {
		return healthcheck.Result{}, nil
	})
	for _, run := range []struct {
		name    string
		checker healthcheck.Checker
		groups  int
	}{
		{"scheduler alone", nothing, 1}, {"in 1000 pools", nothing, 1000}, {"tcp, with the server", TCP{Port: port}, 1},
	} {
		b.Run(run.name, func(b *testing.B) {
			for b.Loop() {
				measureTargets(b, run.checker, 10_000, run.groups, 6*time.Second)
			}
		})
	}
}

// A checkerFunc is a Checker that is a function.
type checkerFunc func(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error)

// Check implements healthcheck.Checker.
func (f checkerFunc) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return f(ctx, t)
}

// measureTargets checks n targets in so many groups for the time d, and reports what that cost.
func measureTargets(b *testing.B, c healthcheck.Checker, n, groups int, d time.Duration) {
	b.Helper()
	var mu sync.Mutex
	begun := make([]int, int(d/(100*time.Millisecond))+20) // by tenth of a second; mu guards it
	start := time.Now()
	counted := checkerFunc(func(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
		mu.Lock()
		begun[min(int(time.Since(start)/(100*time.Millisecond)), len(begun)-1)]++
		mu.Unlock()
		return c.Check(ctx, t)
	})
	before := heapBytes()
	s := healthcheck.NewScheduler(healthcheck.Options{Concurrency: 512, Report: func([]healthcheck.Change) {}})
	p := healthcheck.Policy{Interval: 2 * time.Second, Timeout: time.Second, Rise: 1, Fall: 3, Jitter: 0.1}
	for i := range n {
		to := healthcheck.Target{ID: fmt.Sprint(i), Group: fmt.Sprint(i % groups),
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 1)}
		if err := s.Add(to, counted, p); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(b.Context(), d)
	defer cancel()
	start = time.Now()
	used := cpuTime(b)
	if err := s.Run(ctx); err != nil {
		b.Fatal(err)
	}
	used = cpuTime(b) - used
	took := time.Since(start)
	var all healthcheck.Tally
	for _, tally := range s.Stats().Groups {
		for o, n := range tally.Checks {
			all.Checks[o] += n
		}
	}
	if all.Checks[healthcheck.Failed]+all.Checks[healthcheck.TimedOut] > 0 {
		b.Errorf("checks failed: %v", all.Checks)
	}
	b.ReportMetric(100*float64(used)/float64(took), "cpu-%")
	b.ReportMetric(float64(all.Checks[healthcheck.Succeeded])/took.Seconds(), "checks/s")
	b.ReportMetric(float64(slices.Max(begun)), "peak/100ms")
	b.ReportMetric((heapBytes()-before)/float64(n), "heap-B/target")
	runtime.KeepAlive(s)
}

// heapBytes returns the bytes in use on the heap, after a collection.
func heapBytes() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// cpuTime returns the CPU time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
