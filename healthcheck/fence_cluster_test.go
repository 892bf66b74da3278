package healthcheck

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// member returns what a member of a cluster says that takes writes, as all members do.
func member(written uint64) Result {
	return Result{Role: RolePrimary, Offset: written, Cluster: "one"}
}

// newCluster returns a stage with members of one cluster, which have the addresses 127.0.0.1, .2 and so on.
func newCluster(t *testing.T, ids ...string) (*stage, func()) {
	st, stop := newStage(t)
	for i, id := range ids {
		to := target(id)
		to.Addr = netip.MustParseAddrPort(fmt.Sprintf("127.0.0.%d:1", i+1))
		st.cast.play(id, member(uint64(i)))
		must(t, st.scheduler.Add(to, st.fence.Wrap(&st.cast), usual))
	}
	return st, stop
}

// TestFenceCluster: one member of a cluster is the primary, and stays it until it is unwell; nobody is alarmed.
func TestFenceCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newCluster(t, "a", "b", "c")
		defer stop()
		later(20 * time.Second)
		st.want(t, "at first", map[string]Verdict{"a": Healthy, "b": WrongRole, "c": WrongRole})
		_, err := st.fence.Wrap(&st.cast).Check(t.Context(), target("c"))
		wantError(t, err, "another member of its cluster gets the writes: a", ErrWrongRole)

		st.cast.play("a", Result{})
		failed := time.Now()
		for st.fence.Primary() == "a" {
			later(10 * time.Millisecond)
		}
		// The first failure may be an interval away, and the second and third follow at the fast interval.
		if took, most := time.Since(failed), usual.Interval+2*usual.FastInterval+20*time.Millisecond; took > most {
			t.Errorf("the next member takes over after %v, at most %v allowed", took, most)
		}
		later(2 * usual.FastInterval)
		st.want(t, "after the loss", map[string]Verdict{"a": Unhealthy, "b": Healthy, "c": WrongRole})
		st.cast.play("a", member(9))
		later(20 * time.Second)
		st.want(t, "with the first one back", map[string]Verdict{"a": WrongRole, "b": Healthy, "c": WrongRole})
		st.scheduler.Remove("b")
		st.fence.Forget("b")
		st.mu.Lock()
		delete(st.verdicts, "b")
		st.mu.Unlock()
		later(20 * time.Second)
		st.want(t, "without the primary", map[string]Verdict{"a": Healthy, "c": WrongRole})
		if len(st.rivals) != 0 || st.fence.Count() != 0 {
			t.Errorf("reported %+v", st.rivals)
		}
	})
}

// TestFenceClusterRemembers: after a restart of the balancer the primary is the one of before, whoever is asked first.
func TestFenceClusterRemembers(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			st, stop := newStage(t)
			defer stop()
			st.fence.Remember(target("b"))
			for _, i := range rand.Perm(3) {
				id := string(rune('a' + i))
				to := target(id)
				to.Addr = netip.MustParseAddrPort(fmt.Sprintf("127.0.0.%d:1", i+1))
				st.cast.play(id, member(0))
				must(t, st.scheduler.Add(to, st.fence.Wrap(&st.cast), usual))
			}
			later(20 * time.Second)
			st.want(t, "after a start", map[string]Verdict{"a": WrongRole, "b": Healthy, "c": WrongRole})
		})
	}
}

// TestFenceClusterWaitsForNobody: a member that would be next, and about which the checks find nothing out, does not
// keep the others from taking over.
func TestFenceClusterWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newCluster(t, "a", "b", "c")
		defer stop()
		later(20 * time.Second)
		blind := checkerFunc(func(ctx context.Context, to Target) (Result, error) { return Result{}, ErrInconclusive })
		must(t, st.scheduler.Update("b", st.fence.Wrap(blind), usual))
		st.cast.play("a", Result{})
		later(20 * time.Second)
		st.want(t, "after the loss", map[string]Verdict{"a": Unhealthy, "c": Healthy})
	})
}

// TestFenceTwoClusters: members of different clusters are rivals as any two primaries are.
func TestFenceTwoClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, stop := newCluster(t, "a", "b")
		defer stop()
		later(20 * time.Second)
		st.cast.play("b", Result{Role: RolePrimary, Cluster: "two"})
		later(20 * time.Second)
		if st.fence.Count() != 1 {
			t.Errorf("%d rivalries", st.fence.Count())
		}
	})
}

// TestFenceClusterChaos has members come and go at random: two are never healthy at once, and one is after a while if
// any is well.
func TestFenceClusterChaos(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			st, stop := newCluster(t, "a", "b", "c")
			defer stop()
			well := map[string]bool{"a": true, "b": true, "c": true}
			for range 40 {
				id := string(rune('a' + rand.IntN(3)))
				if well[id] = !well[id]; well[id] {
					st.cast.play(id, member(rand.Uint64N(9)))
				} else {
					st.cast.play(id, Result{})
				}
				later(time.Duration(rand.IntN(4000)) * time.Millisecond)
			}
			later(20 * time.Second)
			healthy := 0
			for id := range well {
				if st.verdicts[id] == Healthy {
					healthy++
				}
			}
			if any := well["a"] || well["b"] || well["c"]; any != (healthy == 1) {
				t.Errorf("%d are healthy, well are %v", healthy, well)
			}
			st.want(t, "in the end", nil)
		})
	}
}
