package healthcheck

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// lazy is a policy that checks now and then, without jitter.
var lazy = Policy{Interval: time.Minute, FastInterval: time.Second, Timeout: time.Second, Rise: 1, Fall: 2}

// TestCheckSoon: after a hint the target is checked at once. If that check fails, checks follow in fast intervals until
// the verdict has changed; otherwise they keep to the interval.
func TestCheckSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(_ context.Context, n int) error {
			if n > 1 {
				return errSick
			}
			return nil
		})
		var j journal
		s := NewScheduler(Options{Report: j.report})
		must(t, s.Add(target("a"), f, lazy))
		must(t, s.Add(target("b"), f, lazy))
		start := time.Now()
		defer run(t, s)()
		later(30 * time.Second)
		if !s.CheckSoon("a") {
			t.Error("a target is not known")
		}
		later(10 * time.Second)
		s.CheckSoon("a")
		later(40 * time.Second)
		if got, want := f.of("a", start), seconds(0, 30, 40, 41); !slices.Equal(got, want) {
			t.Errorf("a was checked at %v, want %v", got, want)
		}
		if got := f.of("b", start); len(got) != 2 || got[1].Round(time.Second) != time.Minute {
			t.Errorf("b was checked at %v", got)
		}
		wantLines(t, j.take(start)[2:], "a: healthy to unhealthy (sick) at 41s")
	})
}

// TestCheckSoonIsBounded: however many hints there are, a target is checked no more than once in a fast interval and
// never twice at the same time, and its checks are not delayed.
func TestCheckSoonIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(ctx context.Context, n int) error {
			time.Sleep(300 * time.Millisecond)
			return nil
		})
		s := NewScheduler(Options{Report: func([]Change) {}})
		must(t, s.Add(target("a"), f, lazy))
		if !s.CheckSoon("a") || s.CheckSoon("x") {
			t.Error("before Run it does not know its targets")
		}
		start := time.Now()
		defer run(t, s)()
		for range 10_000 {
			s.CheckSoon("a")
			later(time.Millisecond)
		}
		if got := f.of("a", start); len(got) != 8 || f.twice { // one in 1.3 s
			t.Errorf("in ten seconds of hints it was checked at %v, twice at once: %v", got, f.twice)
		}
		s.Remove("a")
		if s.CheckSoon("a") {
			t.Error("a removed target is known")
		}
	})
}
