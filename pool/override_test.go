package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
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
func elsewhere(s *Spec) { s.Addr = netip.MustParseAddrPort("127.9.9.9:9") }

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
				s.Addr = netip.AddrPortFrom(netip.AddrFrom16(s.Addr.Addr().As16()), s.Addr.Port())
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
	if _, err := p.Reconcile("config", nil, Judgement{"a", Lagging + 1, ""}); !errors.As(err, &invalid) ||
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

// TestRestoreInAnyOrder restores before, between and after the sources' first answers: the pool is then as before,
// nothing is overruled, and Overrides returns the same throughout.
func TestRestoreInAnyOrder(t *testing.T) {
	p, config, dns := overridden(t)
	want := make(map[string]setting)
	for _, b := range p.Backends() {
		want[b.ID] = settingOf(b)
	}
	for when := range 3 {
		q := made(t, Options{})
		for step := range 3 {
			if step == when {
				unapplied, err := q.Restore(p.Overrides())
				must(t, err)
				if len(unapplied) != 0 {
					t.Errorf("restored at %d: not applied are %v", when, unapplied)
				}
			}
			if step >= when {
				if got, n := q.Overrides(), len(p.Overrides()); len(got) != n {
					t.Errorf("restored at %d, at %d there are %s", when, step, inShort(got))
				}
			}
			switch step {
			case 0:
				answer(t, q, "config", config...)
			case 1:
				answer(t, q, "dns") // which knows nothing yet
				answer(t, q, "dns", dns[1])
				answer(t, q, "dns", dns...)
			}
		}
		for _, b := range q.Backends() {
			if settingOf(b) != want[b.ID] {
				t.Errorf("restored at %d: %q is %+v, want %+v", when, b.ID, settingOf(b), want[b.ID])
			}
		}
		got := strings.Split(inShort(q.Overrides()), ", ")
		was := strings.Split(allOverrides, ", ")
		slices.Sort(got)
		slices.Sort(was)
		if len(q.Backends()) != len(want) || !slices.Equal(got, was) {
			t.Errorf("restored at %d: %v, overrides %v", when, ids(q), got)
		}
		answer(t, q, "dns", dns[0])
		if n := len(q.removals); n != 1 {
			t.Errorf("a removal is not forgotten when its source names the backend no more: %d", n)
		}
	}
}

// TestRestoreYieldsToTheSource holds for each setting that a source's later change overrules the restored value.
func TestRestoreYieldsToTheSource(t *testing.T) {
	p, config, dns := overridden(t)
	overrides := p.Overrides()
	config[0].Weight = 3              // of which the mode stays
	config[1].MaxSessions = 9         // which was removed
	elsewhere(&config[2])             // of which the limit stays
	handAddr := at("other", 0, "", 0) // where one was added by hand
	handAddr.Addr = overrides[3].Base.Addr
	config = append(config, handAddr)

	for _, first := range []bool{true, false} {
		q := made(t, Options{})
		var unapplied []Unapplied
		restore := func() {
			var err error
			unapplied, err = q.Restore(overrides)
			must(t, err)
		}
		if first {
			restore()
		}
		r := answer(t, q, "config", config...)
		if want := (Reconciled{Added: 3, Removed: 1, Held: 1}); first && r != want {
			t.Errorf("after Restore the first answer makes %+v, want %+v", r, want)
		}
		if !first {
			restore()
			var words []string
			for _, u := range unapplied {
				words = append(words, u.String())
			}
			want := []string{
				`weight of backend "a" stays as it is configured: its source says something else now`,
				`backend "hand" stays as it is configured, and not added by hand: there is another backend at that address now`,
			}
			if !slices.Equal(words, want) || unapplied[0].Now != config[0] || unapplied[1].Now != handAddr {
				t.Errorf("not applied are %q, want %q", words, want)
			}
		}
		answer(t, q, "dns", changed(dns[0], func(s *Spec) { s.Mode = Maintenance }))
		if len(q.removals) != 2 || len(q.awaited) != 0 {
			t.Errorf("restored first %v: remembered are %v and %v, want the removals of b and y",
				first, q.removals, q.awaited)
		}
		got := make(map[string]setting)
		for _, b := range q.Backends() {
			got[b.ID] = settingOf(b)
		}
		want := map[string]setting{
			"a": {3, Healthy, Maintenance, 0, 0}, "c": {1, Healthy, Ready, 0, 0}, "other": {1, Healthy, Ready, 0, 0},
			"x": {1, Healthy, Maintenance, 0, 1},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("restored first %v: %+v, want %+v", first, got, want)
		}
	}
}

