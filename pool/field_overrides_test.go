package pool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// fieldsOf returns the run-time changes of all settings of these backends.
func fieldsOf(p *Pool, ids ...string) (all []FieldOverrides) {
	for _, id := range ids {
		for _, field := range OverrideFields() {
			all = append(all, p.OverridesOf(id, field))
		}
	}
	return all
}

// sortedOverrides returns the run-time changes of a pool in a few words each.
func sortedOverrides(p *Pool) []string {
	all := strings.Split(inShort(p.Overrides()), ", ")
	slices.Sort(all)
	return all
}

// TestSetOverridesCopiesAPool has another pool take all run-time changes, before or after its sources have answered.
func TestSetOverridesCopiesAPool(t *testing.T) {
	for _, late := range []bool{false, true} {
		p, config, dns := overridden(t)
		all := fieldsOf(p, ids(p)...)
		all = append(all, fieldsOf(p, "b", "y")...)
		copied := made(t, Options{})
		answers := func() {
			answer(t, copied, "config", config...)
			answer(t, copied, "dns", dns...)
		}
		if !late {
			answers()
		}
		must(t, copied.SetOverrides(all))
		if late {
			answers()
		}
		if got, want := sortedOverrides(copied), sortedOverrides(p); !reflect.DeepEqual(got, want) {
			t.Errorf("late %v: the copy has %s, want %s", late, got, want)
		}
		generation, events := copied.generation, copied.Subscribe(10)
		must(t, copied.SetOverrides(all))
		if copied.generation != generation || len(drain(events)) != 0 {
			t.Errorf("late %v: setting the same again changes something", late)
		}
		events.Close()
		for i := range all {
			all[i].Overrides = nil
		}
		must(t, copied.SetOverrides(all))
		if got := inShort(copied.Overrides()); got != "" || len(copied.Backends()) != len(config)+len(dns) {
			t.Errorf("late %v: without changes there are %q, and %d backends", late, got, len(copied.Backends()))
		}
		for _, b := range copied.Backends() {
			if b.Weight != b.Given.Weight || b.Mode != b.Given.Mode || b.MaxSessions != b.Given.MaxSessions {
				t.Errorf("late %v: %s is not as its source says: %+v", late, b.ID, b)
			}
		}
	}
}

// TestSetOverridesKeepsOthers holds that settings which are not named stay, and a value against another base is not in
// force.
func TestSetOverridesKeepsOthers(t *testing.T) {
	p := made(t, Options{})
	answer(t, p, "config", at("a", 0, "", 0), at("b", 0, "", 0))
	must(t, p.SetWeight("a", 9))
	must(t, p.SetMode("b", Drain))
	maintenance, weight := Maintenance, uint32(7)
	must(t, p.SetOverrides([]FieldOverrides{
		{"a", "mode", []Override{{Kind: OverrideChanged, Source: "config", Base: at("a", 0, "", 0), Mode: &maintenance}}},
		{"b", "weight", []Override{{Kind: OverrideChanged, Source: "config", Base: changed(at("b", 0, "", 0), heavier),
			Weight: &weight}}},
	}))
	if got, want := inShort(p.Overrides()), "changed config/a w9 maintenance, changed config/b drain"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestSetOverridesThere walks through backends that come and go.
func TestSetOverridesThere(t *testing.T) {
	a, b := at("a", 0, "", 0), at("b", 0, "", 0)
	moved := changed(b, elsewhere)
	added := func(s Spec) Override { return Override{Kind: OverrideAdded, Base: s} }
	removed := func(s Spec) Override { return Override{Kind: OverrideRemoved, Source: "config", Base: s} }
	p := made(t, Options{})
	answer(t, p, "config", a)
	for _, step := range []struct {
		what string
		id   string
		all  []Override
		want string // the backends with their sources and addresses
	}{
		{"one added", "b", []Override{added(b)}, fmt.Sprintf("a config %s, b  %s", a.Addr, b.Addr)},
		{"the same with another weight", "b", []Override{added(changed(b, heavier))},
			fmt.Sprintf("a config %s, b  %s", a.Addr, b.Addr)},
		{"with another address", "b", []Override{added(moved)}, fmt.Sprintf("a config %s, b  %s", a.Addr, moved.Addr)},
		{"removed again", "b", nil, fmt.Sprintf("a config %s", a.Addr)},
		{"an address that is taken", "b", []Override{added(changed(b, func(s *Spec) { s.Addr = a.Addr }))},
			fmt.Sprintf("a config %s", a.Addr)},
		{"a name that is taken", "a", []Override{added(changed(a, elsewhere))}, fmt.Sprintf("a config %s", a.Addr)},
		{"removed and another in its place", "a", []Override{added(changed(a, elsewhere)), removed(a)},
			fmt.Sprintf("a  %s", moved.Addr)},
		{"removed", "a", []Override{removed(a)}, ""},
		{"back", "a", nil, fmt.Sprintf("a config %s", a.Addr)},
		{"removed before it is named", "c", []Override{removed(at("c", 0, "", 0))}, fmt.Sprintf("a config %s", a.Addr)},
	} {
		must(t, p.SetOverrides([]FieldOverrides{{step.id, FieldThere, step.all}}))
		var got []string
		for _, b := range p.Backends() {
			got = append(got, fmt.Sprintf("%s %s %s", b.ID, b.Source, b.Addr))
		}
		if strings.Join(got, ", ") != step.want {
			t.Errorf("%s: %v, want %s", step.what, got, step.want)
		}
	}
	if r := answer(t, p, "config", a, at("c", 0, "", 0)); r.Held != 1 {
		t.Errorf("the one removed before it was named: %+v", r)
	}
	must(t, p.SetOverrides([]FieldOverrides{{"c", FieldThere, nil}}))
	if got := ids(p); !reflect.DeepEqual(got, []string{"a", "c"}) {
		t.Errorf("there are %v", got)
	}
}

// TestSetOverridesAtOnce holds that many run-time changes make one snapshot, and that an address may pass from one
// backend to another.
func TestSetOverridesAtOnce(t *testing.T) {
	const n = 10_000
	specs := make([]Spec, n)
	for i := range specs {
		specs[i] = changed(at("a", 0, "", 0), func(s *Spec) {
			s.ID = fmt.Sprintf("b%d", i)
			s.Addr = At(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i%250 + 1)}), 80))
		})
	}
	p := made(t, Options{Algorithm: "maglev"})
	answer(t, p, "config", specs...)
	draining := Drain
	var all []FieldOverrides
	for i, s := range specs {
		all = append(all, FieldOverrides{s.ID, "mode",
			[]Override{{Kind: OverrideChanged, Source: "config", Base: s, Mode: &draining}}})
		if i == 0 {
			taking := changed(s, func(s *Spec) { s.ID = "other" })
			all = append(all, FieldOverrides{"other", FieldThere, []Override{{Kind: OverrideAdded, Base: taking}}},
				FieldOverrides{s.ID, FieldThere, []Override{{Kind: OverrideRemoved, Source: "config", Base: s}}})
		}
	}
	generation := p.generation
	must(t, p.SetOverrides(all))
	if p.generation != generation+1 || len(p.Backends()) != n || len(p.Overrides()) != n+1 {
		t.Errorf("%d snapshots, %d backends, %d changes", p.generation-generation, len(p.Backends()), len(p.Overrides()))
	}
}

