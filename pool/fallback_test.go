package pool

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestFallback walks a pool of readers through the loss and the return of its replicas.
func TestFallback(t *testing.T) {
	p := made(t, Options{TryAllWhenNone: true, CloseOnUnhealthy: true, Initial: Unknown},
		at("primary", 0, "", 0), at("r1", 1, "", 0), at("r2", 1, "", 0))
	want := func(what string, falls bool, ids ...string) {
		t.Helper()
		if got := pickable(p); !slices.Equal(got, ids) || p.FallsBack() != falls || p.Eligible() != len(ids) {
			t.Errorf("%s: pickable are %v, want %v; FallsBack %v, Eligible %d", what, got, ids, p.FallsBack(),
				p.Eligible())
		}
	}
	revoked := 0
	p.OnRevoke(func(*Backend, Revocation) { revoked++ })
	must(t, p.SetVerdicts(Judgement{"primary", Fallback, "is a primary"}, Judgement{"r1", Healthy, ""},
		Judgement{"r2", Healthy, ""}))
	want("with two replicas", false, "r1", "r2")
	if x := p.Explain(from(1)); x.FallsBack || x.Others[0].Why != InReserve || x.Others[0].Reason != "is a primary" {
		t.Errorf("explained as %+v", x)
	}
	must(t, p.SetVerdict("r1", Lagging, ""))
	want("with one", false, "r2")
	must(t, p.SetMode("r2", Drain))
	want("with none", true, "primary")
	if x := p.Explain(from(1)); !x.FallsBack || x.Backend != "primary" || x.By != ByAlgorithm {
		t.Errorf("explained as %+v", x)
	}
	l, err := p.Pick(from(1))
	must(t, err)
	must(t, p.SetVerdict("r1", Healthy, ""))
	want("with one that is back", false, "r1")
	if l.Backend().ID() != "primary" || l.Backend().Revoked() || l.Backend().InUse() {
		t.Errorf("a session on %q is revoked: %v", l.Backend().ID(), l.Backend().Revoked())
	}
	l.Release(Served)
	must(t, p.SetVerdict("r1", Unhealthy, ""))
	must(t, p.SetMode("primary", Maintenance))
	want("without both, and all tried", false, "r1")
	must(t, p.SetMode("primary", Ready))
	must(t, p.SetVerdict("primary", WrongRole, ""))
	want("with a primary that is wanted no more", false, "r1")
	must(t, p.SetVerdict("primary", Healthy, ""))
	want("with a primary that became a replica", false, "primary")
	must(t, p.SetVerdict("primary", Fallback, ""))
	want("with a replica that became the primary", true, "primary")
	if revoked != 2 { // those of r1 when it became unhealthy, and of the primary when it was wanted no more
		t.Errorf("%d revocations", revoked)
	}
}

// TestFallbackKeepsTiersAndLimits holds that tiers, limits and stickiness count among the backends of this verdict.
func TestFallbackKeepsTiersAndLimits(t *testing.T) {
	p := made(t, Options{Algorithm: "first", StickyTTL: time.Hour, StickyEntries: 16},
		at("late", 1, "", 0), at("a", 0, "", 1), at("r", 5, "", 0))
	must(t, p.SetVerdicts(Judgement{"late", Fallback, ""}, Judgement{"a", Fallback, ""}, Judgement{"r", Unhealthy, ""}))
	var ids []string
	for i := range 3 {
		l, err := p.Pick(from(i))
		must(t, err)
		ids = append(ids, l.Backend().ID())
	}
	wantIDs(t, "without a replica", ids, "a", "late", "late")
	must(t, p.SetVerdict("r", Healthy, ""))
	l, err := p.Pick(from(1))
	must(t, err)
	wantIDs(t, "a client of the primary, with a replica", []string{l.Backend().ID()}, "r")
}

// TestFallbackAndBreakers: an open breaker of the last replica sends sessions to the primary, and trials bring it back.
func TestFallbackAndBreakers(t *testing.T) {
	var h hand
	o := usual
	o.Failures, o.MaxOpenShare = 1, 0.5
	p := made(t, Options{Algorithm: "first", Breaker: o, Clock: h.now}, at("r", 0, "", 0), at("primary", 0, "", 0))
	must(t, p.SetVerdict("primary", Fallback, ""))
	l, err := p.Pick(from(1))
	must(t, err)
	l.Release(ConnectRefused)
	p.actOnRecords()
	if !p.FallsBack() || !slices.Equal(pickable(p), []string{"primary"}) {
		t.Fatalf("with the breaker of the last replica open: %+v", p.Backends())
	}
	h.pass(20 * time.Second)
	p.actOnRecords()
	l, err = p.Pick(from(1))
	must(t, err)
	if l.Backend().ID() != "r" || l.trial == 0 {
		t.Fatalf("picked %q, on trial: %v", l.Backend().ID(), l.trial)
	}
	must(t, p.SetMode("primary", Drain))
	if p.FallsBack() || p.Eligible() != 1 || p.Backends()[0].Breaker != Closed {
		t.Errorf("without the primary: %+v", p.Backends())
	}
}

