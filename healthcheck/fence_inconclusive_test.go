package healthcheck

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestFenceIsNotMovedByOurOwnWant makes the checks of two primaries inconclusive for a minute. No claim lapses, and the
// rival is not reported again.
func TestFenceIsNotMovedByOurOwnWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fence *Fence
		var j journal
		rivals := 0
		var blind atomic.Bool
		s := NewScheduler(Options{Report: j.report})
		fence = NewFence(s, func(Rivalry) { rivals++ })
		c := fence.Wrap(checkerFunc(func(_ context.Context, to Target) (Result, error) {
			switch {
			case blind.Load():
				return Result{}, errors.Join(errors.New("no descriptor"), ErrInconclusive)
			case to.ID == "a":
				return primaryOf(2), nil
			}
			return primaryOf(1), nil
		}))
		must(t, s.Add(target("a"), c, usual))
		must(t, s.Add(target("b"), c, usual))
		start := time.Now()
		defer run(t, s)()
		later(10 * time.Second)
		j.take(start)
		blind.Store(true)
		later(time.Minute)
		blind.Store(false)
		later(time.Minute)
		wantLines(t, j.take(start))
		if rivals != 1 || fence.Primary() != "a" {
			t.Errorf("%d rivalries were reported, and the primary is %q; want 1 and a", rivals, fence.Primary())
		}
	})
}
