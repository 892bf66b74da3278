package pool

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestReconcile walks a pool through the answers of a source.
func TestReconcile(t *testing.T) {
	p := made(t, Options{}, at("static", 0, "", 0))
	events := p.Subscribe(100)
	defer events.Close()
	heavy := func(s Spec, weight uint32) Spec { s.Weight = weight; return s }
	elsewhere := at("c", 0, "", 0)
	elsewhere.Addr = At(netip.MustParseAddrPort("127.9.9.9:9"))
	sameAddress := at("other name", 0, "", 0)
	sameAddress.Addr = at("static", 0, "", 0).Addr
	for _, step := range []struct {
		what  string
		specs []Spec
		want  Reconciled
		ids   []string
		event string
	}{
		{"first answer", []Spec{at("b", 0, "", 0), at("c", 0, "", 0)}, Reconciled{Added: 2},
			[]string{"static", "b", "c"}, "+b +c"},
		{"the same in another order", []Spec{at("c", 0, "", 0), at("b", 0, "", 0)}, Reconciled{},
			[]string{"static", "b", "c"}, ""},
		{"other settings", []Spec{heavy(at("b", 0, "", 4), 3), at("c", 0, "", 0)}, Reconciled{Changed: 1},
			[]string{"static", "b", "c"}, "w1>3 l0>4"},
		{"another address", []Spec{heavy(at("b", 0, "", 4), 3), elsewhere}, Reconciled{Changed: 1},
			[]string{"static", "b", "c"}, "-c +c"},
		{"another tier", []Spec{heavy(at("b", 2, "", 4), 3), elsewhere}, Reconciled{Changed: 1},
			[]string{"static", "c", "b"}, "-b +b"},
		{"another zone", []Spec{heavy(at("b", 2, "z", 4), 3), elsewhere}, Reconciled{Changed: 1},
			[]string{"static", "c", "b"}, "-b +b"},
		{"all at once", []Spec{at("d", 0, "", 0), heavy(at("b", 2, "z", 4), 5), at("e", 0, "", 0)},
			Reconciled{Added: 2, Removed: 1, Changed: 1}, []string{"static", "b", "d", "e"}, "-c w3>5 +d +e"},
		{"and back", []Spec{heavy(at("b", 2, "z", 4), 3), elsewhere},
			Reconciled{Added: 1, Removed: 2, Changed: 1}, []string{"static", "b", "c"}, "-d -e w5>3 +c"},
		{"one the pool has", []Spec{at("static", 0, "", 0), elsewhere}, Reconciled{Removed: 1, Ignored: 1},
			[]string{"static", "c"}, "-b"},
		{"one under another name", []Spec{sameAddress, elsewhere}, Reconciled{Ignored: 1}, []string{"static", "c"}, ""},
		{"none", nil, Reconciled{Removed: 1}, []string{"static"}, "-c"},
	} {
		got, err := p.Reconcile("dns", step.specs)
		must(t, err)
		if got != step.want || !slices.Equal(ids(p), step.ids) {
			t.Errorf("%s: %+v and backends %v, want %+v and %v", step.what, got, ids(p), step.want, step.ids)
		}
		var changes string
		for len(events.C()) > 0 {
			switch e := (<-events.C()).(type) {
			case Added:
				changes += " +" + e.Backend.ID
			case Removed:
				changes += " -" + e.Backend.ID
			case WeightChanged:
				changes += fmt.Sprintf(" w%d>%d", e.From, e.To)
			case LimitChanged:
				changes += fmt.Sprintf(" l%d>%d", e.From, e.To)
			}
		}
		if changes != "" {
			changes = changes[1:]
		}
		if changes != step.event {
			t.Errorf("%s: events %q, want %q", step.what, changes, step.event)
		}
	}
	if b := p.Backends(); b[0].Source != "" {
		t.Errorf("the static one says that it comes from %q", b[0].Source)
	}
	must(t, p.Remove("static"))
	_, err := p.Reconcile("dns", []Spec{at("static", 0, "", 0)})
	must(t, err)
	if b := p.Backends(); len(b) != 1 || b[0].Source != "dns" {
		t.Errorf("with the static one gone the pool has %+v, want the source's", b)
	}
}

