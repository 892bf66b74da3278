package pool

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestRunTimeChangesStayWithTheName gives a backend another address, tier or zone: run-time settings hold unless the
// source has changed the same setting, and events report the overruled ones.
func TestRunTimeChangesStayWithTheName(t *testing.T) {
	set := func(t *testing.T, p *Pool) {
		must(t, p.SetMode("a", Maintenance))
		must(t, p.SetWeight("a", 9))
		must(t, p.SetMaxSessions("a", 5))
	}
	for name, tt := range map[string]struct {
		change  func(s *Spec)
		want    setting
		dropped string
	}{
		"address": {elsewhere, setting{9, Unknown, Maintenance, 5, 0}, ""},
		"tier":    {func(s *Spec) { s.Tier = 2 }, setting{9, Unknown, Maintenance, 5, 2}, ""},
		"zone":    {func(s *Spec) { s.Zone = "z" }, setting{9, Unknown, Maintenance, 5, 0}, ""},
		"address and weight": {func(s *Spec) { elsewhere(s); s.Weight = 3 }, setting{3, Unknown, Maintenance, 5, 0},
			`weight of backend "a" stays as it is configured: its source says something else now`},
		"zone and mode": {func(s *Spec) { s.Zone, s.Mode = "z", Drain }, setting{9, Unknown, Drain, 5, 0},
			`mode of backend "a" stays as it is configured: its source says something else now`},
		"limit": {func(s *Spec) { s.MaxSessions = 7 }, setting{9, Healthy, Maintenance, 7, 0},
			`max_sessions of backend "a" stays as it is configured: its source says something else now`},
	} {
		for _, source := range []string{Configuration, "file", "srv"} {
			p := made(t, Options{})
			a := at("a", 0, "", 0)
			answer(t, p, source, a)
			set(t, p)
			overrides := p.Overrides()
			reconfigured(t, p, func(o *Options) { o.Initial = Unknown })
			next := changed(a, tt.change)
			d, err := p.WouldReconcile(source, []Spec{next})
			must(t, err)
			events := p.Subscribe(9)
			answer(t, p, source, next)
			b := p.Backends()[0]
			if got := settingOf(b); got != tt.want || b.Addr != next.Addr || b.Zone != next.Zone {
				t.Errorf("%s, by %s: it is %+v at %v, want %+v", name, source, got, b.Addr, tt.want)
			}
			for _, s := range d.Coming {
				if s.Mode != tt.want.mode || s.Weight != tt.want.weight || s.MaxSessions != tt.want.most {
					t.Errorf("%s, by %s: expected is %+v", name, source, s)
				}
			}
			var announced, reported []string
			for _, u := range d.Dropped {
				announced = append(announced, u.String())
			}
			for _, e := range drain(events) {
				if o, is := e.(Overruled); is {
					reported = append(reported, o.Dropped.String())
				}
			}
			events.Close()
			if strings.Join(announced, "; ") != tt.dropped || !slices.Equal(reported, announced) {
				t.Errorf("%s, by %s: announced %q, reported %q, want %q", name, source, announced, reported, tt.dropped)
			}
			// A restart with the new answer has the same result.
			q := made(t, Options{})
			answer(t, q, source, next)
			unapplied, err := q.Restore(overrides)
			must(t, err)
			want := tt.want
			want.verdict = Healthy
			if got := settingOf(q.Backends()[0]); got != want || len(unapplied) != len(announced) {
				t.Errorf("%s, by %s, after a restart: it is %+v, not applied %v", name, source, got, unapplied)
			}
		}
	}
}

// TestReplacedBackendsAreCounted holds that a backend counts the leases on earlier backends of its id, for drains.
func TestReplacedBackendsAreCounted(t *testing.T) {
	p := made(t, Options{})
	a := at("a", 0, "", 0)
	answer(t, p, Configuration, a)
	_, leases := picks(p, 2)
	must(t, p.SetMode("a", Drain))
	a = changed(a, elsewhere)
	answer(t, p, Configuration, a)
	a.Zone = "z"
	answer(t, p, Configuration, a)
	former := func() int64 { return p.Backends()[0].Former }
	if b := p.Backends()[0]; b.Mode != Drain || b.Leases != 0 || former() != 2 {
		t.Errorf("it is %v, with %d leases and %d on those before", b.Mode, b.Leases, former())
	}
	leases[0].Release(Served)
	leases[1].Release(Served)
	a.Zone = "y"
	answer(t, p, Configuration, a)
	if n := len(p.byID["a"].backend.former); former() != 0 || n != 1 {
		t.Errorf("%d leases on %d before", former(), n)
	}
}

