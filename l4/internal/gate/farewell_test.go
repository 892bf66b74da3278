package gate

import (
	"testing"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// TestFarewells holds that farewells are no sessions, that each takes a descriptor, that there are only so many, and
// that a drain waits for the last one.
func TestFarewells(t *testing.T) {
	s := &Sharer{Protocol: sock.TCP}
	g := newGate(t, 2*farewellPart, plenty, s)
	ls := s.Listener
	left := g.descriptorsLeft()
	for range 2 {
		if !ls.AdmitFarewell() {
			t.Fatal("there is no room")
		}
	}
	if ls.AdmitFarewell() {
		t.Error("there is room for a third")
	}
	if got := g.descriptorsLeft(); got != left-2 {
		t.Errorf("%d descriptors are left of %d", got, left)
	}
	if g.Sessions() != 0 || ls.Sessions() != 0 {
		t.Error("farewells count as sessions")
	}
	ls.LeaveFarewell()
	empty := g.Drain()
	select {
	case <-empty:
		t.Error("the drain does not wait for the farewell")
	default:
	}
	ls.LeaveFarewell()
	<-empty
	if got := g.descriptorsLeft(); got != left {
		t.Errorf("%d descriptors are left of %d", got, left)
	}
}

// TestFarewellsBounded holds that the process has only so many farewells, however many descriptors it has.
func TestFarewellsBounded(t *testing.T) {
	s := &Sharer{Protocol: sock.TCP}
	newGate(t, plenty, plenty, s)
	n := 0
	for s.Listener.AdmitFarewell() {
		n++
	}
	if n != maxFarewells {
		t.Errorf("%d farewells", n)
	}
}