// TestReconcileIsAllOrNothing holds that an answer with a mistake changes nothing.
func TestReconcileIsAllOrNothing(t *testing.T) {
	p := made(t, Options{})
	_, err := p.Reconcile("file", []Spec{at("a", 0, "", 0)})
	must(t, err)
	must(t, p.Add(at("static", 0, "", 0)))
	before := p.snap.Load()
	events := p.Subscribe(9)
	defer events.Close()
	elsewhere := at("static", 0, "", 0)
	elsewhere.Addr = At(netip.MustParseAddrPort("127.9.9.9:9"))
	for name, specs := range map[string][]Spec{
		"a new one":             {at("b", 0, "", 0), at("b", 0, "", 0)},
		"one it has":            {at("b", 0, "", 0), at("a", 0, "", 0), at("a", 2, "", 0)},
		"one that is ignored":   {at("b", 0, "", 0), at("static", 0, "", 0), at("static", 0, "", 0)},
		"one that is elsewhere": {at("b", 0, "", 0), elsewhere, at("static", 0, "", 0)},
	} {
		if r, err := p.Reconcile("file", specs); !errors.Is(err, ErrDuplicateBackend) || r != (Reconciled{}) {
			t.Errorf("%s twice: %+v, error %v", name, r, err)
		}
	}
	var invalid *InvalidBackendError
	if _, err = p.Reconcile("file", []Spec{at("b", 0, "", 0), at("c", MaxTier+1, "", 0)}); !errors.As(err, &invalid) ||
		invalid.Field != "tier" {
		t.Errorf("a tier out of range: error %v", err)
	}
	if p.snap.Load() != before || len(events.C()) > 0 {
		t.Errorf("mistakes changed the pool to %+v, with %d events", p.Backends(), len(events.C()))
	}
}

// TestReconcileKeepsWhatWasSet holds that an operator's setting lasts until the source changes the same setting.
func TestReconcileKeepsWhatWasSet(t *testing.T) {
	p := made(t, Options{})
	answer := at("a", 0, "", 10)
	reconcile := func() {
		t.Helper()
		_, err := p.Reconcile("file", []Spec{answer})
		must(t, err)
	}
	reconcile()
	must(t, p.SetWeight("a", 9))
	must(t, p.SetMode("a", Drain))
	must(t, p.SetMaxSessions("a", 5))
	reconcile()
	answer.Weight = 2
	reconcile()
	if b := p.Backends()[0]; b.Weight != 2 || b.Mode != Drain || b.MaxSessions != 5 {
		t.Errorf("after a new weight it has weight %d, mode %v, limit %d; want 2, drain, 5",
			b.Weight, b.Mode, b.MaxSessions)
	}
	must(t, p.SetWeight("a", 9))
	answer.Mode, answer.MaxSessions = Maintenance, 7
	reconcile()
	if b := p.Backends()[0]; b.Weight != 9 || b.Mode != Maintenance || b.MaxSessions != 7 || b.Source != "file" {
		t.Errorf("after the rest it is %+v", b)
	}
}

// TestReplacedBackendKeepsItsLeases holds that the leases on a backend outlive its replacement under the same id, and
// do not count for the new one.
func TestReplacedBackendKeepsItsLeases(t *testing.T) {
	p := made(t, Options{})
	answer := at("a", 0, "", 1)
	_, err := p.Reconcile("dns", []Spec{answer})
	must(t, err)
	_, leases := picks(p, 1)
	answer.Addr = At(netip.MustParseAddrPort("127.9.9.9:9"))
	_, err = p.Reconcile("dns", []Spec{answer})
	must(t, err)
	got, _ := picks(p, 2)
	wantIDs(t, "at the new address", got, "a", "busy")
	leases[0].Release(Served)
	if n := p.Backends()[0].Leases; n != 1 {
		t.Errorf("the new one has %d leases, want its own", n)
	}
}

// TestTwoSources holds that each source has its own backends.
func TestTwoSources(t *testing.T) {
	p := made(t, Options{})
	for _, source := range []string{"file", "dns"} {
		_, err := p.Reconcile(source, []Spec{at("of "+source, 0, "", 0), at("shared", 0, "", 0)})
		must(t, err)
	}
	_, err := p.Reconcile("file", nil)
	must(t, err)
	if got := ids(p); !slices.Equal(got, []string{"of dns"}) {
		t.Errorf("backends are %v, want what the second source alone had", got)
	}
}

func TestNoteDiscovery(t *testing.T) {
	p := made(t, Options{})
	s := p.Subscribe(1)
	defer s.Close()
	failure := errors.New("no answer")
	p.NoteDiscovery("dns", 3, Reconciled{Added: 2}, failure)
	e, is := (<-s.C()).(Discovered)
	if !is || e.Pool != "test" || e.Source != "dns" || e.Found != 3 || e.Changed.Added != 2 || e.Err != failure ||
		e.At.IsZero() {
		t.Errorf("got of %+v", e)
	}
}

