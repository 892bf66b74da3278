package healthcheck

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// called returns a target with a name.
func called(id string) Target {
	t := target(id)
	t.Name = id
	return t
}

// TestAppointedAtOnce shows that the primary changes with the authority's word, and that the new one serves with its
// first good check, without waiting for an interval.
func TestAppointedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newStage(t, "a", "b")
		defer stop()
		st.cast.play("a", primaryOf(1))
		st.cast.play("b", Result{Role: RoleReplica})
		st.fence.Appoint("patroni", called("a"))
		time.Sleep(time.Minute)
		st.want(t, "before", map[string]Verdict{"a": Healthy, "b": WrongRole})

		st.fence.Appoint("patroni", called("b"))
		synctest.Wait()
		st.want(t, "appointed, and not promoted yet", map[string]Verdict{"a": WrongRole, "b": WrongRole})
		time.Sleep(300 * time.Millisecond)
		st.cast.play("b", primaryOf(2))
		time.Sleep(closeEvery)
		synctest.Wait()
		st.want(t, "promoted", map[string]Verdict{"a": WrongRole, "b": Healthy})

		// The old one still claims to be the primary. The new one fails a check: that alone changes nothing.
		st.cast.play("b", Result{})
		time.Sleep(usual.Interval)
		st.cast.play("b", primaryOf(2))
		time.Sleep(time.Minute)
		st.want(t, "later", map[string]Verdict{"a": WrongRole, "b": Healthy})
		if st.both {
			t.Error("two primaries were healthy at once")
		}
	})
}

// TestNobodyAppointed shows that no target serves while the authority names none, that a target which is not named
// never serves, and that the checks decide alone when the authority is gone.
func TestNobodyAppointed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newStage(t, "a", "b")
		defer stop()
		st.cast.play("a", primaryOf(1))
		st.cast.play("b", Result{Role: RoleReplica})
		st.fence.Appoint("patroni", Target{})
		time.Sleep(time.Minute)
		st.want(t, "nobody", map[string]Verdict{"a": WrongRole, "b": WrongRole})
		st.fence.Appoint("patroni", called("b"))
		time.Sleep(time.Minute)
		st.want(t, "one that is no primary", map[string]Verdict{"a": WrongRole, "b": WrongRole})
		st.fence.Dismiss()
		time.Sleep(time.Minute)
		st.want(t, "no authority", map[string]Verdict{"a": Healthy, "b": WrongRole})
		st.fence.Appoint("patroni", Target{})
		synctest.Wait()
		st.want(t, "nobody again", map[string]Verdict{"a": Unknown, "b": WrongRole})
		time.Sleep(10 * time.Second)
		st.want(t, "nobody for a while", map[string]Verdict{"a": Unknown, "b": WrongRole})
		st.fence.Appoint("patroni", called("a"))
		time.Sleep(closeEvery)
		synctest.Wait()
		st.want(t, "the same again", map[string]Verdict{"a": Healthy, "b": WrongRole})
	})
}

// TestSuspended shows what ends the suspension of a primary while nobody is appointed: another one is, it fails, it
// follows, or another one claims that was promoted later.
func TestSuspended(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(st *stage)
		want map[string]Verdict
	}{
		"another one is appointed": {
			func(st *stage) { st.fence.Appoint("patroni", called("b")) }, map[string]Verdict{"a": WrongRole, "b": WrongRole},
		},
		"it fails": {
			func(st *stage) { st.cast.play("a", Result{}) }, map[string]Verdict{"a": Unhealthy, "b": WrongRole},
		},
		"it follows": {
			func(st *stage) { st.cast.play("a", Result{Role: RoleReplica}) },
			map[string]Verdict{"a": WrongRole, "b": WrongRole},
		},
		"another one was promoted later": {
			func(st *stage) { st.cast.play("b", primaryOf(2)) }, map[string]Verdict{"a": WrongRole, "b": WrongRole},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st, stop := newStage(t, "a", "b")
				defer stop()
				st.cast.play("a", primaryOf(1))
				st.cast.play("b", Result{Role: RoleReplica})
				st.fence.Appoint("patroni", called("a"))
				time.Sleep(time.Minute)
				st.fence.Appoint("patroni", Target{})
				time.Sleep(time.Second)
				st.want(t, "suspended", map[string]Verdict{"a": Unknown, "b": WrongRole})
				tc.do(st)
				time.Sleep(10 * time.Second)
				st.want(t, "afterwards", tc.want)
			})
		})
	}
}

