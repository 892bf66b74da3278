package loop

import "testing"

// A thing is a value of a slab, with a timer.
type thing struct {
	Slot[thing]
	used  bool
	timer Timer[thing]
}

func (t *thing) InUse() bool { return t.used }
func (t *thing) Reset()      { *t = thing{Slot: t.Slot} }

// TestSlab holds that a slot is used again for another generation, that walks see what is in use, and that slots and
// refs find it.
func TestSlab(t *testing.T) {
	var s Slab[thing, *thing]
	const n = 3*slabChunk + 1
	var things []*thing
	for i := range n {
		f := s.Take()
		f.used = true
		if int(f.index) != i || s.At(f.index) != f {
			t.Fatalf("slot %d has index %d", i, f.index)
		}
		things = append(things, f)
	}
	first, last := RefTo(things[0]), RefTo(things[n-1])
	for _, f := range things[1:] {
		s.Give(f)
	}
	if v, alive := first.Get(); v != things[0] || !alive {
		t.Error("a ref has lost its value")
	}
	if _, alive := last.Get(); alive {
		t.Error("a ref is alive whose value was given back")
	}
	seen := 0
	s.All(func(f *thing) {
		seen++
		s.Give(f) // may be done from here
	})
	if seen != 1 {
		t.Errorf("a walk saw %d", seen)
	}
	if f := s.Take(); f != things[0] || f.generation != 1 || f.used {
		t.Errorf("slot %d of generation %d comes next", f.index, f.generation)
	}
}
