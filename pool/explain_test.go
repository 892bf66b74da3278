package pool

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/pool/rate"
)

// A drawnPool is a pool with random options and backends, after some random use.
type drawnPool struct {
	*Pool
	h    hand
	held []Lease
}

func drawPool(t *rapid.T) *drawnPool {
	d := &drawnPool{}
	kind := rapid.SampledFrom(algo.Kinds()).Draw(t, "algorithm")
	o := Options{
		Name: "test", Algorithm: kind.Name, Initial: Healthy, Clock: d.h.now, HashPort: rapid.Bool().Draw(t, "port"),
		Zone: rapid.SampledFrom([]string{"", "here"}).Draw(t, "zone"), TryAllWhenNone: rapid.Bool().Draw(t, "all"),
		SlowStart: rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "slow"), QueueMax: 1, QueueTimeout: 1,
		Breaker: BreakerOptions{Failures: 1, OpenFor: 10 * time.Second, MaxOpenFor: 20 * time.Second, Trials: 2,
			MaxOpenShare: 1},
	}
	if kind.Hash && rapid.Bool().Draw(t, "bounded") {
		o.HashBalance = 1.25
	}
	if rapid.Bool().Draw(t, "sticky") {
		o.StickyTTL, o.StickyEntries = time.Hour, 64
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d.Pool = p
	n := rapid.SampledFrom([]int{0, 1, 3, 8, 200}).Draw(t, "backends")
	for i := range n {
		s := at(fmt.Sprint("b", i), i%3/2, []string{"here", "there"}[i/3%2], rapid.IntRange(0, 3).Draw(t, "limit"))
		s.Weight, s.Mode = rapid.Uint32Range(0, 3).Draw(t, "weight"),
			Mode(max(0, rapid.IntRange(-5, 2).Draw(t, "mode")))
		if rapid.Bool().Draw(t, "paced") {
			s.MaxRate = rate.Limit{Every: 7 * time.Second, Burst: rapid.IntRange(1, 3).Draw(t, "burst")}
		}
		if err := p.Add(s); err != nil {
			t.Fatal(err)
		}
		v := Verdict(max(1, rapid.IntRange(-4, 4).Draw(t, "verdict")))
		if err := p.SetVerdicts(Judgement{s.ID, Unhealthy, "ill"}, Judgement{s.ID, v, "test"}); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// step makes a random change: time passes, sessions begin and end, breakers change.
func (d *drawnPool) step(t *rapid.T) {
	d.h.pass(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
	for range rapid.IntRange(0, 5).Draw(t, "sessions") {
		if l, err := d.Pick(from(rapid.IntRange(0, 9).Draw(t, "of"))); err == nil {
			d.held = append(d.held, l)
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "ends") {
		if n := len(d.held); n > 0 {
			i := rapid.IntRange(0, n-1).Draw(t, "which")
			d.held[i].Release([]Outcome{Served, ConnectRefused,
				ConnectRefused}[rapid.IntRange(0, 2).Draw(t, "outcome")])
			d.held = slices.Delete(d.held, i, i+1)
		}
	}
	d.actOnRecords()
}

// TestExplainMatchesThePick holds, for any pool, that Explain changes nothing, lists every backend once, and matches
// the next pick: the very backend if it is deterministic, and else one of the candidates.
func TestExplainMatchesThePick(t *testing.T) {
	deciders := make(map[Decider]int)
	rapid.Check(t, func(t *rapid.T) {
		d := drawPool(t)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			d.step(t)
			pc := from(rapid.IntRange(0, 9).Draw(t, "client"))
			all := d.snap.Load().members
			for range rapid.IntRange(0, min(2, len(all))).Draw(t, "tried") {
				pc.Tried = append(pc.Tried, all[rapid.IntRange(0, len(all)-1).Draw(t, "tried one")].backend)
			}
			before, stats := traces(d.Pool), d.Stats()
			x, again := d.Explain(pc), d.Explain(pc)
			if after := traces(d.Pool); after != before || d.Stats() != stats {
				t.Fatalf("Explain left a trace: %s, before %s", after, before)
			}
			if x.Deterministic && (again.Backend != x.Backend || again.By != x.By) {
				t.Fatalf("two explanations differ: %+v and %+v", x, again)
			}
			deciders[x.By]++
			checkExplanation(t, d.Pool, pc, x)
			l, err := d.Pick(pc)
			if err != x.Err {
				t.Fatalf("the pick's error is %v, explained as %+v", err, x)
			}
			if err != nil {
				continue
			}
			d.held = append(d.held, l)
			id := l.Backend().ID()
			if x.Deterministic && id != x.Backend ||
				!slices.ContainsFunc(x.Candidates, func(c Candidate) bool { return c.ID == id }) {
				t.Fatalf("picked %q, explained as %+v", id, x)
			}
			if (l.trial != 0) != (x.By == ByTrial) || l.b.tier != x.Tier {
				t.Fatalf("picked %q of tier %d, on trial: %v; explained as %+v", id, l.b.tier, l.trial, x)
			}
		}
	})
	if testing.Short() {
		return // with few cases chance decides which deciders they meet
	}
	for _, by := range []Decider{ByNothing, ByAlgorithm, BySticky, ByTrial} {
		if deciders[by] == 0 {
			t.Errorf("no decision was by %v; this test holds nothing of it", by)
		}
	}
}

// checkExplanation compares an explanation with the backends' state.
func checkExplanation(t *rapid.T, p *Pool, pc PickContext, x Explanation) {
	infos := make(map[string]BackendInfo)
	for _, b := range p.Backends() {
		infos[b.ID] = b
	}
	if len(x.Candidates)+len(x.Others) != len(infos) || (len(x.Candidates) == 0) != (x.Err != nil) ||
		(x.By == ByNothing) != (x.Err != nil) {
		t.Fatalf("of %d backends, %+v", len(infos), x)
	}
	if x.Deterministic != (!p.settings().kind().Drawn || x.By != ByAlgorithm || len(x.Candidates) == 1) {
		t.Fatalf("deterministic: %+v", x)
	}
	check := func(c Candidate) BackendInfo {
		b, is := infos[c.ID]
		delete(infos, c.ID)
		if !is || b.Weight != c.Weight || b.Leases != c.Leases || b.Addr != c.Addr || b.MaxSessions != c.MaxSessions ||
			b.Tier != c.Tier || b.Zone != c.Zone {
			t.Fatalf("%+v is explained as %+v", b, c)
		}
		return b
	}
	tried := func(id string) bool {
		return slices.ContainsFunc(pc.Tried, func(b *Backend) bool { return b.ID() == id })
	}
	full := func(b BackendInfo) bool { return b.MaxSessions > 0 && int(b.Leases) >= b.MaxSessions }
	for _, c := range x.Candidates {
		if b := check(c); full(b) || tried(c.ID) || !b.Eligible && x.By != ByTrial {
			t.Fatalf("%+v is a candidate", b)
		}
	}
	for _, o := range x.Others {
		b := check(o.Candidate)
		holds := map[Obstacle]bool{
			InMaintenance: b.Mode == Maintenance, InDrain: b.Mode == Drain, WithoutWeight: b.Weight == 0,
			NotHealthy: b.Verdict == Unhealthy, NotJudged: b.Verdict == Unknown, InWrongRole: b.Verdict == WrongRole,
			IsLagging: b.Verdict == Lagging, InReserve: b.Verdict == Fallback, BreakerOpen: b.Breaker == Open, BreakerHalfOpen: b.Breaker == HalfOpen,
			WasTried: tried(o.ID), IsFull: full(b), IsOverRate: b.MaxRate.On() && !full(b),
			BehindWaiters: x.Waiting > 0, NotOnTrial: x.By == ByTrial,
			NotSticky: x.By == BySticky, InLaterTier: b.Tier > x.Tier, InOtherZone: b.Zone != "here" &&
				b.Tier == x.Tier,
		}[o.Why]
		if !holds || o.Reason == "" || (o.Why <= BreakerHalfOpen) == b.Eligible {
			t.Fatalf("%+v is passed over as %v: %s", b, o.Why, o.Reason)
		}
	}
}

// traces returns all state of a pool that a pick changes.
func traces(p *Pool) string {
	var b strings.Builder
	for _, m := range p.snap.Load().members {
		r := &m.backend.record
		fmt.Fprint(&b, m.backend.load.Leases(), " ", m.backend.load.Share(), " ", r.trials.places.Load(), " ",
			r.trials.good.Load(), "; ")
	}
	for _, g := range p.groups {
		var s algo.State
		s.CopyFrom(&g.state)
		fmt.Fprintf(&b, "%v %d;", &s, g.total.Leases())
	}
	if t := p.settings().sticky; t != nil {
		for i := range t.sets {
			fmt.Fprint(&b, &t.sets[i])
		}
	}
	return b.String()
}

// TestExplainWords walks through the reasons, one by one.
func TestExplainWords(t *testing.T) {
	var h hand
	drained := at("drained", 0, "here", 0)
	drained.Mode = Drain
	p := made(t, Options{
		Algorithm: "first", Zone: "here", StickyTTL: time.Hour, StickyEntries: 16, Clock: h.now, QueueMax: 1,
		QueueTimeout: time.Minute,
	}, at("a", 0, "here", 1), at("b", 0, "here", 1), at("far", 0, "there", 1), at("late", 1, "here", 1), drained,
		at("ill", 0, "here", 0))
	must(t, p.SetVerdict("ill", Unhealthy, "connection refused"))
	inWords := func(pc PickContext) string {
		x := p.Explain(pc)
		words := []string{x.Backend, x.By.String()}
		for _, o := range x.Others {
			words = append(words, o.ID+":"+o.Why.String())
		}
		return strings.Join(words, " ")
	}
	a := p.snap.Load().members[0].backend
	want := func(what string, pc PickContext, want string) {
		t.Helper()
		if got := inWords(pc); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	const never = " drained:drain ill:unhealthy"
	want("at first", from(1), "a algorithm far:other_zone late:later_tier"+never)
	want("after one try", PickContext{Client: from(1).Client, Tried: []*Backend{a}},
		"b algorithm a:tried far:other_zone late:later_tier"+never)
	l, err := p.Pick(from(1))
	must(t, err)
	l.Release(Served)
	must(t, p.SetMaxSessions("a", 2))
	want("remembered", from(1), "a sticky b:not_sticky far:not_sticky late:not_sticky"+never)
	_, leases := picks(p, 5)
	want("all full", from(2), " nothing a:full b:full far:full late:full"+never)
	if x := p.Explain(from(2)); x.Err != ErrBusy || !x.MayWait || x.Others[0].Reason != "it has 2 of 2 sessions" ||
		x.Others[5].Reason != "connection refused" {
		t.Errorf("with all full: %+v", x)
	}
	must(t, p.Wait(&Waiter{Context: PickContext{Tried: []*Backend{a}}, Serve: func(Lease, error) {}}))
	leases[0].Release(Served)
	want("with one waiting who was there", from(2), " nothing a:behind_waiters b:full far:full late:full"+never)
	if x := p.Explain(from(2)); x.Err != ErrBusy || x.MayWait || x.Waiting != 1 {
		t.Errorf("with a full queue: %+v", x)
	}
}

// TestExplainKeepsTheBound holds that bounded loads count existing leases: one client fills one backend after the
// other.
func TestExplainKeepsTheBound(t *testing.T) {
	for _, kind := range []string{"client_hash", "ring_hash", "maglev"} {
		p := made(t, Options{Algorithm: kind, HashBalance: 1.25}, at("a", 0, "", 0), at("b", 0, "", 0),
			at("c", 0, "", 0))
		for i := range 60 {
			x := p.Explain(from(1))
			l, err := p.Pick(from(1))
			must(t, err)
			if l.Backend().ID() != x.Backend || !x.Deterministic {
				t.Fatalf("%s: pick %d went to %q, explained as %q", kind, i, l.Backend().ID(), x.Backend)
			}
		}
	}
}

// TestTrialsAreNotRemembered holds that stickiness does not remember a trial.
func TestTrialsAreNotRemembered(t *testing.T) {
	var h hand
	o := usual
	o.Failures = 1
	p := made(t, Options{Algorithm: "first", Breaker: o, StickyTTL: time.Hour, StickyEntries: 16, Clock: h.now},
		at("a", 0, "", 0), at("b", 0, "", 0))
	l, err := p.Pick(from(1))
	must(t, err)
	l.Release(ConnectRefused)
	p.actOnRecords()
	h.pass(20 * time.Second)
	p.actOnRecords()
	remembered := p.Stats().Remembered
	if x := p.Explain(from(2)); x.By != ByTrial || x.Backend != "a" || len(x.Candidates) != 1 ||
		x.Others[0].Why != NotOnTrial {
		t.Fatalf("no trial: %+v", x)
	}
	if l, err = p.Pick(from(2)); err != nil || l.trial == 0 || p.Stats().Remembered != remembered {
		t.Errorf("after a trial, %v: %d remembered, before %d", err, p.Stats().Remembered, remembered)
	}
	if x := p.Explain(from(1)); x.Backend != "b" || x.Others[0].Why != BreakerHalfOpen {
		t.Errorf("with the trial under way: %+v", x)
	}
}

// TestExplainShowsShares holds that Explain shows the current share of a growing weight.
func TestExplainShowsShares(t *testing.T) {
	var h hand
	p := made(t, Options{SlowStart: 100 * time.Second, Clock: h.now}, at("a", 0, "", 0))
	must(t, p.Add(at("b", 0, "", 0)))
	h.pass(25 * time.Second)
	x := p.Explain(from(1))
	if len(x.Candidates) != 2 || x.Candidates[0].Share != 1 || x.Candidates[1].Share != 0.25 {
		t.Errorf("after a quarter of the time: %+v", x.Candidates)
	}
	if got := partOf(p, "b"); got == 0.25 {
		t.Errorf("by explaining b grew to %v", got)
	}
}

func TestExplainOfEveryWord(t *testing.T) {
	seen := make(map[string]bool)
	for o := InMaintenance; o <= InOtherZone; o++ {
		if w := o.String(); strings.Contains(w, "(") || seen[w] {
			t.Errorf("obstacle %d is %q", o, w)
		}
		seen[o.String()] = true
	}
	for got, want := range map[fmt.Stringer]string{
		ByNothing: "nothing", ByAlgorithm: "algorithm", BySticky: "sticky", ByTrial: "trial", Decider(9): "decider(9)",
		InOtherZone + 1: "obstacle(19)", Overruling(9): "overruling(9)",
	} {
		if got.String() != want {
			t.Errorf("word is %q, want %q", got, want)
		}
	}
}
