package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestStats follows two targets of one group and one of another through every outcome.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := []error{
			nil, errSick, os.ErrDeadlineExceeded, fmt.Errorf("is a replica: %w", ErrWrongRole),
			fmt.Errorf("late: %w", ErrLagging),
			fmt.Errorf("no descriptor: %w", ErrInconclusive),
		}
		f := newFake(func(_ context.Context, n int) error {
			time.Sleep(20 * time.Millisecond)
			return errs[n%len(errs)]
		})
		s := NewScheduler(Options{Concurrency: 7, Report: func([]Change) {}})
		p := Policy{Interval: time.Second, Timeout: time.Second, Rise: 100, Fall: 100}
		for id, group := range map[string]string{"x/1": "x", "x/2": "x", "y/1": "y"} {
			to := target(id)
			to.Group = group
			must(t, s.Add(to, f, p))
		}
		if got := s.Stats(); got.Sockets.Max != 7 || got.Targets["x/1"].Last != (Ended{}) ||
			!got.Targets["x/1"].Due.IsZero() || len(got.Groups) != 2 {
			t.Errorf("before Run: %+v", got)
		}
		start := time.Now()
		defer run(t, s)()
		later(10 * time.Millisecond)
		if got := s.Stats(); got.Sockets.Running != 3 || !got.Targets["y/1"].Running ||
			!got.Targets["y/1"].Due.IsZero() {
			t.Errorf("while all are checked: %+v", got)
		}
		later(6100 * time.Millisecond)
		s.Remove("x/2")
		later(390 * time.Millisecond)
		got := s.Stats()
		if n := got.Targets["x/1"].Checks; n != (Counts{2, 1, 1, 1, 1, 1}) {
			t.Errorf("the checks of x/1 are %v, want one of each kind, and the first again", n)
		}
		if x := got.Groups["x"]; x.Checks != (Counts{4, 2, 2, 2, 2, 2}) || x.Duration != 14*20*time.Millisecond ||
			x.Buckets[4] != 14 {
			t.Errorf("group x, of which one was removed, is %+v", x)
		}
		for id, all := range got.Targets {
			if one, known := s.Target(id); !known || one != all {
				t.Errorf("%s by itself is %+v, %v, and among all %+v", id, one, known, all)
			}
		}
		if one, known := s.Target("x/2"); known {
			t.Errorf("x/2, which was removed, is %+v", one)
		}
		y := got.Targets["y/1"]
		if y.Verdict != Unknown || y.Target.Group != "y" || y.Last.Outcome != Succeeded ||
			y.Last.Detail != "check succeeded" ||
			y.Last.Took != 20*time.Millisecond || y.Took != 7*20*time.Millisecond ||
			y.Last.At.Sub(start).Truncate(time.Millisecond) != 6020*time.Millisecond ||
			y.Due.Sub(y.Last.At) != 980*time.Millisecond || y.Running || y.Waiting {
			t.Errorf("y/1 is %+v", y)
		}
		if len(got.Targets) != 2 || got.Sockets.Running != 0 || got.Sockets.Waiting != 0 {
			t.Errorf("there are %d targets, %d running, %d waiting", len(got.Targets), got.Sockets.Running,
				got.Sockets.Waiting)
		}
	})
}

// TestStatsOfThoseThatWait has more targets than slots, so that some wait.
func TestStatsOfThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() })
		s := NewScheduler(Options{Concurrency: 2, Report: func([]Change) {}})
		for i := range 5 {
			must(t, s.Add(target(fmt.Sprint(i)), f, usual))
		}
		start := time.Now()
		defer run(t, s)()
		later(500 * time.Millisecond)
		got := s.Stats()
		if got.Sockets != (SlotStats{Max: 2, Running: 2, Waiting: 3}) || !got.Targets["4"].Waiting ||
			!got.Targets["4"].Due.Equal(start.Add(4*firstCheckSpacing)) {
			t.Errorf("%+v", got)
		}
		later(2 * time.Second)
		if n := s.Stats().Targets["0"].Checks; n[TimedOut] == 0 || n != (Counts{TimedOut: n[TimedOut]}) {
			t.Errorf("checks that took until their deadline count as %v", n)
		}
	})
}

func TestOutcomes(t *testing.T) {
	want := []string{"success", "failure", "timeout", "wrong_role", "lagging", "inconclusive", "refused", "fallback"}
	for o := range len(Counts{}) {
		if got := Outcome(o).String(); got != want[o] {
			t.Errorf("outcome %d is %q, want %q", o, got, want[o])
		}
	}
	if got := outcomes.String(); got != "outcome(8)" {
		t.Errorf("an undefined outcome is %q", got)
	}
	for _, tt := range []struct {
		err  error
		want Outcome
	}{
		{errors.Join(ErrInconclusive, context.Canceled), FoundNothingOut},
		{&fencedError{"claims to be the primary"}, FoundWrongRole},
		{&unprovenError{errRefused}, Refused},
		{context.DeadlineExceeded, TimedOut},
		{fmt.Errorf("connect timed out: %w", context.DeadlineExceeded), TimedOut},
	} {
		if got := outcomeOf(tt.err); got != tt.want {
			t.Errorf("%v is a %v, want a %v", tt.err, got, tt.want)
		}
	}
}

func TestTallyBuckets(t *testing.T) {
	bounds := DurationBounds()
	var got Tally
	for i, bound := range bounds {
		if i > 0 && bound <= bounds[i-1] {
			t.Errorf("bound %d is not above the one before", i)
		}
		got.add(Succeeded, bound)
	}
	got.add(Failed, bounds[len(bounds)-1]+1)
	want := Tally{Checks: Counts{Succeeded: uint64(len(bounds)), Failed: 1}, Duration: got.Duration}
	for i := range want.Buckets {
		want.Buckets[i] = 1
	}
	if got != want {
		t.Errorf("%+v, want one in each bucket", got)
	}
}

// BenchmarkStats measures Stats of 10,000 targets.
func BenchmarkStats(b *testing.B) {
	s := NewScheduler(Options{Report: func([]Change) {}})
	for i := range 10_000 {
		if err := s.Add(target(fmt.Sprint(i)), newFake(succeed), usual); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		_ = s.Stats()
	}
}
