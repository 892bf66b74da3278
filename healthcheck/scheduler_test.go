package healthcheck

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestVerdictsAndTheirTimes checks one target that becomes healthy, fails once, becomes unhealthy and recovers.
func TestVerdictsAndTheirTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const script = "ss" + "fs" + "fff" + "fs" + "ss"
		f := newFake(func(_ context.Context, n int) error {
			if n < len(script) && script[n] == 'f' {
				return errSick
			}
			return nil
		})
		var j journal
		s := NewScheduler(Options{Report: j.report})
		must(t, s.Add(target("a"), f, usual))
		start := time.Now()
		defer run(t, s)()
		later(13 * time.Second)

		// unknown: fast; healthy: slow; contradicted: fast; unhealthy: slow; contradicted: fast; healthy: slow
		want := seconds(0, 0.5, 2.5, 3, 5, 5.5, 6, 8, 10, 10.5, 12.5)
		if got := f.of("a", start); !slices.Equal(got, want) {
			t.Errorf("checks were at %v, want %v", got, want)
		}
		wantLines(t, j.take(start),
			"a: unknown to healthy (check succeeded) at 500ms",
			"a: healthy to unhealthy (sick) at 6s",
			"a: unhealthy to healthy (check succeeded) at 10.5s")
	})
}

func TestInitialVerdictIsNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		s := NewScheduler(Options{Report: j.report})
		f := newFake(succeed)
		p := usual
		p.Initial = Healthy
		must(t, s.Add(target("a"), f, p))
		start := time.Now()
		defer run(t, s)()
		later(5 * time.Second)
		wantLines(t, j.take(start))
		if got, want := f.of("a", start), seconds(0, 2, 4); !slices.Equal(got, want) {
			t.Errorf("checks were at %v, want %v: nothing to settle", got, want)
		}
	})
}

func TestFirstChecksAreSpread(t *testing.T) {
	for name, tt := range map[string]struct {
		targets  int
		interval time.Duration
		want     func(i int) time.Duration
	}{
		"within the interval": {1000, 2 * time.Second, func(i int) time.Duration {
			return time.Duration(i) * 200 * time.Microsecond
		}},
		"round again": {1000, 50 * time.Millisecond, func(i int) time.Duration {
			return time.Duration(i%250) * 200 * time.Microsecond
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(succeed)
				s := NewScheduler(Options{Report: func([]Change) {}})
				p := Policy{Interval: tt.interval, Timeout: time.Second, Rise: 1, Fall: 1}
				for i := range tt.targets {
					must(t, s.Add(target(fmt.Sprint(i)), f, p))
					time.Sleep(time.Second) // long before Run, and that must not matter
				}
				start := time.Now()
				defer run(t, s)()
				later(tt.interval)
				for i := range tt.targets {
					if got := f.of(fmt.Sprint(i), start); len(got) == 0 || got[0] != tt.want(i) {
						t.Fatalf("target %d was checked at %v, want first at %v", i, got, tt.want(i))
					}
				}
			})
		})
	}
}

func TestAddWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(succeed)
		s := NewScheduler(Options{Report: func([]Change) {}})
		defer run(t, s)()
		later(time.Hour)
		start := time.Now()
		for i := range 3 {
			must(t, s.Add(target(fmt.Sprint(i)), f, usual))
		}
		later(100 * time.Millisecond)
		for i := range 3 {
			want := []time.Duration{time.Duration(i) * firstCheckSpacing}
			if got := f.of(fmt.Sprint(i), start); !slices.Equal(got, want) {
				t.Errorf("target %d was checked at %v, want %v", i, got, want)
			}
		}
	})
}

