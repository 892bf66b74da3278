package healthcheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A cast is a fake checker of targets that each have a role, which a test changes. A target without a role does not
// answer.
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

// A stage is a scheduler with a fence for a cast, and records what they report.
type stage struct {
	cast     cast
	mu       sync.Mutex
	verdicts map[string]Verdict
	both     bool // two were healthy at once
	rivals   []Rivalry
	fence    *Fence

	scheduler *Scheduler
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
	st.scheduler = s
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

// want fails the test unless there are these verdicts, and two targets were never healthy at the same time.
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

// TestFenceFailover: the primary hangs, its replica is promoted, and the old primary comes back and still claims to be
// it.
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
		if len(st.rivals) != 1 || st.rivals[0].Rival.ID != "a" || st.rivals[0].Primary.ID != "b" ||
			st.rivals[0].Count != 1 {
			t.Errorf("reported %+v, want the one rival once", st.rivals)
		}
		if n, primary := st.fence.Count(), st.fence.Primary(); n != 1 || primary != "b" {
			t.Errorf("%d rivalries, and the primary is %q; want 1 and b", n, primary)
		}
		_, err := st.fence.Wrap(&st.cast).Check(t.Context(), target("a"))
		wantError(t, err, "claims to be the primary, as b does, which was promoted later", ErrWrongRole)
		st.cast.play("a", Result{Role: RoleReplica})
		later(20 * time.Second)
		st.cast.play("a", primaryOf(3)) // a planned switch
		later(20 * time.Second)
		st.want(t, "after the switch back", map[string]Verdict{"a": Healthy, "b": WrongRole})
	})
}

// TestFenceDeposesAtOnce: a healthy primary loses its verdict as soon as a target with a later promotion shows up, and
// not only after Fall failures.
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

// TestFenceForgetsTheRemoved removes a primary at the moment when its check ends. Its claim must not keep other targets
// out for ever.
func TestFenceForgetsTheRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler(Options{Report: func([]Change) {}})
		f := NewFence(s, func(r Rivalry) { t.Errorf("reported %+v", r) })
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

// TestFenceRanks compares claims, each pair both ways round.
func TestFenceRanks(t *testing.T) {
	claim := func(epoch, offset uint64, replicas int) Result {
		return Result{Role: RolePrimary, Epoch: epoch, Offset: offset, Replicas: replicas}
	}
	for _, tt := range []struct {
		a, b Result
		want int
		why  string
	}{
		{claim(2, 0, 0), claim(1, 9, 9), 1, "was promoted later"},
		{claim(0, 5, 1), claim(0, 9, 0), 1, "has replicas"},
		{claim(0, 9, 1), claim(0, 5, 2), 1, "has written more"},
		{claim(0, 9, 0), claim(0, 5, 0), 1, "has written more"},
		{claim(3, 9, 0), claim(3, 5, 0), 1, "has written more"},
		{claim(3, 5, 1), claim(3, 5, 1), 0, ""},
		{claim(0, 5, 1), claim(0, 5, 2), 0, ""}, // a replica that is being moved makes no difference
	} {
		for _, turned := range []bool{false, true} {
			x, y, want := tt.a, tt.b, tt.want
			if turned {
				x, y, want = y, x, -want
			}
			if got, why := compareClaims(x, y); got != want || want != 0 && why != tt.why {
				t.Errorf("%+v against %+v: %v, %q; want %v, %q", x, y, got, why, want, tt.why)
			}
		}
	}
}

func masterOf(offset uint64) Result { return Result{Role: RolePrimary, Offset: offset} }

// TestFenceHigherOffset has two primaries without replicas. The one that has written more wins, whichever is checked
// first, and stays the primary.
func TestFenceHigherOffset(t *testing.T) {
	for _, better := range []string{"a", "b"} {
		synctest.Test(t, func(t *testing.T) {
			st, stop := newStage(t, "a", "b")
			defer stop()
			st.cast.play("a", masterOf(5))
			st.cast.play("b", masterOf(5))
			st.cast.play(better, masterOf(9))
			later(20 * time.Second)
			want := map[string]Verdict{"a": WrongRole, "b": WrongRole}
			want[better] = Healthy
			st.want(t, better+" has written more", want)
			if n := st.fence.Count(); n != 1 {
				t.Errorf("%d rivalries, want 1", n)
			}
		})
	}
}