// TestRestoredByHand holds when one added by hand makes room, and when it stays.
func TestRestoredByHand(t *testing.T) {
	hand := []Override{{Kind: OverrideAdded, Base: at("a", 3, "", 0)}}
	same := at("a", 0, "", 0)
	p := made(t, Options{})
	_, err := p.Restore(hand)
	must(t, err)
	d, err := p.WouldReconcile("config", []Spec{same})
	must(t, err)
	if r := answer(t, p, "config", same); r != (Reconciled{Changed: 1}) || r != d.Counts || len(d.Added) != 1 ||
		len(d.Removed) != 1 || p.Backends()[0].Source != "config" {
		t.Errorf("of the same id: %+v, %+v and %+v", r, d, p.Backends())
	}
	p = made(t, Options{})
	answer(t, p, "config", same)
	unapplied, err := p.Restore(hand)
	must(t, err)
	if len(unapplied) != 1 || unapplied[0].Why != OverruledID || unapplied[0].Now != same {
		t.Errorf("of an id that there is: %+v", unapplied)
	}

	p = made(t, Options{SlowStart: 1 << 40})
	answer(t, p, "config", at("b", 0, "", 0))
	_, err = p.Restore(hand)
	must(t, err)
	if partOf(p, "a") != 1 {
		t.Error("one that is restored starts slowly")
	}
	if r := answer(t, p, "dns", same); r != (Reconciled{Ignored: 1}) {
		t.Errorf("a later source makes of it %+v", r)
	}
	must(t, p.Add(at("late", 0, "", 0)))
	if partOf(p, "late") == 1 {
		t.Error("one that is added by hand to a pool at work does not start slowly")
	}

	p = made(t, Options{SlowStart: 1 << 40})
	answer(t, p, "config", at("b", 0, "", 0))
	must(t, p.Add(at("late", 0, "", 0)))
	if partOf(p, "late") == 1 {
		t.Error("the first that is added by hand to a pool at work does not start slowly")
	}
	beside, again := at("beside", 0, "", 0), at("again", 0, "", 0)
	beside.Addr, again.Addr = at("late", 0, "", 0).Addr, hand[0].Base.Addr
	unapplied, err = p.Restore([]Override{{Kind: OverrideAdded, Base: beside}, hand[0],
		{Kind: OverrideAdded, Base: again}})
	must(t, err)
	if len(unapplied) != 2 || unapplied[0].Why != OverruledAddr || unapplied[1].Why != OverruledAddr ||
		unapplied[1].Now != hand[0].Base {
		t.Errorf("of two at addresses that there are, not applied are %v", unapplied)
	}

	// In the place of one removed by hand.
	p = made(t, Options{})
	base := at("a", 0, "", 0)
	answer(t, p, "config", base)
	take := revocations(t, p)
	unapplied, err = p.Restore([]Override{hand[0], {Kind: OverrideRemoved, Source: "config", Base: base}})
	must(t, err)
	if r := answer(t, p, "config", base); len(unapplied) != 0 || len(ids(p)) != 1 || p.Backends()[0].Tier != 3 ||
		r.Held != 1 || len(take()) != 0 {
		t.Errorf("in the place of a removed one: %+v, %+v, not applied %v", p.Backends(), r, unapplied)
	}
}