// A sourced is a backend in the model of TestReconcileFollowsItsModel.
type sourced struct {
	setting
	source  string
	spec    Spec // as the source said last
	backend *Backend
}

// reconciled returns the model of a pool after Reconcile, or false if the answer must be refused. It also deletes from
// away, the backends removed by hand, those that may come back.
func reconciled(model map[string]sourced, away map[named]Spec, source string, specs []Spec) (after map[string]sourced,
	r Reconciled, ok bool) {
	after = maps.Clone(model)
	mentioned, kept, gone := make(map[string]Spec), make(map[string]bool), make(map[string]bool)
	for i, s := range specs {
		if _, twice := mentioned[s.ID]; twice ||
			slices.ContainsFunc(specs[:i], func(o Spec) bool { return o.Addr == s.Addr }) {
			return model, Reconciled{}, false
		}
		mentioned[s.ID] = s
		if _, held := away[named{source, s.ID}]; held {
			r.Held++
			continue
		}
		var foreign []string
		for id, m := range model {
			if m.source != source && (id == s.ID || m.spec.Addr == s.Addr) {
				foreign = append(foreign, id)
			}
		}
		if len(foreign) > 0 && source != Configuration {
			r.Ignored++
			continue
		}
		for _, id := range foreign {
			if id != s.ID {
				gone[id] = true
			}
		}
		kept[s.ID] = true
		m, exists := model[s.ID]
		if !exists {
			r.Added++
			after[s.ID] = sourced{settingOfSpec(s), source, s, nil}
			continue
		}
		if m.spec != s || m.source != source {
			r.Changed++
		}
		if m.spec.Addr != s.Addr || m.spec.Tier != s.Tier || m.spec.Zone != s.Zone {
			m.tier, m.verdict, m.backend = s.Tier, Healthy, nil
		}
		if s.Weight != m.spec.Weight {
			m.weight = s.Weight
		}
		if s.MaxSessions != m.spec.MaxSessions {
			m.most = s.MaxSessions
		}
		if s.Mode != m.spec.Mode {
			m.mode = s.Mode
		}
		m.source, m.spec = source, s
		after[s.ID] = m
	}
	for id, m := range model {
		if (m.source == source || gone[id]) && !kept[id] {
			r.Removed++
			delete(after, id)
		}
	}
	for n := range away {
		if s, named := mentioned[n.id]; n.source == source && named {
			away[n] = s
		} else if n.source == source {
			delete(away, n)
		}
	}
	return after, r, true
}

// wantOwnAddresses holds that no two backends have the same address.
func wantOwnAddresses(t rapid.TB, p *Pool) {
	there := newDirectory(nil)
	for _, b := range p.Backends() {
		if err := there.add(Spec{ID: b.ID, Addr: b.Addr}); err != nil {
			t.Fatal(err)
		}
	}
}

func settingOfSpec(s Spec) setting {
	return setting{weight: s.Weight, verdict: Healthy, mode: s.Mode, most: s.MaxSessions, tier: s.Tier}
}

