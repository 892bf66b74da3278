package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := 0
		f := newFake(func(ctx context.Context, _ int) error {
			<-ctx.Done()
			ended++
			return ctx.Err()
		})
		var j journal
		s := NewScheduler(Options{Concurrency: 1, Report: j.report})
		p := usual
		p.Fall = 1
		for _, id := range []string{"before", "running", "waiting"} {
			must(t, s.Add(target(id), f, p))
		}
		if !s.Remove("before") || s.Remove("before") || s.Remove("never") {
			t.Error("Remove must report whether there was such a target")
		}
		start := time.Now()
		defer run(t, s)()
		later(500 * time.Millisecond)
		if !s.Remove("waiting") || !s.Remove("running") {
			t.Error("Remove does not find the targets it has")
		}
		synctest.Wait()
		if ended != 1 {
			t.Errorf("%d checks ended by their removal, want 1", ended)
		}
		later(time.Minute)
		wantLines(t, j.take(start))
		for id, want := range map[string]int{"before": 0, "running": 1, "waiting": 0} {
			if got := f.of(id, start); len(got) != want {
				t.Errorf("%s was checked at %v, want %d checks", id, got, want)
			}
		}
		checkInvariants(t, s)
	})
}

// TestRemoveOfAHangingCheck removes a target whose check has not ended at its deadline; later the check fails.
func TestRemoveOfAHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(context.Context, int) error {
			time.Sleep(time.Minute)
			return errSick
		})
		var j journal
		s := NewScheduler(Options{Report: j.report})
		p := usual
		p.Fall = 1
		must(t, s.Add(target("a"), f, p))
		start := time.Now()
		defer run(t, s)()
		later(10 * time.Second)
		s.Remove("a")
		later(time.Hour)
		wantLines(t, j.take(start))
		if got := f.of("a", start); len(got) != 1 {
			t.Errorf("checks were at %v, want none after the removal", got)
		}
		checkInvariants(t, s)
	})
}

func TestAddAgainBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(succeed)
		var j journal
		s := NewScheduler(Options{Report: j.report})
		must(t, s.Add(target("a"), f, usual))
		if err := s.Add(target("a"), f, usual); !errors.Is(err, ErrDuplicateTarget) {
			t.Errorf("second Add: error %v, want ErrDuplicateTarget", err)
		}
		start := time.Now()
		defer run(t, s)()
		later(400 * time.Millisecond)
		s.Remove("a")
		must(t, s.Add(target("a"), f, usual))
		later(time.Second)
		wantLines(t, j.take(start), "a: unknown to healthy (check succeeded) at 900ms")
	})
}

func TestReportMayChangeTheTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(succeed)
		var j journal
		var s *Scheduler
		s = NewScheduler(Options{Report: func(changes []Change) {
			j.report(changes)
			if s.Remove("a") {
				must(t, s.Add(target("b"), f, usual))
			}
		}})
		must(t, s.Add(target("a"), f, usual))
		start := time.Now()
		defer run(t, s)()
		later(10 * time.Second)
		wantLines(t, j.take(start),
			"a: unknown to healthy (check succeeded) at 500ms",
			"b: unknown to healthy (check succeeded) at 1s")
	})
}

// TestManyTargets lets 10,000 targets be checked for 10 seconds.
func TestManyTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(context.Context, int) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		})
		const targets = 10_000
		var j journal
		s := NewScheduler(Options{Concurrency: 200, Report: j.report})
		p := usual
		p.Rise, p.Jitter = 1, 0.1
		for i := range targets {
			must(t, s.Add(target(fmt.Sprint(i)), f, p))
		}
		start := time.Now()
		defer run(t, s)()
		later(10*time.Second + 50*time.Millisecond)
		if n := len(j.take(start)); n != targets {
			t.Errorf("%d reports, want one of each of %d targets", n, targets)
		}
		if f.most > 100 { // 50 on average, with a standard deviation of 7; a burst would take all the slots
			t.Errorf("%d checks ran at once, want them spread", f.most)
		}
		for i := range targets {
			if n := len(f.of(fmt.Sprint(i), start)); n < 4 || n > 6 {
				t.Fatalf("target %d was checked %d times in 10 s, want about 5", i, n)
			}
		}
		checkInvariants(t, s)
	})
}