// TestRestoreRefusesBadData holds that a file by somebody else changes nothing.
func TestRestoreRefusesBadData(t *testing.T) {
	good := at("a", 0, "", 0)
	weight, negative, mode := uint32(257), -1, Mode(9)
	one := uint32(1)
	ok := Override{Kind: OverrideAdded, Base: at("ok", 0, "", 0)}
	for name, tt := range map[string]struct {
		field string
		o     Override
	}{
		"no kind":               {"kind", Override{Base: good, Source: "x"}},
		"unknown kind":          {"kind", Override{Kind: "moved", Base: good, Source: "x"}},
		"changed without value": {"kind", Override{Kind: OverrideChanged, Base: good, Source: "x"}},
		"removed with value":    {"kind", Override{Kind: OverrideRemoved, Base: good, Source: "x", Weight: &one}},
		"added from elsewhere":  {"source", Override{Kind: OverrideAdded, Base: good, Source: "x"}},
		"removed from nowhere":  {"source", Override{Kind: OverrideRemoved, Base: good}},
		"changed from nowhere":  {"source", Override{Kind: OverrideChanged, Base: good, Weight: &one}},
		"base without id": {"id", Override{Kind: OverrideRemoved, Source: "x", Base: changed(good, func(s *Spec) {
			s.ID = ""
		})}},
		"base without address": {"addr", Override{Kind: OverrideAdded, Base: Spec{ID: "a"}}},
		"base of no weight": {"weight", Override{Kind: OverrideAdded, Base: changed(good, func(s *Spec) {
			s.Weight = 300
		})}},
		"weight": {"weight", Override{Kind: OverrideChanged, Source: "x", Base: good, Weight: &weight}},
		"limit": {"max_sessions", Override{Kind: OverrideChanged, Source: "x", Base: good,
			MaxSessions: &negative}},
		"mode":                {"mode", Override{Kind: OverrideChanged, Source: "x", Base: good, Mode: &mode}},
		"twice":               {"", ok},
		"changed and removed": {"", Override{Kind: OverrideAdded, Base: at("ok", 1, "", 0)}},
	} {
		p := made(t, Options{})
		before := p.snap.Load()
		unapplied, err := p.Restore([]Override{ok, tt.o})
		var invalid *InvalidOverrideError
		var backend *InvalidBackendError
		if !errors.As(err, &invalid) || invalid.Index != 1 || !reflect.DeepEqual(invalid.Override, tt.o) ||
			unapplied != nil {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if tt.field == "" && !errors.Is(err, ErrDuplicateBackend) || tt.field != "" &&
			(!errors.As(err, &backend) || backend.Field != tt.field) {
			t.Errorf("%s: error %v, want one of %q", name, err, tt.field)
		}
		if p.snap.Load() != before || len(p.awaited)+len(p.removals) > 0 ||
			!strings.Contains(err.Error(), fmt.Sprintf("%q", tt.o.Base.ID)) {
			t.Errorf("%s: something was restored; error %v", name, err)
		}
	}
}

// TestRestoreIsTheOppositeOfOverrides makes random changes by hand and new answers, and restores the overrides in a new
// pool with the same answers: the pools are then equal.
func TestRestoreIsTheOppositeOfOverrides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		blank := func() *Pool {
			p, err := New(Options{Name: "test", Algorithm: "round_robin", Initial: Healthy})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		p := blank()
		var last []Spec
		t.Repeat(map[string]func(*rapid.T){
			"answer": func(t *rapid.T) {
				last = nil
				for _, id := range []string{"a", "b", "c"} {
					if rapid.IntRange(0, 3).Draw(t, "named") > 0 {
						last = append(last, at(id, rapid.IntRange(0, 1).Draw(t, "tier"), "",
							rapid.IntRange(0, 2).Draw(t, "limit")))
					}
				}
				d, err := p.WouldReconcile("config", last)
				if err != nil {
					t.Fatal(err)
				}
				if r, err := p.Reconcile("config", last); err != nil || r != d.Counts {
					t.Fatalf("%+v, %v; foretold %+v", r, err, d)
				}
			},
			"add":    func(t *rapid.T) { _ = p.Add(at(id.Draw(t, "id"), 5, "", 0)) },
			"remove": func(t *rapid.T) { _ = p.Remove(id.Draw(t, "id")) },
			"weight": func(t *rapid.T) { _ = p.SetWeight(id.Draw(t, "id"), rapid.Uint32Range(0, 2).Draw(t, "weight")) },
			"mode":   func(t *rapid.T) { _ = p.SetMode(id.Draw(t, "id"), Mode(rapid.IntRange(0, 2).Draw(t, "mode"))) },
			"limit": func(t *rapid.T) {
				_ = p.SetMaxSessions(id.Draw(t, "id"), rapid.IntRange(0, 2).Draw(t, "limit"))
			},
			"": func(t *rapid.T) {
				q := blank()
				for _, p := range []*Pool{p, q} { // what made room by hand comes back with the next answer
					if _, err := p.Reconcile("config", last); err != nil {
						t.Fatal(err)
					}
				}
				unapplied, err := q.Restore(p.Overrides())
				if err != nil {
					t.Fatal(err)
				}
				want, got := make(map[string]setting), make(map[string]setting)
				for _, b := range p.Backends() {
					want[b.ID] = settingOf(b)
				}
				for _, b := range q.Backends() {
					got[b.ID] = settingOf(b)
				}
				for _, u := range unapplied { // one by hand that was there before the source named it
					if u.Why != OverruledID && u.Why != OverruledAddr {
						t.Fatalf("not applied is %v", u)
					}
					delete(want, u.Override.Base.ID)
					delete(got, u.Override.Base.ID)
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("restored of %s: %+v, want %+v; not applied %v", inShort(p.Overrides()), got, want,
						unapplied)
				}
			},
		})
	})
}
