package pool

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// ramped returns a pool with a hold of up to 5,000 sessions for a minute and a slow start of ten seconds, with these
// backends in maintenance; and its clock and its line.
func ramped(t *testing.T, change func(*Options), specs ...Spec) (*Pool, *hand, *line) {
	t.Helper()
	h := new(hand)
	o := Options{
		Algorithm: "round_robin", SlowStart: 10 * time.Second, HoldMax: 5000, HoldTimeout: time.Minute, Clock: h.now,
	}
	if change != nil {
		change(&o)
	}
	p := made(t, o, specs...)
	for _, s := range specs {
		must(t, p.SetMode(s.ID, Maintenance))
	}
	return p, h, &line{pool: p}
}

// holdMany puts n waiters into the line, and returns their names.
func (l *line) holdMany(t *testing.T, n int) []string {
	t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint(i)
		l.hold(t, names[i])
	}
	return names
}

// until serves the line by its ramp until the clock is there, as a simulation does.
func (l *line) until(h *hand, at time.Duration) {
	for {
		next, wait := l.pool.NextByRate()
		if !wait || next > at {
			break
		}
		h.at.Store(int64(max(next, h.now())))
		l.pool.ServeByRate()
	}
	h.at.Store(int64(at))
}

// shares returns how many of the served each backend has.
func (l *line) shares() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	by := map[string]int{}
	for _, s := range l.served {
		by[s.lease.Backend().ID()]++
	}
	return by
}

// TestRamp has 2,000 sessions wait when the only backend comes back: they are served in order, evenly over the slow
// start, and newcomers behind them. Then picks are free.
func TestRamp(t *testing.T) {
	p, h, l := ramped(t, nil, at("a", 0, "", 0))
	names := l.holdMany(t, 2000)
	must(t, p.SetMode("a", Ready))
	if !p.Ramping() {
		t.Fatal("there is no ramp")
	}
	for part := 1; part < 20; part++ {
		l.until(h, time.Duration(part)*500*time.Millisecond)
		if got, want := len(l.served), part*100; math.Abs(float64(got-want)) > 10 {
			t.Errorf("after %d parts of 20, %d are served, want %d", part, got, want)
		}
		if part == 10 {
			ids, _ := picks(p, 1)
			wantIDs(t, "a newcomer", ids, "busy")
			l.wait(t, "newcomer") // although the pool has no queue
			names = append(names, "newcomer")
			x := p.Explain(PickContext{Client: client(1)})
			if x.Err != ErrBusy || !x.MayWait || len(x.Others) != 1 || x.Others[0].Why != BehindWaiters ||
				!strings.Contains(x.Others[0].Reason, "slow_start") {
				t.Errorf("explained as %+v", x)
			}
		}
	}
	l.until(h, 10*time.Second)
	if got := l.names(); !slices.Equal(got, names) {
		t.Errorf("%d were served, not in order or not once", len(got))
	}
	if took := p.Ramped(); p.Ramping() || took < 9900*time.Millisecond || took > 10*time.Second {
		t.Errorf("the ramp goes on: %v, and took %v", p.Ramping(), took)
	}
	h.pass(time.Hour)
	if _, leases := picks(p, 100); len(leases) != 100 {
		t.Error("picks are not free after the ramp")
	}
	if took := p.Ramped(); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if s := p.Stats(); s.Served != 2001 || s.HoldFull != 0 || p.Backends()[0].RateReached != 0 {
		t.Errorf("counted are %+v", s)
	}
}

// TestRampOfFew holds that a short line does not wait for a long slow start, and that picks are free behind it.
func TestRampOfFew(t *testing.T) {
	p, h, l := ramped(t, func(o *Options) { o.SlowStart = 5 * time.Minute }, at("a", 0, "", 0))
	names := l.holdMany(t, 3)
	must(t, p.SetMode("a", Ready))
	wantIDs(t, "at once", l.names(), names[0])
	l.until(h, 2*maxRampPause)
	wantIDs(t, "two pauses later", l.names(), names[1:]...)
	ids, _ := picks(p, 1)
	wantIDs(t, "a newcomer", ids, "a")
}

// TestRampIsOnlyForTheHeld holds when a line is served at once: without a slow start, without a hold, and when sessions
// wait because all are full.
func TestRampIsOnlyForTheHeld(t *testing.T) {
	p, _, l := ramped(t, func(o *Options) { o.SlowStart = 0 }, at("a", 0, "", 0))
	names := l.holdMany(t, 100)
	must(t, p.SetMode("a", Ready))
	wantIDs(t, "without a slow start", l.names(), names...)

	queued := func(o *Options) { o.QueueMax, o.QueueTimeout = 100, time.Minute }
	p, _, l = ramped(t, func(o *Options) { queued(o); o.HoldTimeout = 0 }, at("a", 0, "", 1))
	must(t, p.SetMode("a", Ready))
	picks(p, 1)
	l.wait(t, "first")
	l.wait(t, "second")
	must(t, p.SetMode("a", Drain))
	must(t, p.SetMaxSessions("a", 0))
	must(t, p.SetMode("a", Ready))
	wantIDs(t, "without a hold", l.names(), "first", "second")

	p, _, l = ramped(t, queued, at("a", 0, "", 1), at("b", 0, "", 0))
	must(t, p.SetMode("a", Ready))
	picks(p, 1)
	l.wait(t, "first")
	l.wait(t, "second")
	must(t, p.SetMode("b", Ready))
	wantIDs(t, "behind a full one", l.names(), "first", "second")
}