// TestSetOverridesRefuses holds that a wrong change is refused, and that nothing happens then.
func TestSetOverridesRefuses(t *testing.T) {
	a := at("a", 0, "", 0)
	p := made(t, Options{}, a)
	answer(t, p, "config", at("b", 0, "", 0))
	heavy, light, mode, limit := uint32(MaxWeight+1), uint32(3), Mode(99), -1
	good := FieldOverrides{"b", FieldThere, []Override{{Kind: OverrideRemoved, Source: "config", Base: at("b", 0, "", 0)}}}
	before := p.snap.Load()
	of := func(o Override) []Override {
		o.Base, o.Kind, o.Source = a, OverrideChanged, "config"
		return []Override{o}
	}
	for _, wrong := range []FieldOverrides{
		{"a", "weight", of(Override{Weight: &heavy})},
		{"a", "weight", of(Override{})},
		{"a", "weight", of(Override{Weight: &light, MaxSessions: new(int)})},
		{"a", "mode", of(Override{Mode: &mode})},
		{"a", "max_sessions", of(Override{MaxSessions: &limit})},
		{"a", "weight", append(of(Override{Weight: &light}), of(Override{Weight: &light})...)},
		{"b", "weight", of(Override{Weight: &light})},
		{"a", "tier", of(Override{Weight: &light})},
		{"a", FieldThere, of(Override{Weight: &light})},
		{"a", FieldThere, []Override{{Kind: OverrideAdded, Source: "config", Base: a}}},
		{"a", FieldThere, []Override{{Kind: OverrideRemoved, Base: a}}},
		{"a", FieldThere, []Override{{Kind: "bogus", Base: a}}},
		{"a", FieldThere, []Override{{Kind: OverrideAdded, Base: Spec{ID: "a"}}}},
	} {
		var invalid *InvalidOverrideError
		if err := p.SetOverrides([]FieldOverrides{good, wrong}); !errors.As(err, &invalid) || wrong.Check() == nil {
			t.Errorf("%+v: error %v", wrong, err)
		}
	}
	if p.snap.Load() != before || len(p.removals) > 0 {
		t.Error("something was done")
	}
}

// TestSetOverridesFollows changes one pool at random and has another one take each change: both end equal, whatever
// their sources answer meanwhile.
func TestSetOverridesFollows(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 16))
		one, two := made(t, Options{}), made(t, Options{})
		specs := []Spec{at("a", 0, "", 0), at("b", 0, "", 0), at("c", 1, "", 4)}
		hand := []Spec{at("d", 0, "", 0), changed(at("a", 0, "", 0), elsewhere)}
		answer(t, one, "config", specs...)
		answer(t, two, "config", specs...)
		for range 30 {
			id := []string{"a", "b", "c", "d"}[r.IntN(4)]
			switch r.IntN(5) {
			case 0:
				_ = one.Remove(id) // it may not be there
			case 1:
				_ = one.Add(hand[r.IntN(2)])
			case 2:
				_ = one.SetWeight(id, uint32(r.IntN(3)))
			case 3:
				_ = one.SetMode(id, Modes()[r.IntN(3)])
			case 4:
				_ = one.SetMaxSessions(id, r.IntN(2))
			}
			if r.IntN(3) > 0 { // several changes may come at once
				must(t, two.SetOverrides(fieldsOf(one, "a", "b", "c", "d")))
			}
		}
		must(t, two.SetOverrides(fieldsOf(one, "a", "b", "c", "d")))
		if got, want := sortedOverrides(two), sortedOverrides(one); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: the other one has %v, want %v", seed, got, want)
		}
	}
}
