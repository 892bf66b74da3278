package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// TestReconcile walks a pool through the answers of a source.
func TestReconcile(t *testing.T) {
	p := made(t, Options{}, at("static", 0, "", 0))
	events := p.Subscribe(100)
	defer events.Close()
	heavy := func(s Spec, weight uint32) Spec { s.Weight = weight; return s }
	elsewhere := at("c", 0, "", 0)
	elsewhere.Addr = netip.MustParseAddrPort("127.9.9.9:9")
	sameAddress := at("other name", 0, "", 0)
	sameAddress.Addr = at("static", 0, "", 0).Addr
	for _, step := range []struct {
		what  string
		specs []Spec
		want  Reconciled
		ids   []string
		event string
	}{
		{"first answer", []Spec{at("b", 0, "", 0), at("c", 0, "", 0)}, Reconciled{Added: 2}, []string{"static", "b", "c"}, "+b +c"},
		{"the same in another order", []Spec{at("c", 0, "", 0), at("b", 0, "", 0)}, Reconciled{}, []string{"static", "b", "c"}, ""},
		{"other settings", []Spec{heavy(at("b", 0, "", 4), 3), at("c", 0, "", 0)}, Reconciled{Changed: 1}, []string{"static", "b", "c"}, "w1>3 l0>4"},
		{"another address", []Spec{heavy(at("b", 0, "", 4), 3), elsewhere}, Reconciled{Changed: 1}, []string{"static", "b", "c"}, "-c +c"},
		{"another tier", []Spec{heavy(at("b", 2, "", 4), 3), elsewhere}, Reconciled{Changed: 1}, []string{"static", "c", "b"}, "-b +b"},
		{"one the pool has", []Spec{at("static", 0, "", 0), elsewhere}, Reconciled{Removed: 1, Ignored: 1}, []string{"static", "c"}, "-b"},
		{"one under another name", []Spec{sameAddress, elsewhere}, Reconciled{Ignored: 1}, []string{"static", "c"}, ""},
		{"none", nil, Reconciled{Removed: 1}, []string{"static"}, "-c"},
	} {
		got, err := p.Reconcile("dns", step.specs)
		must(t, err)
		if got != step.want || !slices.Equal(ids(p), step.ids) {
			t.Errorf("%s: %+v and backends %v, want %+v and %v", step.what, got, ids(p), step.want, step.ids)
		}
		var told string
		for len(events.C()) > 0 {
			switch e := (<-events.C()).(type) {
			case Added:
				told += " +" + e.Backend.ID
			case Removed:
				told += " -" + e.Backend.ID
			case WeightChanged:
				told += fmt.Sprintf(" w%d>%d", e.From, e.To)
			case LimitChanged:
				told += fmt.Sprintf(" l%d>%d", e.From, e.To)
			}
		}
		if told != "" {
			told = told[1:]
		}
		if told != step.event {
			t.Errorf("%s: events %q, want %q", step.what, told, step.event)
		}
	}
	for _, b := range p.Backends() {
		if b.Source != "" {
			t.Errorf("%s says that it comes from %q", b.ID, b.Source)
		}
	}
}

// TestReconcileIsAllOrNothing holds that an answer with a mistake changes nothing.
func TestReconcileIsAllOrNothing(t *testing.T) {
	p := made(t, Options{})
	_, err := p.Reconcile("file", []Spec{at("a", 0, "", 0)})
	must(t, err)
	before := fmt.Sprint(p.Backends())
	_, err = p.Reconcile("file", []Spec{at("b", 0, "", 0), at("b", 0, "", 0)})
	if !errors.Is(err, ErrDuplicateBackend) {
		t.Errorf("an id twice: error %v", err)
	}
	var invalid *InvalidBackendError
	if _, err = p.Reconcile("file", []Spec{at("b", 0, "", 0), at("c", MaxTier+1, "", 0)}); !errors.As(err, &invalid) || invalid.Field != "tier" {
		t.Errorf("a tier out of range: error %v", err)
	}
	if after := fmt.Sprint(p.Backends()); after != before {
		t.Errorf("mistakes changed the pool from %s to %s", before, after)
	}
}

// TestReconcileKeepsWhatWasSet holds that an operator's setting lasts until the source says something else of it.
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
		t.Errorf("after a new weight it has weight %d, mode %v, limit %d; want 2, drain, 5", b.Weight, b.Mode, b.MaxSessions)
	}
	answer.Mode, answer.MaxSessions = Maintenance, 7
	reconcile()
	if b := p.Backends()[0]; b.Weight != 2 || b.Mode != Maintenance || b.MaxSessions != 7 || b.Source != "file" {
		t.Errorf("after the rest it is %+v", b)
	}
}

// TestReplacedBackendKeepsItsLeases holds that the leases on a backend outlive its replacement under the same id, and do not
// count for the new one.
func TestReplacedBackendKeepsItsLeases(t *testing.T) {
	p := made(t, Options{})
	answer := at("a", 0, "", 1)
	_, err := p.Reconcile("dns", []Spec{answer})
	must(t, err)
	_, leases := picks(p, 1)
	answer.Addr = netip.MustParseAddrPort("127.9.9.9:9")
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
	if !is || e.Pool != "test" || e.Source != "dns" || e.Found != 3 || e.Changed.Added != 2 || e.Err != failure || e.At.IsZero() {
		t.Errorf("told of %+v", e)
	}
}
