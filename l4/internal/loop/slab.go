package loop

// slabChunk is how many values of a slab are allocated at once: few enough that a quiet loop stays small.
const slabChunk = 128

// A Slab is the memory of a loop's sessions, or of its flows. The slot of an event finds one. Values never move, so
// pointers to them stay valid. A slot is used again for a later value, of another generation. Used onLoop only; its
// zero value is empty and ready.
type Slab[T any, P Slotted[T]] struct {
	chunks []*[slabChunk]T
	free   P
}

// A Slot is the part of a slab's value that the slab itself uses. The value embeds it.
type Slot[T any] struct {
	index      uint32 // set once
	generation uint32 // of the slot's use
	nextFree   *T
}

// Index is the slot's number, which Slab.At takes.
func (s *Slot[T]) Index() uint32 { return s.index }

// Generation tells the uses of a slot apart: it changes when the slab takes the value back.
func (s *Slot[T]) Generation() uint32 { return s.generation }

func (s *Slot[T]) head() *Slot[T] { return s }

// Slotted is a pointer to a value that embeds a Slot.
type Slotted[T any] interface {
	*T
	head() *Slot[T]
	InUse() bool
	Reset() // to the zero state, but for the Slot, and for memory that the slot's next value can use
}

// Take returns a value as Reset has left it. Its InUse must be true before the next walk.
func (t *Slab[T, P]) Take() *T {
	if t.free == nil {
		t.grow()
	}
	v := t.free
	h := v.head()
	t.free, h.nextFree = h.nextFree, nil
	return v
}

// Give takes a value back; its generation ends here.
func (t *Slab[T, P]) Give(v P) {
	v.Reset()
	h := v.head()
	h.generation++
	h.nextFree = t.free
	t.free = v
}

// At returns the value of a slot that Take has given out.
func (t *Slab[T, P]) At(index uint32) *T { return &t.chunks[index/slabChunk][index%slabChunk] }

func (t *Slab[T, P]) grow() {
	chunk := new([slabChunk]T)
	base := uint32(len(t.chunks) * slabChunk)
	t.chunks = append(t.chunks, chunk)
	for i := slabChunk - 1; i >= 0; i-- {
		v := P(&chunk[i])
		*v.head() = Slot[T]{index: base + uint32(i), nextFree: t.free}
		t.free = v
	}
}

// All calls f for every value in use. f may give back the value that it gets.
func (t *Slab[T, P]) All(f func(*T)) {
	for next := 0; next >= 0; {
		next = t.Some(next, f)
	}
}

// sliceChunks is how many chunks a slice of a long walk is: 256 values, some ten microseconds at most.
const sliceChunks = 2

// Some is All for one slice of the values. It begins with the chunk that an earlier call returned, at first 0, and
// returns the chunk that the next slice begins with, or a negative number after the last slice.
func (t *Slab[T, P]) Some(from int, f func(*T)) int {
	to := min(from+sliceChunks, len(t.chunks))
	for _, chunk := range t.chunks[min(from, to):to] {
		for i := range chunk {
			if P(&chunk[i]).InUse() {
				f(&chunk[i])
			}
		}
	}
	if to == len(t.chunks) {
		return -1
	}
	return to
}

// A Ref is a value of a slab in one of its generations. It stays valid as a Ref when the value is given back.
type Ref[T any, P Slotted[T]] struct {
	value      P
	generation uint32
}

// RefTo returns a Ref to a value.
func RefTo[T any, P Slotted[T]](value P) Ref[T, P] { return Ref[T, P]{value, value.head().generation} }

// Get returns the value, and whether it is still the one that the Ref was made for.
func (r Ref[T, P]) Get() (value *T, alive bool) {
	return r.value, r.value.head().generation == r.generation
}
