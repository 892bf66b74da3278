package pool

import (
	"errors"
	"net/netip"
	"testing"
)

// TestCheckIsNoIdentity changes the address of a backend's checks: it stays the same backend with its verdict and
// run-time settings, and an event has the new address.
func TestCheckIsNoIdentity(t *testing.T) {
	p := made(t, Options{})
	spec := at("a", 0, "", 0)
	_, err := p.Reconcile("config", []Spec{spec})
	must(t, err)
	must(t, p.SetVerdict("a", Healthy, "connected"))
	must(t, p.SetWeight("a", 7))
	events := p.Subscribe(10)
	defer events.Close()

	elsewhere := netip.MustParseAddrPort("10.0.0.5:8008")
	spec.Check = netip.MustParseAddrPort("[::ffff:10.0.0.5]:8008")
	d, err := p.WouldReconcile("config", []Spec{spec})
	must(t, err)
	if len(d.Changed) != 1 || len(d.Changed[0].Fields) != 1 || d.Changed[0].Fields[0] != "check" ||
		len(d.Added)+len(d.Removed) > 0 {
		t.Errorf("it would come to %+v, want a change of check alone", d)
	}
	for range 2 { // the second time it is no news
		_, err = p.Reconcile("config", []Spec{spec})
		must(t, err)
	}
	b := p.Backends()[0]
	if b.Check != elsewhere || b.Verdict != Healthy || b.Weight != 7 || !b.Eligible {
		t.Errorf("the backend is %+v, want the one of before, checked at %v", b, elsewhere)
	}
	if n := len(events.C()); n != 1 {
		t.Fatalf("%d events, want one", n)
	}
	if e, is := (<-events.C()).(CheckChanged); !is || e.From.IsValid() || e.To != elsewhere || e.Backend.ID != "a" {
		t.Errorf("the event is %+v", e)
	}

	for _, wrong := range []string{"10.0.0.5:0", "0.0.0.0:8008", "224.0.0.1:8008"} {
		spec := at("b", 0, "", 0)
		spec.Check = netip.MustParseAddrPort(wrong)
		var invalid *InvalidBackendError
		if err := p.Add(spec); !errors.As(err, &invalid) || invalid.Field != "check" {
			t.Errorf("check %s: %v, want an *InvalidBackendError of check", wrong, err)
		}
	}
}
