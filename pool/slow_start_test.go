package pool

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// shareOf makes many picks that end at once, and returns the backend's share of them.
func shareOf(t testing.TB, p *Pool, id string, n int) float64 {
	t.Helper()
	var got int
	for i := range n {
		if pickOnce(t, p, from(i)) == id {
			got++
		}
	}
	return float64(got) / float64(n)
}

// partOf returns the part of its weight that a backend has.
func partOf(p *Pool, id string) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[id].backend.load.Share()
}

// TestSlowStartGrows holds the share of a backend that comes back, over time.
func TestSlowStartGrows(t *testing.T) {
	for _, kind := range []string{"round_robin", "random", "p2c", "least_time", "client_hash", "ring_hash", "maglev"} {
		t.Run(kind, func(t *testing.T) {
			var h hand
			p := made(t, Options{Algorithm: kind, SlowStart: 100 * time.Second, Clock: h.now}, at("a", 0, "", 0),
				at("b", 0, "", 0))
			if got := shareOf(t, p, "b", 4000); math.Abs(got-0.5) > 0.05 {
				t.Errorf("those a pool begins with do not have their weight at once: b gets %v", got)
			}
			must(t, p.SetVerdict("b", Unhealthy, "test"))
			must(t, p.SetVerdict("b", Healthy, "test"))
			for _, part := range []float64{0, 0.25, 0.5, 0.75, 1, 2} {
				h.at.Store(int64(part * float64(100*time.Second)))
				want := math.Min(part, 1)
				share := want / (1 + want) // of two backends
				if algo := p.settings().kind(); algo.Hash {
					share = want / 2 // of its own clients
				}
				if got := shareOf(t, p, "b", 4000); math.Abs(got-share) > 0.05 {
					t.Errorf("after %v of the time b gets %v, want %v", part, got, share)
				}
			}
		})
	}
}

// TestSlowStartOfLeastConn holds that a newcomer to a busy pool is not flooded, and catches up as it grows.
func TestSlowStartOfLeastConn(t *testing.T) {
	var h hand
	p := made(t, Options{Algorithm: "least_conn", SlowStart: 100 * time.Second, Clock: h.now}, at("a", 0, "", 0),
		at("b", 0, "", 0))
	picks(p, 200)
	must(t, p.Add(at("new", 0, "", 0)))
	newcomer := func() int64 { return p.Backends()[2].Leases }
	picks(p, 100)
	if n := newcomer(); n > 5 {
		t.Errorf("a newcomer got %d of the first 100 sessions", n)
	}
	h.pass(50 * time.Second)
	picks(p, 100)
	if n := newcomer(); n < 60 || n > 100 { // half the weight: half the sessions of the others
		t.Errorf("at half of its weight it has %d of 400 sessions", n)
	}
	h.pass(time.Hour)
	picks(p, 200)
	if n := newcomer(); n < 195 || n > 205 {
		t.Errorf("at its weight it has %d of 600 sessions", n)
	}
}

// TestSlowStartOf holds who starts slowly.
func TestSlowStartOf(t *testing.T) {
	var h hand
	p := pair(t, Options{SlowStart: time.Minute, Initial: Healthy, Clock: h.now})
	for _, step := range []struct {
		what string
		id   string
		do   func() error
		slow bool
	}{
		{"one the pool begins with", "a", func() error { return nil }, false},
		{"a change of weight", "a", func() error { return p.SetWeight("a", 5) }, false},
		{"one added later", "c", func() error { return p.Add(at("c", 0, "", 0)) }, true},
		{"the first of another source", "d",
			func() error { _, err := p.Reconcile("dns", []Spec{at("d", 0, "", 0)}); return err }, false},
		{"a later one of it", "e", func() error {
			_, err := p.Reconcile("dns", []Spec{at("d", 0, "", 0), at("e", 0, "", 0)})
			return err
		}, true},
		{"back from maintenance", "b", func() error { _ = p.SetMode("b", Maintenance); return p.SetMode("b", Ready) },
			true},
		{"back from weight 0", "b", func() error { _ = p.SetWeight("b", 0); return p.SetWeight("b", 1) }, true},
		{"a verdict that stays", "a", func() error { return p.SetVerdict("a", Healthy, "again") }, false},
		{"recovered", "a", func() error { _ = p.SetVerdict("a", Unhealthy, ""); return p.SetVerdict("a", Healthy, "") },
			true},
	} {
		must(t, step.do())
		if got := partOf(p, step.id) < 1; got != step.slow {
			t.Errorf("%s starts slowly: %v, want %v", step.what, got, step.slow)
		}
	}
	h.pass(30 * time.Second)
	pickOnce(t, p, from(1))
	half := partOf(p, "a")
	must(t, p.SetVerdict("a", Unhealthy, ""))
	must(t, p.SetVerdict("a", Healthy, ""))
	if again := partOf(p, "a"); half < 0.4 || again > 0.1 {
		t.Errorf("at half of the time it had %v of its weight, and %v after it fell ill again", half, again)
	}

	// First verdicts are no recovery: none of those a pool begins with is to get all sessions because it was checked
	// first.
	p, err := New(Options{Name: "test", Algorithm: "round_robin", SlowStart: time.Minute, Clock: h.now})
	must(t, err)
	must(t, p.Add(at("a", 0, "", 0), at("b", 0, "", 0), at("ill", 0, "", 0)))
	must(t, p.SetVerdict("ill", Unhealthy, ""))
	for _, id := range []string{"a", "b", "ill"} {
		must(t, p.SetVerdict(id, Healthy, ""))
		if slow := partOf(p, id) < 1; slow != (id == "ill") {
			t.Errorf("%s starts slowly: %v", id, slow)
		}
	}
}

