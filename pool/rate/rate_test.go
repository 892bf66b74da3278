package rate_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/pool/rate"
)

// TestExact holds how many are let in over ten seconds in which twice as many want to come: what is due, and the burst
// before.
func TestExact(t *testing.T) {
	for _, n := range []int{1, 10, 1000, 20_000, rate.MaxCount} {
		for _, burst := range []int{1, 7} {
			limit := rate.PerSecond(n, burst)
			var at, now time.Duration
			let, step := 0, max(limit.Every/2, time.Nanosecond)
			for now = time.Hour; now < time.Hour+10*time.Second; now += step {
				var wait time.Duration
				if at, wait = limit.Take(at, now); wait == 0 {
					let++
				}
			}
			if want := 10*n + burst - 1; let != want {
				t.Errorf("%d a second, %d at once: %d in ten seconds, want %d", n, burst, let, want)
			}
		}
	}
}

// TestWindow holds for any arrivals: within any time no more are let in than are due in it and the burst; one that is
// not may come after just the time that it is told; and one is refused only if the limit is used up.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rate.Limit{
			Every: time.Duration(rapid.Int64Range(int64(rate.MinEvery), int64(time.Second)).Draw(t, "every")),
			Burst: rapid.IntRange(1, 20).Draw(t, "burst"),
		}
		var let []time.Duration
		var at time.Duration
		now := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "now"))
		for range rapid.IntRange(1, 300).Draw(t, "arrivals") {
			now += time.Duration(rapid.Int64Range(0, int64(3*limit.Every)).Draw(t, "pause"))
			next, wait := limit.Take(at, now)
			if wait > 0 {
				if next != at || limit.Wait(at, now+wait) != 0 || limit.Wait(at, now+wait-1) != 1 {
					t.Fatalf("refused for %v, but then it is %v", wait, limit.Wait(at, now+wait))
				}
				if n := len(let); n < limit.Burst {
					t.Fatalf("refused after %d", n)
				}
				continue
			}
			at = next
			let = append(let, now)
			for i, since := range let {
				if most := limit.Burst + int((now-since)/limit.Every); len(let)-i > most {
					t.Fatalf("%d since %v, allowed are %d", len(let)-i, now-since, most)
				}
			}
		}
	})
}

// TestBucket holds that goroutines which share a bucket get together what the limit allows, that what is returned may be
// taken again, and that another limit holds from the next call on.
func TestBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b rate.Bucket
		var let atomic.Int64
		began := time.Now()
		limit := rate.PerSecond(1000, 5)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for time.Since(began) < 10*time.Second {
					if wait := b.Take(limit, time.Since(began)); wait > 0 {
						time.Sleep(wait)
						continue
					}
					let.Add(1)
				}
			})
		}
		all.Wait()
		if n := let.Load(); n < 10_000 || n > 10_005 {
			t.Errorf("%d in ten seconds, want 10,000", n)
		}
		now := time.Since(began) + time.Second
		for range 5 {
			if b.Take(limit, now) != 0 {
				t.Error("refused within the burst")
			}
		}
		if b.Wait(limit, now) != time.Millisecond || b.Take(limit, now) != time.Millisecond {
			t.Error("not refused after the burst")
		}
		b.Return(limit)
		if b.Wait(limit, now) != 0 || b.Take(limit, now) != 0 {
			t.Error("what was returned cannot be taken")
		}
		if b.Take(rate.PerSecond(1000, 50), now) != 0 || b.Take(rate.Limit{}, now) != 0 {
			t.Error("a wider limit does not hold at once")
		}
	})
}

// TestNoAllocations holds that the limit costs no memory.
func TestNoAllocations(t *testing.T) {
	var b rate.Bucket
	limit := rate.PerSecond(1000, 5)
	now := time.Duration(0)
	if n := testing.AllocsPerRun(100, func() { now += time.Millisecond; b.Take(limit, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestShare holds that nodes with a share each let in together what is due, and the burst before, however small the
// shares are.
func TestShare(t *testing.T) {
	for _, tc := range []struct {
		limit rate.Limit
		over  time.Duration
	}{
		{rate.PerSecond(1, 1), 2000 * time.Second}, {rate.Limit{Every: time.Hour, Burst: 5}, 2000 * time.Hour},
		{rate.PerSecond(100, 200), 20 * time.Second}, {rate.PerSecond(rate.MaxCount, rate.MaxBurst), time.Second},
	} {
		for _, nodes := range []int{1, 2, 3, 49, 100} {
			share := tc.limit.Share(1 / float64(nodes))
			if want := max(1, tc.limit.Burst/nodes); share.Burst != want {
				t.Errorf("%v in %d parts: a burst of %d, want %d", tc.limit, nodes, share.Burst, want)
			}
			due := float64(tc.over) / float64(tc.limit.Every)
			let := nodes * (share.Burst - 1 + int(tc.over/share.Every))
			if got := float64(let); got < due-float64(nodes) || got > due*1.001+float64(max(nodes, tc.limit.Burst)) {
				t.Errorf("%v in %d parts: %d in %v, want %.0f", tc.limit, nodes, let, tc.over, due)
			}
		}
	}
	if l := rate.PerSecond(5, 5); l.Share(1) != l || l.Share(0) != l || (rate.Limit{}).Share(0.5) != (rate.Limit{}) {
		t.Error("a whole limit has another share, or no limit has one")
	}
	if l := (rate.Limit{Every: rate.MaxEvery, Burst: rate.MaxBurst}).Share(1e-300); l.Every <= 0 || l.Wait(l.Every, 0) < 0 {
		t.Errorf("a tiny share is %+v", l)
	}
}
