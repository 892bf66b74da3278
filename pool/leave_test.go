package pool

import (
	"slices"
	"testing"
	"time"
)

// TestLeaving holds which backends are to be left: with DrainSafely those that the operator puts out of use, unless
// their leases are revoked. OnLeave is called once each time that this begins.
func TestLeaving(t *testing.T) {
	remove := func(p *Pool) error { return p.Remove("a") }
	for _, tt := range []struct {
		name   string
		o      Options
		change func(p *Pool) error
		leaves bool
		calls  int
	}{
		{"not safely", Options{}, setMode("a", Drain), false, 0},
		{"ready", Options{DrainSafely: true}, setMode("a", Ready), false, 0},
		{"drain", Options{DrainSafely: true}, setMode("a", Drain), true, 1},
		{"maintenance", Options{DrainSafely: true}, setMode("a", Maintenance), true, 1},
		{"removed", Options{DrainSafely: true}, remove, true, 1},
		{"drain, maintenance and removed", Options{DrainSafely: true},
			inTurn(setMode("a", Drain), setMode("a", Maintenance), remove), true, 1},
		{"ready again", Options{DrainSafely: true}, inTurn(setMode("a", Drain), setMode("a", Ready)), false, 1},
		{"and drain again", Options{DrainSafely: true},
			inTurn(setMode("a", Drain), setMode("a", Ready), setMode("a", Drain)), true, 2},
		{"drain and unhealthy", Options{DrainSafely: true},
			inTurn(setMode("a", Drain), setVerdict("a", Unhealthy)), true, 1},
		{"unhealthy", Options{DrainSafely: true}, setVerdict("a", Unhealthy), false, 0},
		{"weight 0", Options{DrainSafely: true}, func(p *Pool) error { return p.SetWeight("a", 0) }, false, 0},
		{"revoked by maintenance", Options{DrainSafely: true, CloseOnRemove: true}, setMode("a", Maintenance), false, 0},
		{"revoked by removal", Options{DrainSafely: true, CloseOnRemove: true}, inTurn(setMode("a", Drain), remove), false,
			1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := pair(t, tt.o)
			calls := 0
			p.OnLeave(func(b *Backend) {
				if b.ID() != "a" || b.InUse() || !b.Leaving() {
					t.Errorf("%s is to be left, in use %v, leaving %v", b.ID(), b.InUse(), b.Leaving())
				}
				calls++
			})
			a := p.byID["a"].backend
			must(t, tt.change(p))
			if a.Leaving() != tt.leaves || calls != tt.calls {
				t.Errorf("leaving %v after %d calls, want %v after %d", a.Leaving(), calls, tt.leaves, tt.calls)
			}
		})
	}
}

// TestLeavingReconfigured turns DrainSafely on and off while backends are in drain.
func TestLeavingReconfigured(t *testing.T) {
	p := pair(t, Options{})
	var left []string
	p.OnLeave(func(b *Backend) { left = append(left, b.ID()) })
	must(t, p.SetMode("a", Drain))
	o := p.settings().Options
	o.DrainSafely = true
	must(t, p.Reconfigure(o))
	if !slices.Equal(left, []string{"a"}) || !p.byID["a"].backend.Leaving() || !p.DrainsSafely() {
		t.Errorf("%v are to be left", left)
	}
	o.DrainSafely = false
	must(t, p.Reconfigure(o))
	if p.byID["a"].backend.Leaving() || p.DrainsSafely() {
		t.Error("it is still to be left")
	}
}

// TestTakeLeave holds that no more sessions may leave a backend for the sake of others than was said.
func TestTakeLeave(t *testing.T) {
	p := pair(t, Options{DrainSafely: true, Rebalance: Rebalance{MaxSkew: 2, Rate: 1, MinAge: time.Minute}})
	calls := 0
	p.OnLeave(func(*Backend) { calls++ })
	a := p.byID["a"].backend
	p.mu.Lock()
	p.grantLeavesLocked(a, 2)
	p.mu.Unlock()
	taken := 0
	for a.MayLeave() && a.TakeLeave() {
		taken++
	}
	if taken != 2 || a.TakeLeave() || a.Leaving() || calls != 1 || p.RebalanceMinAge() != time.Minute {
		t.Errorf("%d taken after %d calls", taken, calls)
	}
}
