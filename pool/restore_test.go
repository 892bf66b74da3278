package pool

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

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
