package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A cast is targets that play roles, which a test changes; a target without one does not answer.
type cast struct {
	mu    sync.Mutex
	roles map[string]Result
}

func (c *cast) play(id string, r Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roles[id] = r
}

func (c *cast) Check(_ context.Context, t Target) (Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r := c.roles[t.ID]; r.Role {
	case RolePrimary:
		return r, nil
	case RoleReplica:
		return r, fmt.Errorf("is a replica: %w", ErrWrongRole)
	}
	return Result{}, errors.New("no answer")
}

// A stage is a scheduler over a cast, with a fence, and what was reported.
type stage struct {
	cast     cast
	mu       sync.Mutex
	verdicts map[string]Verdict
	both     bool // two were healthy at once
	rivals   []Rivalry
	fence    *Fence
}

func newStage(t *testing.T, ids ...string) (*stage, func()) {
	st := &stage{cast: cast{roles: make(map[string]Result)}, verdicts: make(map[string]Verdict)}
	s := NewScheduler(Options{Report: func(changes []Change) {
		st.mu.Lock()
		defer st.mu.Unlock()
		for _, c := range changes {
			st.verdicts[c.Target.ID] = c.To
		}
		var healthy int
		for _, v := range st.verdicts {
			if v == Healthy {
				healthy++
			}
		}
		st.both = st.both || healthy > 1
	}})
	st.fence = NewFence(s, func(r Rivalry) {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.rivals = append(st.rivals, r)
	})
	for _, id := range ids {
		must(t, s.Add(target(id), st.fence.Wrap(&st.cast), usual))
	}
	return st, run(t, s)
}

// want holds the verdicts, and that there were never two healthy at once.
func (st *stage) want(t *testing.T, what string, verdicts map[string]Verdict) {
	t.Helper()
	st.mu.Lock()
	defer st.mu.Unlock()
	for id, v := range verdicts {
		if st.verdicts[id] != v {
			t.Errorf("%s: %s is %v, want %v", what, id, st.verdicts[id], v)
		}
	}
	if st.both {
		t.Errorf("%s: two were healthy at once", what)
	}
}

func primaryOf(epoch uint64) Result { return Result{Role: RolePrimary, Epoch: epoch} }

// TestFenceFailover plays a failover: the primary hangs, its replica is promoted, and the old one comes back as if nothing had
// happened.
func TestFenceFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newStage(t, "a", "b")
		defer stop()
		st.cast.play("a", primaryOf(1))
		st.cast.play("b", Result{Role: RoleReplica})
		later(20 * time.Second)
		st.want(t, "at first", map[string]Verdict{"a": Healthy, "b": WrongRole})
		st.cast.play("a", Result{})
		st.cast.play("b", primaryOf(2))
		later(20 * time.Second)
		st.want(t, "after the failover", map[string]Verdict{"a": Unhealthy, "b": Healthy})
		st.cast.play("a", primaryOf(1))
		later(20 * time.Second)
		st.want(t, "with the old one back", map[string]Verdict{"a": WrongRole, "b": Healthy})
		if len(st.rivals) != 1 || st.rivals[0].Rival != "a" || st.rivals[0].Primary != "b" || st.rivals[0].Count != 1 {
			t.Errorf("told of %+v, want the one rival once", st.rivals)
		}
		if n, primary := st.fence.Count(), st.fence.Primary(); n != 1 || primary != "b" {
			t.Errorf("%d rivalries, and the primary is %q; want 1 and b", n, primary)
		}
		_, err := st.fence.Wrap(&st.cast).Check(t.Context(), target("a"))
		failsWith(t, err, "claims to be the primary, as b does, which was promoted later", ErrWrongRole)
		st.cast.play("a", Result{Role: RoleReplica})
		later(20 * time.Second)
		st.cast.play("a", primaryOf(3)) // a planned switch
		later(20 * time.Second)
		st.want(t, "after the switch back", map[string]Verdict{"a": Healthy, "b": WrongRole})
	})
}