// TestTargetsComeAndGo adds and removes targets from several goroutines while all kinds of checks run.
func TestTargetsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(ctx context.Context, n int) error {
			time.Sleep(time.Duration(rand.IntN(700)) * time.Millisecond)
			switch n % 7 {
			case 1, 2, 3:
				return errSick
			case 4:
				<-ctx.Done()
			}
			return ctx.Err()
		})
		last := make(map[string]Verdict)
		s := NewScheduler(Options{Concurrency: 3, Report: func(changes []Change) {
			for _, c := range changes {
				if c.From == c.To {
					t.Errorf("report of no change: %+v", c)
				}
				last[c.Target.ID] = c.To
			}
		}})
		stop := run(t, s)
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for range 200 {
					id := fmt.Sprintf("%d/%d", w, rand.IntN(5))
					if !s.Remove(id) {
						if err := s.Add(target(id), f, usual); err != nil {
							t.Error(err)
						}
					}
					time.Sleep(time.Duration(rand.IntN(3000)) * time.Millisecond)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		checkInvariants(t, s)
		stop()
		if len(last) < 10 {
			t.Errorf("only %d targets ever changed", len(last))
		}
		if f.most > 3 {
			t.Errorf("%d checks ran at once, want at most 3", f.most)
		}
	})
}

// checkInvariants fails the test unless the invariants of Scheduler hold.
func checkInvariants(t *testing.T, s *Scheduler) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	inReady := make(map[*job]bool)
	for _, g := range s.groups {
		for kind := range g.lanes {
			for i := range g.lanes[kind] {
				checkLane(t, &s.slots[kind], &g.lanes[kind][i], inReady)
			}
		}
	}
	count := 0
	for id, v := range s.views {
		j := v.job
		if j.state == running && j.views[0] == v {
			count++
		}
		if !slices.Contains(j.views, v) || v.subject() != j.subject || j.subject == (subject{}) && len(j.views) > 1 ||
			j.subject != (subject{}) && s.shared[j.subject] != j {
			t.Errorf("%s is one of %d views of a job about %+v", id, len(j.views), j.subject)
		}
		if j.state == removed || v.target.ID != id || (j.state == waiting) != inReady[j] {
			t.Errorf("%s is job %s in state %d, ready: %v", id, j.target.ID, j.state, inReady[j])
		}
		if _, must := j.wakeAt(); must != (j.index >= 0) {
			t.Errorf("%s in state %d has index %d in the queue", id, j.state, j.index)
		}
	}
	taken := 0
	for kind := range s.slots {
		all := &s.slots[kind]
		taken += all.running
		sum, hanging := 0, 0
		for _, g := range s.groups {
			sum += g.lanes[kind][0].running + g.lanes[kind][1].running
			hanging += g.lanes[kind][1].running
		}
		if sum != all.running || hanging != all.hanging || all.running > all.max || hanging > all.maxHanging() {
			t.Errorf("slots of kind %d: %d of %d taken, %d of them by targets that hang; the lanes have %d and %d",
				kind, all.running, all.max, all.hanging, sum, hanging)
		}
	}
	if count > taken {
		t.Errorf("%d jobs run in %d slots", count, taken)
	}
	for of, j := range s.shared {
		if j.subject != of || j.state == removed || len(j.views) == 0 {
			t.Errorf("a job in state %d with %d views is shared", j.state, len(j.views))
		}
	}
	for i, j := range s.queue {
		at, must := j.wakeAt()
		if s.views[j.target.ID].job != j || j.index != i || !must || !at.Equal(j.at) {
			t.Errorf("place %d of the queue has %s, of index %d", i, j.target.ID, j.index)
		}
		if parent := (i - 1) / 2; s.queue.Less(i, parent) {
			t.Errorf("place %d of the queue is earlier than its parent %d", i, parent)
		}
	}
}

// checkLane fails the test unless the invariants of a lane hold. It adds the jobs that wait in it to inReady.
func checkLane(t *testing.T, s *slots, l *lane, inReady map[*job]bool) {
	t.Helper()
	for _, j := range l.ready {
		inReady[j] = true
		if j.state != waiting && j.state != removed {
			t.Errorf("%s is ready in state %d", j.target.ID, j.state)
		}
	}
	listed := 0
	for _, other := range s.waiting {
		if other == l {
			listed++
		}
	}
	if l.running < 0 || l.queued != (listed == 1) || listed > 1 || len(l.ready) > 0 && !l.queued {
		t.Errorf("a lane with %d ready and %d running is %d times among those that wait, queued: %v", len(l.ready),
			l.running, listed, l.queued)
	}
}
