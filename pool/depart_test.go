package pool

import (
	"slices"
	"testing"
)

// TestDrains holds which backends drain: those for which the operator is the only reason not to serve.
func TestDrains(t *testing.T) {
	for _, tt := range []struct {
		name   string
		o      Options
		change func(p *Pool) error
		drains bool
		gone   bool
	}{
		{"ready", Options{}, func(*Pool) error { return nil }, false, false},
		{"drain", Options{}, func(p *Pool) error { return p.SetMode("a", Drain) }, true, false},
		{"weight 0", Options{}, func(p *Pool) error { return p.SetWeight("a", 0) }, true, false},
		{"maintenance", Options{}, func(p *Pool) error { return p.SetMode("a", Maintenance) }, true, true},
		{"removed", Options{}, func(p *Pool) error { return p.Remove("a") }, true, true},
		{"unhealthy", Options{}, func(p *Pool) error { return p.SetVerdict("a", Unhealthy, "") }, false, false},
		{"unhealthy in drain", Options{}, inTurn(setMode("a", Drain), setVerdict("a", Unhealthy)), false, false},
		{"drain and well again", Options{}, inTurn(setVerdict("a", Unhealthy), setMode("a", Drain),
			setVerdict("a", Healthy)), true, false},
		{"unhealthy and removed", Options{},
			inTurn(setVerdict("a", Unhealthy), func(p *Pool) error { return p.Remove("a") }), false, true},
		{"drain, then removed", Options{}, inTurn(setMode("a", Drain), func(p *Pool) error { return p.Remove("a") }),
			true, true},
		{"ready again", Options{}, inTurn(setMode("a", Maintenance), setMode("a", Ready)), false, false},
		{"all are tried", Options{TryAllWhenNone: true}, inTurn(setVerdict("b", Unhealthy), setVerdict("a", Unhealthy),
			setMode("a", Drain)), true, false},
		{"wrong role, all are tried", Options{TryAllWhenNone: true},
			inTurn(setVerdict("b", Unhealthy), setVerdict("a", WrongRole), setMode("a", Drain)), false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := made(t, tt.o, at("a", 0, "", 0), at("b", 0, "", 0))
			a := p.byID["a"].backend
			must(t, tt.change(p))
			if a.Drains() != tt.drains || (a.Departed() != 0) != tt.gone || tt.drains && a.InUse() {
				t.Errorf("drains %v, departed %d, in use %v; want %v, %v", a.Drains(), a.Departed(), a.InUse(),
					tt.drains, tt.gone)
			}
			if b := p.byID["b"].backend; b.Drains() || b.Departed() != 0 {
				t.Error("the other one has changed, too")
			}
		})
	}
}

// TestDepartures holds that OnDepart is called once for each departure, whether leases are revoked or not, and that
// Departed distinguishes a return.
func TestDepartures(t *testing.T) {
	for _, o := range []Options{{}, {CloseOnRemove: true}} {
		p := pair(t, o)
		var departed []string
		p.OnDepart(func(b *Backend) {
			if b.InUse() || b.Departed() == 0 {
				t.Errorf("%s departs, in use %v, departed %d", b.ID(), b.InUse(), b.Departed())
			}
			departed = append(departed, b.ID())
		})
		a := p.byID["a"].backend
		must(t, p.SetMode("a", Drain))
		must(t, p.SetMode("a", Maintenance))
		first := a.Departed()
		must(t, p.SetWeight("a", 5))
		if a.Departed() != first {
			t.Error("another weight is no return")
		}
		must(t, p.SetMode("a", Ready))
		must(t, p.SetMode("a", Maintenance))
		if second := a.Departed(); second == 0 || second == first {
			t.Errorf("departure %d follows upon %d", second, first)
		}
		must(t, p.Remove("a"))
		must(t, p.Remove("b"))
		if want := []string{"a", "a", "b"}; !slices.Equal(departed, want) {
			t.Errorf("%v: departed are %v, want %v", o.CloseOnRemove, departed, want)
		}
	}
}

func setMode(id string, m Mode) func(*Pool) error {
	return func(p *Pool) error { return p.SetMode(id, m) }
}

func setVerdict(id string, v Verdict) func(*Pool) error {
	return func(p *Pool) error { return p.SetVerdict(id, v, "") }
}

// inTurn makes one change after another.
func inTurn(changes ...func(*Pool) error) func(*Pool) error {
	return func(p *Pool) error {
		for _, change := range changes {
			if err := change(p); err != nil {
				return err
			}
		}
		return nil
	}
}
