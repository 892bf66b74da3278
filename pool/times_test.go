package pool

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestTimeBounds holds that times are counted in the buckets that TimeBounds says, and their sum is right.
func TestTimeBounds(t *testing.T) {
	p := made(t, Options{}, at("a", 0, "", 0))
	lease := func() Lease {
		l, err := p.Pick(PickContext{})
		must(t, err)
		return l
	}
	info, _ := p.Backend("a")
	if info.ConnectTimes != (Times{}) || info.FirstByteTimes != (Times{}) {
		t.Fatalf("before anything it has %+v", info)
	}
	var sum time.Duration
	l := lease()
	for i, bound := range TimeBounds() {
		for _, d := range []time.Duration{bound, bound + time.Microsecond} {
			l.ConnectTook(d, i)
			sum += d
		}
	}
	l.ConnectTook(-time.Second, 0)
	l.FirstByteTook(1600*time.Nanosecond, -7) // two ticks
	l.Release(Served)
	info, _ = p.Backend("a")
	c, f := info.ConnectTimes, info.FirstByteTimes
	if want := [timeBuckets]uint64{2, 2, 2, 2, 2, 1}; c.Buckets != want || math.Abs(c.Sum-sum.Seconds()) > 1e-5 {
		t.Errorf("connect times are %+v, want %v and %v", c, want, sum)
	}
	if f.Count() != 1 || f.Buckets[0] != 1 || math.Abs(f.Sum-2.048e-6) > 1e-9 {
		t.Errorf("first-byte times are %+v", f)
	}
}

// TestTimesNeverDecrease has words that become half full again and again while others read. No count is lost, and no
// number goes down.
func TestTimesNeverDecrease(t *testing.T) {
	const perLoop, loops = 300, 4
	b := &Backend{}
	const long = longestTime / 3 // every second or third time fills the sum
	var counting sync.WaitGroup
	for loop := range loops {
		counting.Go(func() {
			for range perLoop {
				b.took(connectTimes, loop%2, long) // two loops share a stripe
			}
		})
	}
	done := make(chan struct{})
	go func() {
		counting.Wait()
		close(done)
	}()
	var last Times
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		now := b.watch.Load().times(connectTimes)
		if now.Count() < last.Count() || now.Sum < last.Sum {
			t.Fatalf("from %+v it went down to %+v", last, now)
		}
		last = now
		runtime.Gosched()
	}
	want := float64(perLoop*loops) * long.Seconds()
	if last.Count() != perLoop*loops || math.Abs(last.Sum-want) > 1e-3*want {
		t.Errorf("it counts %d times of %v s, want %d of %v", last.Count(), last.Sum, perLoop*loops, want)
	}
	b.took(connectTimes, 0, math.MaxInt64)
	if now := b.watch.Load().times(connectTimes); math.Abs(now.Sum-last.Sum-longestTime.Seconds()) > 1 {
		t.Errorf("an endless time counts %v", now.Sum-last.Sum)
	}
}

// TestTimesAllocate holds that counting allocates nothing after the first time.
func TestTimesAllocate(t *testing.T) {
	p := made(t, Options{}, at("a", 0, "", 0))
	l, err := p.Pick(PickContext{})
	must(t, err)
	l.ConnectTook(0, 0)
	if n := testing.AllocsPerRun(100, func() {
		l.ConnectTook(time.Millisecond, 1)
		l.FirstByteTook(time.Second, 1)
	}); n > 0 {
		t.Errorf("it allocates %v times", n)
	}
	l.Release(Served)
}

func BenchmarkTook(b *testing.B) {
	p := made(b, Options{}, at("a", 0, "", 0))
	l, _ := p.Pick(PickContext{})
	b.Run("connect", func(b *testing.B) {
		for b.Loop() {
			l.ConnectTook(200*time.Microsecond, 1)
		}
	})
	b.Run("session", func(b *testing.B) { // what a plain session does with its lease
		for b.Loop() {
			l, _ := p.Pick(PickContext{})
			l.ConnectTook(200*time.Microsecond, 1)
			l.FirstByteTook(300*time.Microsecond, 1)
			l.Release(Served)
		}
	})
	var loops atomic.Int64
	b.Run("loops", func(b *testing.B) { // each with its own stripe
		b.RunParallel(func(pb *testing.PB) {
			loop := int(loops.Add(1))
			for pb.Next() {
				l.ConnectTook(200*time.Microsecond, loop)
			}
		})
	})
}