// TestFenceComparesWhatIsNew has a busy primary whose replica is promoted by mistake, at any moment between two checks.
// The replica may then have written more than the primary had at its last check, but less than the primary has by now.
// The primary never loses its verdict.
func TestFenceComparesWhatIsNew(t *testing.T) {
	for phase := range 40 {
		synctest.Test(t, func(t *testing.T) {
			st, stop := newStage(t, "a", "b")
			defer stop()
			written := func() Result { return masterOf(uint64(time.Now().UnixMicro())) }
			st.cast.play("b", Result{Role: RoleReplica})
			for range 400 + phase {
				st.cast.play("a", written())
				later(50 * time.Millisecond)
			}
			st.want(t, "at first", map[string]Verdict{"a": Healthy})
			st.cast.play("b", written())
			lost := 0
			for range 400 {
				st.cast.play("a", written())
				later(50 * time.Millisecond)
				st.mu.Lock()
				if st.verdicts["a"] != Healthy {
					lost++
				}
				st.mu.Unlock()
			}
			if lost > 0 {
				t.Errorf("phase %d: the primary was not healthy %d times", phase, lost)
			}
			if len(st.rivals) != 1 || st.rivals[0].Rival.ID != "b" {
				t.Errorf("phase %d: reported %+v, want b once", phase, st.rivals)
			}
		})
	}
}

// TestFencesAgree has several balancers that meet the same two primaries at different moments, with equal or different
// claims. All balancers that remember the same primary, or none, choose the same one.
func TestFencesAgree(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			claims := map[string]Result{"a": masterOf(uint64(r.IntN(2))), "b": masterOf(uint64(r.IntN(2)))}
			remembered := []string{"", "a", "b"}[r.IntN(3)]
			primaries := make(map[string]int)
			for range 3 {
				st, stop := newStage(t)
				st.fence.Remember(target(remembered))
				ids := []string{"a", "b"}
				r.Shuffle(2, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
				p := usual
				p.Rise, p.Jitter = 1+r.IntN(3), 0.5
				for _, id := range ids {
					st.cast.play(id, claims[id])
					must(t, st.scheduler.Add(target(id), st.fence.Wrap(&st.cast), p))
				}
				later(20 * time.Second)
				st.want(t, fmt.Sprint("seed ", seed), nil)
				primaries[st.fence.Primary()]++
				want := cmp.Or(remembered, "a")
				if claims["a"].Offset != claims["b"].Offset {
					want = "a"
					if claims["b"].Offset > 0 {
						want = "b"
					}
				}
				if got := st.fence.Primary(); got != want || st.verdicts[want] != Healthy ||
					st.fence.Remembered().ID != want {
					t.Errorf("seed %d: the primary is %s (%v), remembered is %s, want %s", seed, got, st.verdicts,
						st.fence.Remembered().ID, want)
				}
				stop()
			}
			if len(primaries) != 1 {
				t.Errorf("seed %d: primaries are %v", seed, primaries)
			}
		})
	}
}

// TestFenceRemembers gives a fence a primary to remember. It remembers that target until a check finds that it is no
// longer the primary; then it remembers the successor.
func TestFenceRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newStage(t, "a", "b")
		defer stop()
		st.fence.Remember(target("b"))
		if got := st.fence.Remembered().ID; got != "b" {
			t.Errorf("remembers %q at first", got)
		}
		st.cast.play("a", masterOf(1))
		later(20 * time.Second)
		st.want(t, "b is gone", map[string]Verdict{"a": Healthy, "b": Unhealthy})
		if got := st.fence.Remembered().ID; got != "a" {
			t.Errorf("remembers %q, want a", got)
		}
		st.cast.play("b", masterOf(1))
		later(20 * time.Second)
		st.want(t, "b is back", map[string]Verdict{"a": Healthy, "b": WrongRole})
		st.scheduler.Remove("a")
		st.fence.Forget("a")
		later(20 * time.Second)
		if got := st.fence.Remembered().ID; got != "b" {
			t.Errorf("remembers %q, want b", got)
		}
	})
}

// TestFenceUnderRandomRoles lets three targets claim, fail and follow at random for an hour, with increasing epochs.
// Two are never healthy at the same time.
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
