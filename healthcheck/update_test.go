package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// fail is a check that finds the target sick.
func fail(context.Context, int) error { return errSick }

// TestUpdateKeepsTheVerdict updates a healthy target that has failed once of three times. With the new Fall of two, one
// more failure makes it unhealthy.
func TestUpdateKeepsTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := newFake(func(_ context.Context, n int) error {
			if n < 2 {
				return nil
			}
			return errSick
		})
		after := newFake(fail)
		var j journal
		s := NewScheduler(Options{Report: j.report})
		must(t, s.Add(target("a"), before, usual))
		start := time.Now()
		defer run(t, s)()
		later(2600 * time.Millisecond) // checks at 0, 0.5 and 2.5 s; the next is due at 3 s
		wantLines(t, j.take(start), "a: unknown to healthy (check succeeded) at 500ms")
		p := usual
		p.FastInterval, p.Fall, p.Initial = 250*time.Millisecond, 2, Unhealthy
		must(t, s.Update("a", after, p))
		synctest.Wait()
		wantLines(t, j.take(start))
		later(time.Second)
		// 0.4 s of 0.5 s were left, so 0.2 s of 0.25 s are left now
		wantLines(t, j.take(start), "a: healthy to unhealthy (sick) at 2.8s")
		if got, want := before.of("a", start), seconds(0, 0.5, 2.5); !slices.Equal(got, want) {
			t.Errorf("the checker before was called at %v, want %v", got, want)
		}
		later(2 * time.Second)
		if got, want := after.of("a", start), seconds(2.8, 4.8); !slices.Equal(got, want) {
			t.Errorf("the checker after was called at %v, want %v", got, want)
		}
		checkInvariants(t, s)
	})
}

// TestUpdateDropsTheCheckUnderWay updates a target while a check runs that would make it unhealthy.
func TestUpdateDropsTheCheckUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cancelled := 0
		before := newFake(func(ctx context.Context, n int) error {
			<-ctx.Done()
			if errors.Is(ctx.Err(), context.Canceled) {
				cancelled++
			}
			return errSick
		})
		after := newFake(succeed)
		var j journal
		s := NewScheduler(Options{Concurrency: 1, Report: j.report})
		p := usual
		p.Initial, p.Fall = Healthy, 1
		for _, id := range []string{"runs", "waits"} {
			must(t, s.Add(target(id), before, p))
		}
		start := time.Now()
		defer run(t, s)()
		later(600 * time.Millisecond)
		must(t, s.Update("waits", after, p))
		must(t, s.Update("runs", after, p))
		later(5 * time.Second)
		wantLines(t, j.take(start))
		if cancelled != 1 {
			t.Errorf("%d checks were cancelled, want the one", cancelled)
		}
		if got, want := after.of("waits", start), seconds(0.6, 2.6, 4.6); !slices.Equal(got, want) {
			t.Errorf("the one that waited was checked at %v, want %v", got, want)
		}
		if got, want := after.of("runs", start), seconds(2, 4); !slices.Equal(got, want) {
			t.Errorf("the one that ran was checked at %v, want %v", got, want)
		}
		if n := s.Stats().Targets["runs"].Checks; n != (Counts{Succeeded: 2}) {
			t.Errorf("counted %v, want no check that was dropped", n)
		}
		checkInvariants(t, s)
	})
}

func TestUpdateMistakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		s := NewScheduler(Options{Report: j.report})
		f := newFake(succeed)
		must(t, s.Add(target("a"), f, usual))
		for _, running := range []bool{false, true} {
			if running {
				defer run(t, s)()
				later(time.Second)
			}
			if err := s.Update("b", f, usual); !errors.Is(err, ErrUnknownTarget) {
				t.Errorf("Update of an unknown target: %v, want ErrUnknownTarget", err)
			}
			var invalid *InvalidPolicyError
			if err := s.Update("a", newFake(fail), Policy{}); !errors.As(err, &invalid) || invalid.Field != "interval" {
				t.Errorf("Update with an invalid policy: %v, want an *InvalidPolicyError of interval", err)
			}
		}
		later(time.Hour)
		if n := s.Stats().Targets["a"].Checks; n[Failed] != 0 || n[Succeeded] < 1000 {
			t.Errorf("counted %v, want the checker of before", n)
		}
	})
}