func TestJitter(t *testing.T) {
	for random, want := range map[float64]time.Duration{
		0: 1800 * time.Millisecond, 0.5: 2 * time.Second, 0.75: 2100 * time.Millisecond,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(succeed)
			p := usual
			p.Initial, p.Jitter = Healthy, 0.1
			s := NewScheduler(Options{Report: func([]Change) {}, Random: func() float64 { return random }})
			must(t, s.Add(target("a"), f, p))
			start := time.Now()
			defer run(t, s)()
			later(5 * time.Second)
			if got, want := f.of("a", start), []time.Duration{0, want, 2 * want}; !slices.Equal(got, want) {
				t.Errorf("random %v: checks at %v, want %v", random, got, want)
			}
		})
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(context.Context, int) error {
			time.Sleep(100 * time.Millisecond)
			return nil
		})
		// one group may hold twice the free slots: with 3 free, its fifth check may begin
		const targets, slots, ofOneGroup = 100, 7, 5
		s := NewScheduler(Options{Concurrency: slots, Report: func([]Change) {}})
		for i := range targets {
			must(t, s.Add(target(fmt.Sprint(i)), f, usual))
		}
		start := time.Now()
		defer run(t, s)()
		later(3950 * time.Millisecond) // 5 slots make 50 checks a second: the last second one begins at 3.9 s
		if f.most != ofOneGroup {
			t.Errorf("%d checks ran at once, want %d", f.most, ofOneGroup)
		}
		if f.twice {
			t.Error("a target was checked twice at once")
		}
		for i := range targets {
			if n := len(f.of(fmt.Sprint(i), start)); n != 2 {
				t.Errorf("target %d had %d checks, want 2: all get their turn", i, n)
			}
		}
	})
}

func TestTimeoutIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		})
		var j journal
		s := NewScheduler(Options{Report: j.report})
		must(t, s.Add(target("a"), f, usual))
		start := time.Now()
		defer run(t, s)()
		later(4500 * time.Millisecond)
		// a check takes longer than the fast interval, so the next begins when it ends, until the verdict settles
		if got, want := f.of("a", start), seconds(0, 1, 2, 4); !slices.Equal(got, want) {
			t.Errorf("checks were at %v, want %v", got, want)
		}
		wantLines(t, j.take(start), "a: unknown to unhealthy (context deadline exceeded) at 3s")
	})
}

// TestHangingCheckGoesStale has a checker that breaks its contract and does not return.
func TestHangingCheckGoesStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := newFake(func(_ context.Context, n int) error {
			if n == 2 {
				<-release
			}
			return nil
		})
		var j journal
		s := NewScheduler(Options{Report: j.report})
		must(t, s.Add(target("a"), f, usual))
		start := time.Now()
		defer run(t, s)()
		later(time.Second)
		wantLines(t, j.take(start), "a: unknown to healthy (check succeeded) at 500ms")
		later(time.Minute)
		// the last result is of 0.5 s; 3 x 2 s + 1 s after that
		wantLines(t, j.take(start), "a: healthy to unknown (no result for 7s) at 7.5s")
		if got := f.of("a", start); len(got) != 3 {
			t.Errorf("checks were at %v, want no further one beside the one that hangs", got)
		}
		close(release)
		later(time.Second) // the late result counts as the first of a new row
		wantLines(t, j.take(start), "a: unknown to healthy (check succeeded) at 1m1s")
	})
}