// TestFenceDeposesAtOnce holds that a primary which is still healthy loses its verdict when a later promotion shows up, not
// after the failures that it takes otherwise.
func TestFenceDeposesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newStage(t, "a", "b")
		defer stop()
		st.cast.play("a", primaryOf(1))
		st.cast.play("b", Result{Role: RoleReplica})
		later(20 * time.Second)
		st.cast.play("b", primaryOf(2)) // and a does not know yet
		later(usual.Interval + time.Millisecond)
		st.want(t, "one interval later", map[string]Verdict{"a": WrongRole})
		later(2 * usual.Interval)
		st.want(t, "three intervals later", map[string]Verdict{"a": WrongRole, "b": Healthy})
	})
}

// TestFenceForgetsTheRemoved has a primary that is removed just when its check ends: its claim must not keep others out for ever.
func TestFenceForgetsTheRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler(Options{Report: func([]Change) {}})
		f := NewFence(s, func(r Rivalry) { t.Errorf("told of %+v", r) })
		leave := func() {}
		leaving := f.Wrap(checkerFunc(func(_ context.Context, to Target) (Result, error) {
			leave()
			return primaryOf(1), nil
		}))
		for _, id := range []string{"a", "b"} {
			must(t, s.Add(target(id), leaving, usual))
		}
		for _, id := range []string{"a", "b"} {
			leave = func() { s.Remove(id); f.Forget(id) }
			_, err := leaving.Check(t.Context(), target(id)) // as one that Run began
			must(t, err)
			if primary := f.Primary(); primary != "" {
				t.Errorf("the primary is %q, which is removed", primary)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		must(t, s.Add(target("c"), leaving, usual))
		leave = cancel
		_, err := leaving.Check(ctx, target("c"))
		must(t, err)
		if primary := f.Primary(); primary != "" {
			t.Errorf("a check that was cancelled makes %q the primary", primary)
		}
	})
}

// TestFenceRanks holds which claim is the better one.
func TestFenceRanks(t *testing.T) {
	claim := func(epoch, offset uint64, replicas int) Result {
		return Result{Role: RolePrimary, Epoch: epoch, Offset: offset, Replicas: replicas}
	}
	for _, tt := range []struct {
		challenger, incumbent Result
		want                  bool
		why                   string
	}{
		{claim(2, 0, 0), claim(1, 9, 9), true, "was promoted later"},
		{claim(1, 9, 9), claim(2, 0, 0), false, "was promoted later"},
		{claim(0, 5, 1), claim(0, 9, 0), true, "has replicas"},
		{claim(0, 9, 0), claim(0, 5, 1), false, "has replicas"},
		{claim(0, 9, 1), claim(0, 5, 2), true, "has written more"},
		{claim(0, 9, 0), claim(0, 5, 0), false, "was it before"},
		{claim(3, 5, 1), claim(3, 5, 1), false, "was it before"},
	} {
		if got, why := outranks(tt.challenger, tt.incumbent); got != tt.want || why != tt.why {
			t.Errorf("%+v against %+v: %v, %q; want %v, %q", tt.challenger, tt.incumbent, got, why, tt.want, tt.why)
		}
	}
}

// TestFenceUnderRandomRoles plays an hour of three targets that claim, fail and follow as they like, with epochs that go up: at
// no moment are two healthy.
func TestFenceUnderRandomRoles(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			st, stop := newStage(t, "a", "b", "c")
			defer stop()
			epoch := uint64(1)
			for range 400 {
				id := string(rune('a' + r.IntN(3)))
				switch r.IntN(4) {
				case 0:
					st.cast.play(id, Result{})
				case 1:
					st.cast.play(id, Result{Role: RoleReplica})
				case 2:
					epoch++
					st.cast.play(id, primaryOf(epoch))
				case 3:
					st.cast.play(id, primaryOf(epoch)) // perhaps of the same timeline as another: split brain
				}
				later(time.Duration(r.IntN(9000)) * time.Millisecond)
				st.want(t, fmt.Sprint("seed ", seed), nil)
			}
		})
	}
}