// TestReconcileFollowsItsModel makes random changes by two sources and an operator to a few backends and addresses, and
// compares the pool and its events with a map.
func TestReconcileFollowsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := New(Options{Name: "test", Algorithm: "round_robin", Initial: Healthy})
		if err != nil {
			t.Fatal(err)
		}
		events := p.Subscribe(100)
		defer events.Close()
		model, known, away := make(map[string]sourced), make(map[string]setting), make(map[named]Spec)
		id := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		draw := func(t *rapid.T) Spec {
			id := id.Draw(t, "id")
			s := spec(id, int(id[0]-'a')+rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "address")) // mostly its own
			s.Weight, s.MaxSessions = rapid.Uint32Range(0, 2).Draw(t, "weight"),
				rapid.IntRange(0, 1).Draw(t, "max_sessions")
			s.Tier, s.Zone = rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "tier"),
				rapid.SampledFrom([]string{"", "", "", "z"}).Draw(t, "zone")
			s.Mode = Mode(rapid.IntRange(0, 2).Draw(t, "mode"))
			return s
		}
		set := func(id string, err error, change func(m *sourced)) {
			m, exists := model[id]
			if exists != (err == nil) {
				t.Fatalf("change of %q, known %v: error %v", id, exists, err)
			}
			if exists {
				change(&m)
				model[id] = m
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"answer": func(t *rapid.T) {
				source := rapid.SampledFrom([]string{"dns", "file", Configuration}).Draw(t, "source")
				specs := rapid.SliceOfN(rapid.Custom(draw), 0, 4).Draw(t, "specs")
				if rapid.Bool().Draw(t, "each once") { // else most answers are refused
					there := newDirectory(nil)
					specs = slices.DeleteFunc(specs, func(s Spec) bool { return there.add(s) != nil })
				}
				after, want, ok := reconciled(model, away, source, specs)
				before := p.snap.Load()
				if d, err := p.WouldReconcile(source, specs); d.Counts != want || ok != (err == nil) ||
					p.snap.Load() != before {
					t.Fatalf("of %+v: foretold %+v, error %v, want %+v, taken: %v", specs, d, err, want, ok)
				}
				r, err := p.Reconcile(source, specs)
				if r != want || ok != (err == nil) || !ok && !errors.Is(err, ErrDuplicateBackend) &&
					!errors.Is(err, ErrDuplicateAddress) {
					t.Fatalf("of %+v: %+v, error %v, want %+v, taken: %v", specs, r, err, want, ok)
				}
				if !ok && p.snap.Load() != before {
					t.Fatal("a refused answer made another snapshot")
				}
				model = after
			},
			"add": func(t *rapid.T) {
				s := draw(t)
				_, exists := model[s.ID]
				for _, m := range model {
					exists = exists || m.spec.Addr == s.Addr
				}
				if err := p.Add(s); exists != (err != nil) {
					t.Fatalf("add of %+v: error %v", s, err)
				} else if err == nil {
					model[s.ID] = sourced{settingOfSpec(s), "", s, nil}
				}
			},
			"remove": func(t *rapid.T) {
				id := id.Draw(t, "id")
				set(id, p.Remove(id), func(*sourced) {})
				if m := model[id]; m.source != "" {
					away[named{m.source, id}] = m.spec
				}
				delete(model, id)
			},
			"the same again": func(t *rapid.T) {
				source := rapid.SampledFrom([]string{"dns", "file", Configuration}).Draw(t, "source")
				var specs []Spec
				for _, id := range slices.Sorted(maps.Keys(model)) {
					if m := model[id]; m.source == source {
						specs = append(specs, m.spec)
					}
				}
				for _, id := range []string{"a", "b", "c", "d"} {
					if s, is := away[named{source, id}]; is && rapid.Bool().Draw(t, "one removed") {
						specs = append(specs, s)
					}
				}
				after, want, ok := reconciled(model, away, source, specs)
				if r, err := p.Reconcile(source, specs); r != want || ok != (err == nil) {
					t.Fatalf("of %+v: %+v, error %v, want %+v", specs, r, err, want)
				}
				model = after
			},
			"set": func(t *rapid.T) {
				id, n := id.Draw(t, "id"), rapid.IntRange(0, 2).Draw(t, "to")
				switch rapid.IntRange(0, 2).Draw(t, "what") {
				case 0:
					set(id, p.SetWeight(id, uint32(n)), func(m *sourced) { m.weight = uint32(n) })
				case 1:
					set(id, p.SetMaxSessions(id, n), func(m *sourced) { m.most = n })
				case 2:
					set(id, p.SetMode(id, Mode(n)), func(m *sourced) { m.mode = Mode(n) })
				}
			},
			"": func(t *rapid.T) {
				wantOwnAddresses(t, p)
				var order []string
				for len(events.C()) > 0 {
					order, _ = follow(t, known, order, <-events.C())
				}
				if len(p.Backends()) != len(model) || len(known) != len(model) {
					t.Fatalf("the pool has %v, by its events %v, want %v", ids(p), known, model)
				}
				for _, m := range p.snap.Load().members {
					b, want := m.info(), model[m.backend.id]
					if want.backend == nil { // new, or to be another
						for _, old := range model {
							if old.backend == m.backend {
								t.Fatalf("%q is not another backend", b.ID)
							}
						}
						want.backend = m.backend
						model[b.ID] = want
					}
					if settingOf(b) != want.setting || known[b.ID] != want.setting {
						t.Fatalf("%q is %+v, by the events %+v, want %+v", b.ID, settingOf(b), known[b.ID],
							want.setting)
					}
					if m.backend != want.backend || b.Source != want.source || b.Addr != want.spec.Addr ||
						b.Zone != want.spec.Zone {
						t.Fatalf("%q is %+v, another one: %v; want %+v", b.ID, b, m.backend != want.backend, want)
					}
				}
			},
		})
	})
}
