package l4

import "testing"

// TestSlab holds that a slot is used again for another generation, that walks see what is in use, and that events find
// it.
func TestSlab(t *testing.T) {
	var s slab[flow, *flow]
	const n = 3*slabChunk + 1
	door := new(flowDoor)
	var flows []*flow
	for i := range n {
		f := s.take()
		f.door = door
		if int(f.index) != i || s.at(f.index) != f {
			t.Fatalf("slot %d has index %d", i, f.index)
		}
		flows = append(flows, f)
	}
	for _, f := range flows[1:] {
		s.give(f)
	}
	seen := 0
	s.all(func(f *flow) {
		seen++
		s.give(f) // may be done from here
	})
	if seen != 1 {
		t.Errorf("a walk saw %d", seen)
	}
	if f := s.take(); f != flows[0] || f.generation != 1 || f.door != nil {
		t.Errorf("slot %d of generation %d comes next", f.index, f.generation)
	}
}