// TestUpdateBeforeRun: the times of the new policy apply from the start.
func TestUpdateBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler(Options{Report: func([]Change) {}})
		before, after := newFake(succeed), newFake(succeed)
		must(t, s.Add(target("a"), before, usual))
		p := usual
		p.Rise, p.Interval = 1, 5*time.Second
		must(t, s.Update("a", after, p))
		time.Sleep(time.Hour)
		start := time.Now()
		defer run(t, s)()
		later(11 * time.Second)
		if got, want := after.of("a", start), seconds(0, 5, 10); !slices.Equal(got, want) ||
			len(before.of("a", start)) > 0 {
			t.Errorf("checks were at %v, want %v, and none of the checker before", got, want)
		}
	})
}

// TestUpdateMakesNothingStale shortens the interval from an hour to a second. The verdict is then older than the new
// policy allows, and stays until the new checks have had time to confirm it.
func TestUpdateMakesNothingStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		s := NewScheduler(Options{Report: j.report})
		p := usual
		p.Interval, p.Initial = time.Hour, Healthy
		must(t, s.Add(target("a"), newFake(succeed), p))
		start := time.Now()
		defer run(t, s)()
		later(50 * time.Minute)
		p.Interval = time.Second
		must(t, s.Update("a", newFake(succeed), p))
		later(time.Minute)
		wantLines(t, j.take(start))
		hanging := make(chan struct{})
		defer close(hanging)
		must(t, s.Update("a", newFake(func(context.Context, int) error { <-hanging; return nil }), p))
		updated := time.Now()
		later(time.Minute)
		wantLines(t, j.take(updated), "a: healthy to unknown (no result for 4s) at 4s")
	})
}

// TestUpdateOfManyIsNoBurst changes the interval of 10,000 targets at the same time, to longer and shorter ones.
func TestUpdateOfManyIsNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const targets = 10_000
		f := newFake(succeed)
		s := NewScheduler(Options{Report: func([]Change) {}})
		p := usual
		p.Initial, p.Jitter = Healthy, 0.1
		for i := range targets {
			must(t, s.Add(target(fmt.Sprint(i)), f, p))
		}
		defer run(t, s)()
		later(5 * time.Second)
		for _, interval := range []time.Duration{10 * time.Second, 1 * time.Second, 4 * time.Second} {
			p.Interval = interval
			updated := time.Now()
			for i := range targets {
				must(t, s.Update(fmt.Sprint(i), f, p))
			}
			later(3 * interval / 2)
			perTenth := make([]int, 16)
			for i := range targets {
				starts := f.of(fmt.Sprint(i), updated)
				first := slices.IndexFunc(starts, func(d time.Duration) bool { return d >= 0 })
				if first < 0 || starts[first] > 6*interval/5 {
					t.Fatalf("interval %v: target %d was not checked within it", interval, i)
				}
				for _, d := range starts[first:] {
					perTenth[10*d/interval]++
				}
			}
			for tenth, n := range perTenth[:15] {
				if n > targets/10*3/2 {
					t.Errorf("interval %v: %d checks in its tenth number %d, want about %d: %v", interval, n, tenth,
						targets/10, perTenth)
				}
			}
		}
		checkInvariants(t, s)
	})
}

// TestUpdatesAtRandom updates, removes and adds targets while checks of all kinds run.
func TestUpdatesAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		checks := newFake(func(ctx context.Context, n int) error {
			switch n % 5 {
			case 1:
				return errSick
			case 2:
				<-ctx.Done()
			case 3:
				return ErrInconclusive
			}
			return ctx.Err()
		})
		s := NewScheduler(Options{Concurrency: 3, Report: func([]Change) {}})
		stop := run(t, s)
		for range 2000 {
			id := fmt.Sprint(r.IntN(20))
			p := usual
			p.Interval = time.Duration(1+r.IntN(4)) * time.Second
			if err := s.Update(id, checks, p); errors.Is(err, ErrUnknownTarget) {
				must(t, s.Add(target(id), checks, p))
			} else if r.IntN(10) == 0 {
				s.Remove(id)
			}
			later(time.Duration(r.IntN(300)) * time.Millisecond)
			checkInvariants(t, s)
		}
		stop()
		if checks.twice || checks.most > 3 {
			t.Errorf("a target was checked twice at once: %v; %d checks at once", checks.twice, checks.most)
		}
	})
}