// TestAddressesAreUnique holds that an address belongs to one backend of a pool, in whatever form and order it is
// given.
func TestAddressesAreUnique(t *testing.T) {
	a := at("a", 0, "", 0)
	other := changed(a, func(s *Spec) { s.ID = "other" })
	mapped := changed(other, func(s *Spec) {
		s.Addr = At(netip.AddrPortFrom(netip.AddrFrom16(a.Addr.Addr().As16()), a.Addr.Port()))
	})
	p := made(t, Options{})
	answer(t, p, Configuration, a)
	before := p.snap.Load()
	for _, s := range []Spec{other, mapped} {
		if err := p.Add(s); !errors.Is(err, ErrDuplicateAddress) || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("added at an address that is taken: error %v", err)
		}
	}
	b := at("b", 0, "", 0)
	if err := p.Add(b, changed(b, func(s *Spec) { s.ID = "c" })); !errors.Is(err, ErrDuplicateAddress) {
		t.Errorf("two added at one address: error %v", err)
	}
	if _, err := p.Reconcile("file", []Spec{b, changed(b, func(s *Spec) { s.ID = "c" })}); !errors.Is(err,
		ErrDuplicateAddress) {
		t.Errorf("two named at one address: error %v", err)
	}
	if p.snap.Load() != before {
		t.Errorf("something was done: %v", ids(p))
	}
	if r := answer(t, p, "dns", mapped); r != (Reconciled{Ignored: 1}) {
		t.Errorf("discovered at an address of the configuration: %+v", r)
	}
	must(t, p.Remove("a"))
	must(t, p.Add(other)) // its place is free
	if r := answer(t, p, Configuration, a); r != (Reconciled{Held: 1}) || !slices.Equal(ids(p), []string{"other"}) {
		t.Errorf("the next answer with nothing new: %+v, and %v", r, ids(p))
	}
}

// TestConfigurationGoesFirst holds that backends which the configuration begins to name replace those of any other
// source, and that the same answer again changes nothing.
func TestConfigurationGoesFirst(t *testing.T) {
	hand := at("hand", 0, "", 0)
	for name, tt := range map[string]struct {
		spec  Spec
		want  Reconciled
		same  bool // the same Backend, with its leases
		why   Overruling
		after setting
	}{
		"the same": {hand, Reconciled{Changed: 1}, true, OverruledID,
			setting{1, Healthy, Drain, 0, 0}},
		"another weight": {changed(hand, heavier), Reconciled{Changed: 1}, true, OverruledID,
			setting{2, Healthy, Drain, 0, 0}},
		"the same id elsewhere": {changed(hand, elsewhere), Reconciled{Changed: 1}, false, OverruledID,
			setting{1, Healthy, Drain, 0, 0}},
		"another id at the same address": {changed(hand, func(s *Spec) { s.ID = "config" }),
			Reconciled{Added: 1, Removed: 1}, false, OverruledAddr, setting{1, Healthy, Ready, 0, 0}},
	} {
		for _, source := range []string{"", "dns"} {
			p := made(t, Options{})
			if source == "" {
				must(t, p.Add(hand))
			} else {
				answer(t, p, source, hand)
			}
			_, leases := picks(p, 1)
			must(t, p.SetMode("hand", Drain))
			d, err := p.WouldReconcile(Configuration, []Spec{tt.spec})
			must(t, err)
			if r := answer(t, p, Configuration, tt.spec); r != tt.want || d.Counts != r {
				t.Errorf("%s, of %q: %+v, announced %+v; want %+v", name, source, r, d.Counts, tt.want)
			}
			b := p.Backends()
			if len(b) != 1 || b[0].ID != tt.spec.ID || b[0].Source != Configuration || settingOf(b[0]) != tt.after ||
				(b[0].Leases == 1) != tt.same {
				t.Errorf("%s, of %q: the pool has %+v", name, source, b)
			}
			if source == "" && (len(d.Dropped) != 1 || d.Dropped[0].Why != tt.why ||
				d.Dropped[0].Override.Kind != OverrideAdded) {
				t.Errorf("%s: dropped is %v", name, d.Dropped)
			}
			before := p.snap.Load()
			if r := answer(t, p, Configuration, tt.spec); r != (Reconciled{}) || p.snap.Load() != before {
				t.Errorf("%s, of %q: said once more, it makes %+v", name, source, r)
			}
			if source != "" {
				if r := answer(t, p, source, hand); r.Ignored != 1 && tt.spec.Addr == hand.Addr {
					t.Errorf("%s: the next answer of %q makes %+v", name, source, r)
				}
			}
			leases[0].Release(Served)
		}
	}
}
