package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// answer reconciles a pool with a source's answer, and returns the result.
func answer(t testing.TB, p *Pool, source string, specs ...Spec) Reconciled {
	t.Helper()
	r, err := p.Reconcile(source, specs)
	must(t, err)
	return r
}

// changed returns s with another setting.
func changed(s Spec, change func(s *Spec)) Spec {
	change(&s)
	return s
}

func heavier(s *Spec)   { s.Weight++ }
func elsewhere(s *Spec) { s.Addr = At(netip.MustParseAddrPort("127.9.9.9:9")) }

// TestRemovedStaysAway walks through what brings back a backend that was removed by hand.
func TestRemovedStaysAway(t *testing.T) {
	a, b := at("a", 0, "", 0), at("b", 0, "", 0)
	p := made(t, Options{})
	answer(t, p, "config", a, b)
	must(t, p.SetWeight("a", 9)) // is not what its source says
	must(t, p.Remove("a"))
	for _, step := range []struct {
		what  string
		do    func() Reconciled
		want  Reconciled
		ids   string
		holds int // removals remembered
	}{
		{"the same", func() Reconciled { return answer(t, p, "config", a, b) }, Reconciled{Held: 1}, "b", 1},
		{"the same, mapped into IPv6", func() Reconciled {
			return answer(t, p, "config", b, changed(a, func(s *Spec) {
				s.Addr = At(netip.AddrPortFrom(netip.AddrFrom16(s.Addr.Addr().As16()), s.Addr.Port()))
			}))
		}, Reconciled{Held: 1}, "b", 1},
		{"another source", func() Reconciled { return answer(t, p, "dns", a) }, Reconciled{Added: 1}, "b a", 1},
		{"with that there", func() Reconciled { return answer(t, p, "config", a, b) }, Reconciled{Held: 1}, "b a", 1},
		{"and gone again", func() Reconciled { answer(t, p, "dns"); return answer(t, p, "config", a, b) },
			Reconciled{Held: 1}, "b", 1},
		{"added by hand", func() Reconciled { must(t, p.Add(a)); return answer(t, p, "config", a, b) },
			Reconciled{Held: 1}, "b a", 1},
		{"removed again", func() Reconciled { must(t, p.Remove("a")); return answer(t, p, "config", a, b) },
			Reconciled{Held: 1}, "b", 1},
		{"described otherwise", func() Reconciled { return answer(t, p, "config", changed(a, heavier), b) },
			Reconciled{Held: 1}, "b", 1},
		{"elsewhere", func() Reconciled { return answer(t, p, "config", changed(a, elsewhere), b) },
			Reconciled{Held: 1}, "b", 1},
		{"not named", func() Reconciled { return answer(t, p, "config", b) }, Reconciled{}, "b", 0},
		{"named again", func() Reconciled { return answer(t, p, "config", a, b) }, Reconciled{Added: 1}, "b a", 0},
	} {
		if got := step.do(); got != step.want || strings.Join(ids(p), " ") != step.ids ||
			len(p.removals) != step.holds {
			t.Errorf("%s: %+v and %v, %d removals; want %+v and %s, %d", step.what, got, ids(p), len(p.removals),
				step.want, step.ids, step.holds)
		}
	}
}

// TestWouldReconcile holds the difference for each kind of change, and that nothing changes.
func TestWouldReconcile(t *testing.T) {
	byHand, moved := at("by hand", 0, "", 0), changed(at("b", 0, "", 0), elsewhere)
	p := made(t, Options{Breaker: usual}, byHand)
	answer(t, p, "config", at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0), at("gone", 0, "", 0),
		at("held", 0, "", 0))
	must(t, p.Remove("held"))
	must(t, p.SetWeight("a", 9))
	must(t, p.SetMode("b", Maintenance))
	must(t, p.SetMode("gone", Drain))
	p.byID["a"].backend.record.failures.Store(2)
	before := p.snap.Load()
	specs := []Spec{
		at("new", 0, "", 0), changed(at("a", 0, "", 5), func(s *Spec) { s.Weight, s.Mode = 3, Drain }), moved,
		at("c", 0, "", 0), at("held", 0, "", 0), byHand,
	}
	weight, draining := uint32(9), Drain
	ofA := Override{Kind: OverrideChanged, Source: "config", Base: at("a", 0, "", 0), Weight: &weight}
	ofGone := Override{Kind: OverrideChanged, Source: "config", Base: at("gone", 0, "", 0), Mode: &draining}
	want := Difference{
		Counts: Reconciled{Added: 1, Removed: 1, Changed: 3, Held: 1}, Removed: []string{"b", "gone"},
		Added:  []string{"new", "b"},
		Coming: []Spec{specs[0], changed(moved, func(s *Spec) { s.Mode = Maintenance })},
		Changed: []Changed{
			{ID: "a", Fields: []string{"weight", "max_sessions", "mode"}}, {ID: "by hand", Owner: true},
		},
		Dropped: []Unapplied{
			{Override: ofA, Field: "weight", Why: OverruledValue, Now: specs[1]},
			{Override: Override{Kind: OverrideAdded, Base: byHand}, Why: OverruledID, Now: byHand},
			{Override: ofGone, Why: OverruledAbsent},
		},
	}
	d, err := p.WouldReconcile("config", specs)
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("difference is %+v, %v, want %+v", d, err, want)
	}
	if p.snap.Load() != before || len(p.removals) != 1 || p.byID["a"].backend.record.failures.Load() != 2 {
		t.Error("something was done")
	}
	if _, err := p.WouldReconcile("config", append(specs, specs[0])); !errors.Is(err, ErrDuplicateBackend) {
		t.Errorf("of a duplicate: error %v", err)
	}
}