// TestInconclusiveChecksAreNoResult has a check that is inconclusive for a minute, fails once, and then succeeds.
func TestInconclusiveChecksAreNoResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(_ context.Context, n int) error {
			switch {
			case n < 30:
				return fmt.Errorf("no descriptor: %w", ErrInconclusive)
			case n == 30:
				return errSick
			}
			return nil
		})
		var j journal
		var blind []string
		start := time.Now()
		s := NewScheduler(Options{Report: j.report, Blind: func(all []Blindness) {
			for _, b := range all {
				blind = append(blind,
					fmt.Sprintf("%s since %v: %s, over: %v, at %v", b.Target.ID, b.Since.Sub(start), b.Reason, b.Over,
						time.Since(start)))
			}
		}})
		p := usual
		p.Initial, p.StaleAfter = Healthy, 5*time.Second
		must(t, s.Add(target("a"), f, p))
		defer run(t, s)()
		later(59 * time.Second)
		wantLines(t, j.take(start)) // the verdict stays
		wantLines(t, blind, "a since 0s: no descriptor: "+ErrInconclusive.Error()+", over: false, at 6s")
		if got := s.Stats().Targets["a"]; !got.Blind || got.Verdict != Healthy ||
			got.Checks != (Counts{FoundNothingOut: 30}) {
			t.Errorf("after a minute without a result: %+v", got)
		}
		later(time.Minute)
		wantLines(t, j.take(start))
		wantLines(t, blind[1:], "a since 0s: sick, over: true, at 1m0s")
		if got := s.Stats().Targets["a"]; got.Blind {
			t.Errorf("with results again: %+v", got)
		}
	})
}

// TestAfterAStallOfARunningCheck stops the scheduler while a check runs, for longer than StaleAfter. Afterwards the
// check gets the time to end. If it hangs, the verdict becomes stale.
func TestAfterAStallOfARunningCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		takes time.Duration
		want  []string
	}{
		"that ends":  {900 * time.Millisecond, nil},
		"that hangs": {time.Hour, []string{"a: healthy to unknown (no result for 7s) at 1m1.0002s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(func(context.Context, int) error { time.Sleep(tt.takes); return nil })
				last := newFake(succeed)
				var j journal
				s := NewScheduler(Options{Report: func(changes []Change) {
					j.report(changes)
					if slices.ContainsFunc(changes, func(c Change) bool { return c.Target.ID == "last" }) {
						time.Sleep(time.Minute)
					}
				}})
				p := usual
				p.Rise, p.Initial = 1, Healthy
				must(t, s.Add(target("a"), f, p))
				p.Initial = Unknown
				must(t, s.Add(target("last"), last, p))
				start := time.Now()
				defer run(t, s)()
				later(10 * time.Millisecond)
				j.take(start)
				later(70 * time.Second)
				wantLines(t, j.take(start), tt.want...)
			})
		})
	}
}

// TestAfterAStall stops the scheduler for a minute by a report that blocks, as if its process had been stopped.
func TestAfterAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(succeed)
		var j journal
		s := NewScheduler(Options{Report: func(changes []Change) {
			j.report(changes)
			if slices.ContainsFunc(changes, func(c Change) bool { return c.Target.ID == "last" }) {
				time.Sleep(time.Minute)
			}
		}})
		p := usual
		p.Rise = 1
		for _, id := range []string{"a", "b", "last"} {
			must(t, s.Add(target(id), f, p))
		}
		start := time.Now()
		defer run(t, s)()
		later(time.Second)
		j.take(start)
		later(64 * time.Second)
		wantLines(t, j.take(start))
		woke := 60*time.Second + 2*firstCheckSpacing
		for i, id := range []string{"a", "b"} {
			want := []time.Duration{time.Duration(i) * firstCheckSpacing, woke, woke + 2*time.Second, woke +
				4*time.Second}
			if got := f.of(id, start); !slices.Equal(got, want) {
				t.Errorf("checks of %s were at %v, want %v", id, got, want)
			}
		}
	})
}

func TestRunEndsWithItsLastCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		f := newFake(func(ctx context.Context, _ int) error {
			<-ctx.Done()
			time.Sleep(time.Second) // it takes a while to stop
			ended = true
			return errSick
		})
		var j journal
		s := NewScheduler(Options{Report: j.report})
		p := usual
		p.Fall = 1
		must(t, s.Add(target("a"), f, p))
		stop := run(t, s)
		later(500 * time.Millisecond)
		stop()
		if !ended {
			t.Error("Run returned before its check")
		}
		wantLines(t, j.take(time.Now()))
		if err := s.Run(t.Context()); err != ErrRan {
			t.Errorf("second Run: error %v, want ErrRan", err)
		}
	})
}