// TestAppointedIsOldNews shows that nobody serves while a target that was promoted later than the appointed one claims
// to be the primary too: the authority's word may be from before.
func TestAppointedIsOldNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newStage(t, "a", "b")
		defer stop()
		st.cast.play("a", primaryOf(1))
		st.cast.play("b", Result{Role: RoleReplica})
		st.fence.Appoint("patroni", called("a"))
		time.Sleep(time.Minute)
		st.cast.play("b", primaryOf(2))
		time.Sleep(time.Minute)
		st.want(t, "promoted by hand", map[string]Verdict{"a": WrongRole, "b": WrongRole})
		if len(st.rivals) != 1 || !strings.Contains(st.rivals[0].Reason, "but patroni names a") {
			t.Errorf("rivalries %+v", st.rivals)
		}
		st.cast.play("b", Result{Role: RoleReplica})
		time.Sleep(time.Minute)
		st.want(t, "demoted", map[string]Verdict{"a": Healthy, "b": WrongRole})
		st.cast.play("b", primaryOf(2))
		time.Sleep(time.Minute)
		st.fence.Appoint("patroni", called("b"))
		time.Sleep(closeEvery)
		synctest.Wait()
		st.want(t, "named", map[string]Verdict{"a": WrongRole, "b": Healthy})
		if st.both {
			t.Error("two primaries were healthy at once")
		}
	})
}

// TestCloseChecksEnd shows that an appointed target that is not promoted is checked often for a while only.
func TestCloseChecksEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newStage(t, "a")
		defer stop()
		st.cast.play("a", Result{Role: RoleReplica})
		time.Sleep(time.Minute)
		checks := func() (n uint64) {
			for _, counted := range st.scheduler.Stats().Targets["a"].Checks {
				n += counted
			}
			return n
		}
		before := checks()
		st.fence.Appoint("patroni", called("a"))
		time.Sleep(closeFor)
		if n := checks() - before; n < uint64(closeFor/closeEvery)*9/10 {
			t.Errorf("%d checks while it is watched closely", n)
		}
		time.Sleep(usual.Interval)
		before = checks()
		time.Sleep(time.Minute)
		if n := checks() - before; n > uint64(time.Minute/usual.FastInterval)+1 {
			t.Errorf("%d checks in a minute afterwards", n)
		}
	})
}

// TestAppointedUnderRandomRoles lets three targets claim, fail and follow at random, and an authority appoint them at
// random. Only an appointed target is ever healthy, and none while one that was promoted later claims too.
func TestAppointedUnderRandomRoles(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 4))
			st, stop := newStage(t, "a", "b", "c")
			defer stop()
			st.fence.Appoint("patroni", Target{})
			epoch, named := uint64(1), ""
			for range 300 {
				id := string(rune('a' + r.IntN(3)))
				switch r.IntN(5) {
				case 0:
					st.cast.play(id, Result{})
				case 1:
					st.cast.play(id, Result{Role: RoleReplica})
				case 2:
					epoch++
					st.cast.play(id, primaryOf(epoch))
				case 3:
					named = id
					st.fence.Appoint("patroni", called(id))
				case 4:
					named = ""
					st.fence.Appoint("patroni", Target{})
				}
				synctest.Wait()
				st.want(t, fmt.Sprint("seed ", seed), nil)
				st.mu.Lock()
				for id, v := range st.verdicts {
					if v == Healthy && id != named {
						t.Errorf("seed %d: %s is healthy, %q is named", seed, id, named)
					}
				}
				st.mu.Unlock()
				later(time.Duration(r.IntN(9000)) * time.Millisecond)
			}
		})
	}
}
