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
	}{{l.acquire, 1}, {l.acquire, 2}, {l.Leases, 2}, {l.Release, 1}, {l.Release, 0}, {l.Leases, 0}} {
		if got := step.do(); got != step.want {
			t.Errorf("step %d = %d, want %d", i, got, step.want)
		}
	}
}

func TestLoadBelowZeroPanics(t *testing.T) {
	wantPanic(t, func() { new(Load).Release() })
}

// TestTryAcquireHoldsTheLimit has many goroutines compete for few leases: never more are held than there may be, and
// while there is room somebody gets in.
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
		t.Errorf("at the end %d leases, at most %d of %d at once, %d acquired", l.Leases(), most.Load(), limit,
			got.Load())
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
				l.acquire()
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
	loads[0].acquire()
	total.Join(&loads[0])
	loads[0].acquire()
	if n := total.Leases(); n != 2 {
		t.Errorf("the total is %d, want the lease held before and the one after joining", n)
	}
	total.Leave(&loads[0])
	total.Leave(&loads[0])
	if n := total.Leases(); n != 0 || loads[0].Leases() != 2 {
		t.Errorf("after leaving, the total is %d and the load %d", n, loads[0].Leases())
	}
}

// TestTotalsChangeOver moves loads between two totals while leases are taken and given back: both stay exact, also
// while a load is in both.
func TestTotalsChangeOver(t *testing.T) {
	var totals [2]Total
	loads := make([]Load, 3)
	var users, writer sync.WaitGroup
	var done atomic.Bool
	for i := range 4 {
		users.Go(func() {
			for !done.Load() {
				l := &loads[i%len(loads)]
				l.acquire()
				l.acquire()
				l.Release()
				l.Release()
			}
		})
	}
	writer.Go(func() {
		for i := range 4000 {
			l := &loads[i%len(loads)]
			totals[i/len(loads)%2].Join(l)
			totals[1-i/len(loads)%2].Leave(l)
		}
	})
	writer.Wait()
	done.Store(true)
	users.Wait()
	for i := range totals {
		if n := totals[i].Leases(); n != 0 {
			t.Errorf("without leases total %d is %d", i, n)
		}
	}
	l := &loads[0]
	totals[0].Leave(l)
	totals[1].Leave(l)
	l.acquire()
	totals[1].Join(l)
	totals[0].Join(l)
	l.SetLimit(2)
	if !l.TryAcquire() || l.TryAcquire() || l.Leases() != 2 || !l.Full() {
		t.Errorf("in two totals, of a limit of 2 there are %d leases", l.Leases())
	}
	totals[1].Leave(l)
	if l.Release() != 1 || totals[0].Leases() != 1 || totals[1].Leases() != 0 {
		t.Errorf("after the change the totals are %d and %d, want 1 and 0", totals[0].Leases(), totals[1].Leases())
	}
	new(Total).Leave(l)
	wantPanic(t, func() { new(Total).Join(l) })
	l.Release()
	wantPanic(t, func() { l.Release() })
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
