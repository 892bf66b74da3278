package algo

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// fullest opens sessions that stay and returns the number on the fullest member.
func fullest(t *testing.T, kind string, members []Member, sessions int) int64 {
	t.Helper()
	p := build(t, kind, members, Options{})
	var most int64
	for key := range uint64(sessions) {
		most = max(most, members[p.Pick(key)].Load.acquire())
	}
	return most
}

// TestTwoChoicesAgainstOne holds the benefit of p2c: of 10,000 sessions on 100 members, no member has more than a few
// above the mean of 100, while random puts some 25 more on its fullest.
func TestTwoChoicesAgainstOne(t *testing.T) {
	one, two := fullest(t, "random", named(100, 1), 10_000), fullest(t, "p2c", named(100, 1), 10_000)
	t.Logf("10,000 sessions on 100 members: the fullest has %d by random, %d by p2c", one, two)
	if two > 108 {
		t.Errorf("the fullest member has %d sessions by p2c, want at most 108", two)
	}
	if one < two+5 {
		t.Errorf("random's fullest has %d, p2c's %d: they differ too little for p2c to have drawn twice", one, two)
	}
}

// TestP2CWeights holds the shares under churn, where idle members must not draw all sessions.
func TestP2CWeights(t *testing.T) {
	members := membersOf(1, 3, 6)
	p := build(t, "p2c", members, Options{})
	var counts [3]float64
	const picks = 30_000
	for key := range uint64(picks) { // sessions end at once: there is never a lease to compare
		counts[p.Pick(key)]++
	}
	for i, w := range []float64{1, 3, 6} {
		if want := picks * w / 10; math.Abs(counts[i]-want) > 0.05*picks {
			t.Errorf("idle members of weights 1, 3, 6 got %v of %d", counts, picks)
		}
	}
}

// TestNewcomerIsNotFlooded adds a member to 9 that hold 100 sessions each. With least_conn it gets all new sessions
// until it has as many, unless its weight grows slowly; with p2c it gets at most one in five, and less with slow start.
func TestNewcomerIsNotFlooded(t *testing.T) {
	for _, tt := range []struct {
		kind  string
		share float64
		most  int
	}{
		{"least_conn", 1, 100}, {"least_conn", 1.0 / 16, 8}, {"p2c", 1, 35}, {"p2c", 1.0 / 16, 8},
		{"least_time", 1, 35},
		{"round_robin", 1, 11}, {"random", 1, 25},
	} {
		members := named(10, 1)
		for _, m := range members[:9] {
			for range 100 {
				m.Load.acquire()
			}
			m.Load.ObserveFirstByte(time.Millisecond, 0)
		}
		newcomer := members[9].Load
		newcomer.SetShare(tt.share)
		p := build(t, tt.kind, members, Options{})
		for key := range uint64(100) {
			members[p.Pick(key)].Load.acquire()
		}
		if n := newcomer.Leases(); n > int64(tt.most) {
			t.Errorf("%s at %v of its weight: a newcomer got %d of 100 sessions, want at most %d",
				tt.kind, tt.share, n, tt.most)
		}
	}
}

// A slowServer answers sessions after a fixed time, on a simulated clock.
type slowServer struct {
	took time.Duration
	got  int
}

// simulate starts sessions at a pace, ends each after its server's time, and returns how many each server got.
func simulate(t *testing.T, s *State, members []Member, servers []slowServer, sessions int, from time.Duration) []int {
	t.Helper()
	p := build(t, "least_time", members, Options{State: s})
	type ending struct {
		at     time.Duration
		member int
	}
	var open []ending
	for i := range servers {
		servers[i].got = 0
	}
	counts := make([]int, len(servers))
	for i := range sessions {
		now := from + time.Duration(i)*time.Millisecond
		s.Advance(now)
		rest := open[:0]
		for _, e := range open {
			if e.at > now {
				rest = append(rest, e)
				continue
			}
			members[e.member].Load.ObserveFirstByte(servers[e.member].took, e.at)
			members[e.member].Load.Release()
		}
		open = rest
		m := p.Pick(rand.Uint64())
		members[m].Load.acquire()
		counts[m]++
		open = append(open, ending{now + servers[m].took, m})
	}
	for _, e := range open {
		members[e.member].Load.Release()
	}
	return counts
}

// TestLeastTimeFollowsSpeed has one of three servers ten times as slow: it gets little, and its share back once it is
// fast again and its bad times have faded.
func TestLeastTimeFollowsSpeed(t *testing.T) {
	var s State
	members := named(3, 1)
	servers := []slowServer{{took: 5 * time.Millisecond}, {took: 5 * time.Millisecond}, {took: 50 * time.Millisecond}}
	slow := simulate(t, &s, members, servers, 5000, 0)
	if slow[2] > 5000*12/100 {
		t.Errorf("a server ten times as slow got %v, want less than 12 %%", slow)
	}
	servers[2].took = 5 * time.Millisecond
	again := simulate(t, &s, members, servers, 60_000, 5*time.Second)
	if got := again[2]; got < 60_000*20/100 {
		t.Errorf("once it is as fast as the others it got %v in a minute, want 20 %% or more", again)
	}
}

func TestEWMA(t *testing.T) {
	const ms = time.Millisecond
	var l Load
	if _, known := l.Latency(); known {
		t.Error("a latency is known before any observation")
	}
	near := func(what string, got float32, want time.Duration) {
		t.Helper()
		if math.Abs(float64(got)-want.Seconds()) > 0.02*want.Seconds() {
			t.Errorf("%s: average %v, want %v", what, got, want)
		}
	}
	l.ObserveConnect(2*ms, 0)
	near("a connect time alone", l.latency(0), 2*ms)
	l.ObserveFirstByte(10*ms, 0)
	near("the first byte's counts more than any connect time", l.latency(0), 10*ms)
	l.ObserveFirstByte(100*ms, time.Second)
	near("a peak counts at once", l.latency(1000), 100*ms)
	l.ObserveFirstByte(10*ms, time.Second+fade)
	near("a third is left after the time constant", l.latency(11_000), 43*ms)
	near("and what is not observed fades", l.latency(11_000+7000), 43*ms/2)
	l.ObserveFirstByte(50*ms, time.Second) // from a thread that was held up
	if got := l.latency(18_000); got <= 0 || math.IsNaN(float64(got)) {
		t.Errorf("after an observation out of order: %v", got)
	}
}