// TestSlowStartOfAll holds that some backend can always be picked, and that limits hold.
func TestSlowStartOfAll(t *testing.T) {
	for _, k := range algo.Kinds() {
		var h hand
		p := made(t, Options{Algorithm: k.Name, SlowStart: time.Hour, Clock: h.now}, at("a", 0, "", 5),
			at("b", 0, "", 5))
		for _, id := range []string{"a", "b"} {
			must(t, p.SetVerdict(id, Unhealthy, ""))
			must(t, p.SetVerdict(id, Healthy, ""))
		}
		ids, _ := picks(p, 11)
		for i, id := range ids {
			if (id == "busy") != (i == 10) {
				t.Errorf("%s: of 11 picks for 10 places the %dth is %s", k.Name, i+1, id)
			}
		}
	}
}

// TestSlowStartGoesOnThroughChanges holds that changes of other settings or backends neither restart nor end a
// backend's growth.
func TestSlowStartGoesOnThroughChanges(t *testing.T) {
	var h hand
	p := made(t, Options{SlowStart: 100 * time.Second, TryAllWhenNone: true, Clock: h.now}, at("a", 0, "", 0),
		at("b", 0, "", 0))
	must(t, p.SetVerdict("b", Unhealthy, ""))
	must(t, p.SetVerdict("b", Healthy, ""))
	for i, change := range []func() error{
		func() error { return p.SetWeight("b", 3) },
		func() error { return p.SetMaxSessions("b", 1000) },
		func() error { return p.SetWeight("a", 2) },
		func() error { return p.Add(at("c", 0, "", 0)) },
		func() error { return p.SetVerdict("c", Unhealthy, "") },
		func() error { return p.Remove("a") },
	} {
		h.pass(10 * time.Second)
		must(t, change())
		pickOnce(t, p, from(i))
		if got, want := partOf(p, "b"), float64(i+1)/10; math.Abs(got-want) > 0.01 {
			t.Errorf("after change %d b has %v of its weight, want %v", i, got, want)
		}
	}
	must(t, p.SetVerdict("b", Unhealthy, "")) // with c: nobody is healthy
	for range 10 {
		pickOnce(t, p, from(1)) // somebody is picked all the same
	}
}

// TestSlowStartOff holds that without slow start a returning backend has its weight at once.
func TestSlowStartOff(t *testing.T) {
	p := pair(t, Options{})
	must(t, p.SetVerdict("b", Unhealthy, ""))
	must(t, p.SetVerdict("b", Healthy, ""))
	must(t, p.Add(at("c", 0, "", 0)))
	if p.snap.Load().slow != nil || partOf(p, "b") != 1 || partOf(p, "c") != 1 {
		t.Errorf("b has %v of its weight, c %v", partOf(p, "b"), partOf(p, "c"))
	}
}

// TestSlowStartByTheUsualClock holds that slow start works with the default clock, and after an open breaker too.
func TestSlowStartByTheUsualClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pair(t, Options{SlowStart: time.Minute, Breaker: usual})
		defer running(t, p)()
		failThrice(p, "a", ConnectRefused)
		synctest.Wait()
		time.Sleep(12 * time.Second)
		synctest.Wait()
		release(p, "a", Served) // the trial
		synctest.Wait()
		for part, want := range []float64{0, 0.25, 0.5, 0.75, 1, 1} {
			pickOnce(t, p, from(1))
			if got := partOf(p, "a"); math.Abs(got-want) > 0.01 {
				t.Errorf("after %v it has %v of its weight, want %v", time.Duration(part)*15*time.Second, got, want)
			}
			slow := p.snap.Load().slow
			next := slow.next.Load()
			time.Sleep(time.Minute / slowSteps / 2)
			pickOnce(t, p, from(1))
			if again := slow.next.Load(); again != next {
				t.Errorf("half a step later it grows again at %v instead of %v",
					time.Duration(again), time.Duration(next))
			}
			time.Sleep(15*time.Second - time.Minute/slowSteps/2)
		}
		if next := p.snap.Load().slow.next.Load(); next != grown {
			t.Errorf("all have grown, and they grow again at %v", time.Duration(next))
		}
		must(t, p.SetWeight("b", 2))
		if p.snap.Load().slow != nil {
			t.Error("all have grown, and a new snapshot has them grow")
		}
	})
}