// TestReconcileKnowsVerdicts holds that a backend with a known verdict is eligible from its first snapshot on, and that
// others wait for one.
func TestReconcileKnowsVerdicts(t *testing.T) {
	p, err := New(Options{Name: "test", Algorithm: "round_robin"})
	must(t, err)
	answer(t, p, "config", at("old", 0, "", 0))
	must(t, p.SetVerdict("old", Healthy, "checked"))
	events := p.Subscribe(10)
	defer events.Close()
	generation := p.generation
	known := []Judgement{{"a", Healthy, "heard"}, {"ill", Unhealthy, "refused"}, {"old", Unhealthy, "x"},
		{"nobody", Healthy, "x"}}
	_, err = p.Reconcile("config", []Spec{at("a", 0, "", 0), at("ill", 0, "", 0), at("new", 0, "", 0)}, known...)
	must(t, err)
	want := map[string]Verdict{"a": Healthy, "ill": Unhealthy, "new": Unknown}
	for _, b := range p.Backends() {
		if b.Verdict != want[b.ID] || b.Eligible != (b.ID == "a") || b.Since.IsZero() ||
			b.ID == "a" && b.Reason != "heard" {
			t.Errorf("%q is %+v", b.ID, b)
		}
	}
	if p.generation != generation+1 || len(drain(events)) != 4 {
		t.Errorf("%d snapshots, want one", p.generation-generation)
	}
	var invalid *InvalidBackendError
	before := p.snap.Load()
	if _, err := p.Reconcile("config", nil, Judgement{"a", Fallback + 1, ""}); !errors.As(err, &invalid) ||
		p.snap.Load() != before {
		t.Errorf("an undefined verdict: error %v, changed %v", err, p.snap.Load() != before)
	}
	_, err = p.Reconcile("config", []Spec{changed(at("a", 0, "", 0), elsewhere)}, Judgement{"a", Lagging, "heard"})
	must(t, err)
	if b := p.Backends()[0]; b.Verdict != Lagging {
		t.Errorf("one that replaces another is %v", b.Verdict)
	}
}

// inShort puts overrides into a few words each.
func inShort(overrides []Override) string {
	var words []string
	for _, o := range overrides {
		w := fmt.Sprintf("%s %s/%s", o.Kind, o.Source, o.Base.ID)
		if o.Weight != nil {
			w += fmt.Sprint(" w", *o.Weight)
		}
		if o.MaxSessions != nil {
			w += fmt.Sprint(" l", *o.MaxSessions)
		}
		if o.Mode != nil {
			w += " " + o.Mode.String()
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

// overridden returns a pool with run-time changes of every kind, and the answers of its sources.
func overridden(t testing.TB) (p *Pool, config, dns []Spec) {
	p = made(t, Options{})
	config, dns = []Spec{at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 4)},
		[]Spec{at("x", 1, "z", 0), at("y", 1, "", 0)}
	answer(t, p, "config", config...)
	answer(t, p, "dns", dns...)
	must(t, p.Add(at("hand", 2, "z", 3)))
	must(t, p.SetWeight("hand", 7))
	must(t, p.SetMode("hand", Drain))
	must(t, p.Remove("b"))
	must(t, p.Remove("y"))
	must(t, p.SetWeight("a", 0))
	must(t, p.SetMode("a", Maintenance))
	must(t, p.SetMaxSessions("c", 0))
	must(t, p.SetMode("x", Drain))
	must(t, p.SetWeight("x", 5))
	must(t, p.SetWeight("x", 1)) // as it was
	return p, config, dns
}

const allOverrides = "changed config/a w0 maintenance, changed config/c l0, changed dns/x drain, added /hand, removed config/b, removed dns/y"

// TestOverridesAreAllThatWasDone holds that Overrides returns every run-time change, with its values.
func TestOverridesAreAllThatWasDone(t *testing.T) {
	p, _, _ := overridden(t)
	all := p.Overrides()
	if got := inShort(all); got != allOverrides {
		t.Errorf("overrides are %s, want %s", got, allOverrides)
	}
	if s := all[3].Base; s.Weight != 7 || s.Mode != Drain || s.MaxSessions != 3 || s.Tier != 2 || s.Zone != "z" {
		t.Errorf("the one by hand is %+v", s)
	}
	if n := len(made(t, Options{}).Overrides()); n != 0 {
		t.Errorf("a new pool has %d", n)
	}
}
