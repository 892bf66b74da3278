package algo

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestLoadCounts(t *testing.T) {
	var l Load
	for i, step := range []struct {
		do   func() int64
		want int64
	}{{l.Acquire, 1}, {l.Acquire, 2}, {l.Leases, 2}, {l.Release, 1}, {l.Release, 0}, {l.Leases, 0}} {
		if got := step.do(); got != step.want {
			t.Errorf("step %d = %d, want %d", i, got, step.want)
		}
	}
}

func TestLoadBelowZeroPanics(t *testing.T) {
	wantPanic(t, func() { new(Load).Release() })
}

// TestTryAcquireHoldsTheLimit has many goroutines compete for few leases: never more are held than there may be, and while
// there is room somebody gets in.
func TestTryAcquireHoldsTheLimit(t *testing.T) {
	const limit = 3
	var l Load
	l.SetLimit(limit)
	var held, most, got atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5000 {
				if !l.TryAcquire() {
					continue
				}
				got.Add(1)
				if n := held.Add(1); n > most.Load() {
					most.Store(n)
				}
				held.Add(-1)
				l.Release()
			}
		})
	}
	wg.Wait()
	if l.Leases() != 0 || most.Load() > limit || got.Load() < 1000 {
		t.Errorf("at the end %d leases, at most %d of %d at once, %d acquired", l.Leases(), most.Load(), limit, got.Load())
	}
	for range limit {
		if !l.TryAcquire() {
			t.Error("an idle load refuses a lease below its limit")
		}
	}
	if l.TryAcquire() || !l.Full() {
		t.Error("a lease beyond the limit was given")
	}
	l.SetLimit(0)
	if !l.TryAcquire() || l.Full() {
		t.Error("without a limit a lease was refused")
	}
}

// TestTotalIsExact has loads join and leave while leases come and go.
func TestTotalIsExact(t *testing.T) {
	var total Total
	loads := make([]Load, 4)
	var users, writer sync.WaitGroup
	var done atomic.Bool
	for range 4 {
		users.Go(func() {
			for i := 0; !done.Load(); i++ {
				l := &loads[i%len(loads)]
				l.Acquire()
				l.Release()
			}
		})
	}
	writer.Go(func() {
		for i := range 4000 {
			l := &loads[i%len(loads)]
			total.Join(l)
			total.Join(l)
			if i%3 == 0 {
				total.Leave(l)
			}
		}
	})
	writer.Wait()
	done.Store(true)
	users.Wait()
	if n := total.Leases(); n != 0 {
		t.Errorf("without leases the total is %d", n)
	}
	loads[0].Acquire()
	total.Join(&loads[0])
	loads[0].Acquire()
	if n := total.Leases(); n != 2 {
		t.Errorf("the total is %d, want the lease held before and the one after joining", n)
	}
	total.Leave(&loads[0])
	total.Leave(&loads[0])
	if n := total.Leases(); n != 0 || loads[0].Leases() != 2 {
		t.Errorf("after leaving, the total is %d and the load %d", n, loads[0].Leases())
	}
	wantPanic(t, func() { new(Total).Join(&loads[0]) })
}

func TestShare(t *testing.T) {
	var l Load
	if l.Share() != 1 {
		t.Errorf("the share of a new load is %v", l.Share())
	}
	for share, want := range map[float64]float64{0.5: 0.5, 1: 1, 2: 1, 0: 1.0 / 256, -1: 1.0 / 256} {
		l.SetShare(max(share, 0))
		if l.Share() != want {
			t.Errorf("SetShare(%v) makes %v, want %v", share, l.Share(), want)
		}
	}
}