// TestFallbackOnlyWithoutReplicas holds for any pool: backends of the verdict Fallback are eligible exactly while no
// Healthy one is that is ready and whose breaker is closed.
func TestFallbackOnlyWithoutReplicas(t *testing.T) {
	fell := 0
	rapid.Check(t, func(t *rapid.T) {
		var h hand
		o := usual
		o.Failures = 1
		p, err := New(Options{Name: "test", Algorithm: "first", Breaker: o, Clock: h.now, Initial: Healthy,
			TryAllWhenNone: rapid.Bool().Draw(t, "try all")})
		if err != nil {
			t.Fatal(err)
		}
		names := []string{"a", "b", "c", "d"}
		for i, id := range names {
			if err := p.Add(at(id, i/2, "", 0)); err != nil {
				t.Fatal(err)
			}
		}
		id := rapid.SampledFrom(names)
		t.Repeat(map[string]func(*rapid.T){
			"verdict": func(t *rapid.T) {
				v := rapid.SampledFrom([]Verdict{Healthy, Unhealthy, WrongRole, Lagging, Fallback}).Draw(t, "verdict")
				_ = p.SetVerdict(id.Draw(t, "id"), v, "")
			},
			"mode": func(t *rapid.T) { _ = p.SetMode(id.Draw(t, "id"), Mode(rapid.IntRange(0, 2).Draw(t, "mode"))) },
			"fail": func(t *rapid.T) {
				if l, err := p.Pick(PickContext{}); err == nil {
					l.Release(ConnectRefused)
				}
				p.actOnRecords()
			},
			"time": func(t *rapid.T) { h.pass(time.Duration(rapid.IntRange(1, 30).Draw(t, "s")) * time.Second) },
			"": func(t *rapid.T) {
				healthy, standIn := false, false
				for _, b := range p.Backends() {
					usable := b.Mode == Ready && b.Breaker == Closed
					healthy = healthy || usable && b.Verdict == Healthy
					standIn = standIn || usable && b.Verdict == Fallback
				}
				if p.FallsBack() != (standIn && !healthy) || p.FallsBack() && p.TriesAll() {
					t.Fatalf("FallsBack %v: %+v", p.FallsBack(), p.Backends())
				}
				for _, b := range p.Backends() {
					usable := b.Mode == Ready && b.Breaker == Closed
					want := usable && (b.Verdict == Healthy || b.Verdict == Fallback && p.FallsBack())
					if !p.TriesAll() && b.Eligible != want {
						t.Fatalf("FallsBack %v, and %+v", p.FallsBack(), b)
					}
				}
				if p.FallsBack() {
					fell++
				}
			},
		})
	})
	if fell == 0 && !testing.Short() { // with few cases chance decides
		t.Error("no pool fell back; this test holds nothing of it")
	}
}

// TestBreakerOfAnotherNamedRole holds that a backend whose source gives it another role has a closed breaker, and that
// one whose role becomes known keeps its breaker.
func TestBreakerOfAnotherNamedRole(t *testing.T) {
	for _, tt := range []struct {
		from, to Role
		want     Breaker
	}{{RolePrimary, RoleReplica, Closed}, {RoleReplica, RolePrimary, Closed}, {RoleUnknown, RolePrimary, Open}} {
		var h hand
		o := usual
		o.Failures = 1
		p := made(t, Options{Algorithm: "first", Breaker: o, Clock: h.now})
		specs := []Spec{at("a", 0, "", 0), at("b", 0, "", 0)}
		specs[0].Role = tt.from
		_, err := p.Reconcile("test", specs)
		must(t, err)
		l, err := p.Pick(from(1))
		must(t, err)
		l.Release(ConnectRefused)
		p.actOnRecords()
		if p.Backends()[0].Breaker != Open {
			t.Fatalf("%v to %v: the breaker did not open", tt.from, tt.to)
		}
		specs[0].Role = tt.to
		_, err = p.Reconcile("test", specs)
		must(t, err)
		if got := p.Backends()[0].Breaker; got != tt.want {
			t.Errorf("%v to %v: the breaker is %v, want %v", tt.from, tt.to, got, tt.want)
		}
	}
}