// TestRampOfSeveral has backends come back at once and one after the other: each has a part by its weight.
func TestRampOfSeveral(t *testing.T) {
	p, h, l := ramped(t, nil, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
	must(t, p.SetWeight("a", 3))
	l.holdMany(t, 4000)
	must(t, p.SetMode("a", Ready)) // the first takes all until the second is there
	must(t, p.SetMode("b", Ready))
	l.until(h, 5*time.Second)
	if by := l.shares(); math.Abs(float64(by["a"]-1500)) > 60 || math.Abs(float64(by["b"]-500)) > 60 {
		t.Errorf("after half of the time: %v, want about 1500 and 500", by)
	}
	must(t, p.SetMode("c", Ready))
	l.until(h, 7500*time.Millisecond)
	if c := l.shares()["c"]; c == 0 || c > 300 {
		t.Errorf("one that is back later has %d", c)
	}
	l.until(h, 10*time.Second)
	if n := p.Waiting(); n > 0 && !p.Ramping() {
		t.Errorf("%d wait still, and there is no ramp", n)
	}
	l.until(h, 15*time.Second)
	if n := p.Waiting(); n != 0 || len(l.served) != 4000 {
		t.Errorf("%d wait still, %d are served", n, len(l.served))
	}
}

// TestRampKeepsLimits holds that max_sessions and max_rate hold during a ramp and after it.
func TestRampKeepsLimits(t *testing.T) {
	p, h, l := ramped(t, nil, at("a", 0, "", 100))
	l.holdMany(t, 1000)
	must(t, p.SetMode("a", Ready))
	l.until(h, 11*time.Second)
	if n := len(l.served); n != 100 || p.Ramping() {
		t.Errorf("%d are served with max_sessions = 100; ramping %v", n, p.Ramping())
	}
	for i := range 200 {
		l.served[i].lease.Release(Served) // serves one more each time
	}
	if n := len(l.served); n != 300 {
		t.Errorf("after 200 ends %d are served, want 300", n)
	}

	p, h, l = ramped(t, nil, at("a", 0, "", 0))
	must(t, p.SetMaxRate("a", rate.Limit{Every: 20 * time.Millisecond, Burst: 1}))
	l.holdMany(t, 1000)
	must(t, p.SetMode("a", Ready))
	l.until(h, 12*time.Second)
	if n := len(l.served); math.Abs(float64(n-600)) > 10 {
		t.Errorf("%d are served in 12 s with 50/s", n)
	}
}

// TestRampEnds holds what ends a ramp early: its backend leaves, slow_start is turned off, everybody leaves.
func TestRampEnds(t *testing.T) {
	p, h, l := ramped(t, nil, at("a", 0, "", 0))
	names := l.holdMany(t, 1000)
	must(t, p.SetMode("a", Ready))
	l.until(h, 5*time.Second)
	must(t, p.SetMode("a", Maintenance))
	served := len(l.served)
	h.pass(time.Second)
	if p.Ramping() || p.Ramped() != 5*time.Second || p.Waiting() != 1000-served {
		t.Errorf("with the backend gone: ramping %v for %v, %d wait", p.Ramping(), p.Ramped(), p.Waiting())
	}
	must(t, p.SetMode("a", Ready))
	if n := len(l.served); n != served+1 || !p.Ramping() {
		t.Errorf("when it is back, %d are served at once, ramping %v", n-served, p.Ramping())
	}
	reconfigured(t, p, func(o *Options) { o.SlowStart = 0 })
	if got := l.names(); !slices.Equal(got, names) || p.Ramping() {
		t.Errorf("without a slow start, %d are served", len(got))
	}

	p, _, l = ramped(t, nil, at("a", 0, "", 0))
	stays := l.hold(t, "stays")
	leaves := l.hold(t, "leaves")
	must(t, p.SetMode("a", Ready))
	if p.Leave(stays) || !p.Leave(leaves) || p.Ramping() {
		t.Errorf("with an empty line there is a ramp")
	}
	if _, leases := picks(p, 10); len(leases) != 10 {
		t.Error("picks are not free after everybody has left")
	}
}

// TestRampIsBounded holds that newcomers during a ramp are refused at the bound of the hold.
func TestRampIsBounded(t *testing.T) {
	p, _, l := ramped(t, func(o *Options) { o.HoldMax = 10 }, at("a", 0, "", 0))
	l.holdMany(t, 10)
	must(t, p.SetMode("a", Ready))
	l.wait(t, "in the place of the first")
	if err := p.Wait(l.waiter("one more")); err != ErrHoldFull {
		t.Errorf("with ten in the line: %v, want ErrHoldFull", err)
	}
}

// TestRampByRun has nobody pick: the pool's Run serves the line.
func TestRampByRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, l := ramped(t, func(o *Options) { o.Clock = nil }, at("a", 0, "", 0))
		defer running(t, p)()
		names := l.holdMany(t, 500)
		began := time.Now()
		must(t, p.SetMode("a", Ready))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := p.Waiting(); n < 240 || n > 260 {
			t.Errorf("after half of the time %d wait", n)
		}
		for p.Waiting() > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(began); took < 9500*time.Millisecond || took > 10100*time.Millisecond {
			t.Errorf("all are served after %v", took)
		}
		// Run and SetMode both serve at first: of two that leave the line then, either may be told first.
		for i, name := range l.names() {
			if at := slices.Index(names, name); at < i-1 || at > i+1 {
				t.Errorf("number %d of the line is served as number %d", at, i)
			}
		}
	})
}
