package l4

// slabChunk is how many values of a slab are allocated at once: few enough that a quiet loop stays small.
const slabChunk = 128

// A slab is the memory of a loop's sessions, or of its flows. The index that an event carries finds one. Values never
// move, so pointers to them stay valid. A slot is used again for a later value, of another generation. Used onLoop
// only; its zero value is empty and ready.
type slab[T any, P slotted[T]] struct {
	chunks []*[slabChunk]T
	free   P
}

// A slot is the part of a slab's value that the slab itself uses. The value embeds it.
type slot[T any] struct {
	index      uint32 // set once
	generation uint32 // of the slot's use; an event of an earlier one is not for this value
	nextFree   *T
}

func (s *slot[T]) head() *slot[T] { return s }

// slotted is a pointer to a value that embeds a slot.
type slotted[T any] interface {
	*T
	head() *slot[T]
	inUse() bool
	reset() // to the zero state, but for the slot, and for memory that the slot's next value can use
}

// take returns a value in its zero state, see slotted. It is to be in use before the next walk.
func (t *slab[T, P]) take() *T {
	if t.free == nil {
		t.grow()
	}
	v := t.free
	h := v.head()
	t.free, h.nextFree = h.nextFree, nil
	return v
}

// give takes a value back; its generation ends here.
func (t *slab[T, P]) give(v P) {
	v.reset()
	h := v.head()
	h.generation++
	h.nextFree = t.free
	t.free = v
}

// at returns the value of an index that take has given out.
func (t *slab[T, P]) at(index uint32) *T { return &t.chunks[index/slabChunk][index%slabChunk] }

func (t *slab[T, P]) grow() {
	chunk := new([slabChunk]T)
	base := uint32(len(t.chunks) * slabChunk)
	t.chunks = append(t.chunks, chunk)
	for i := slabChunk - 1; i >= 0; i-- {
		v := P(&chunk[i])
		*v.head() = slot[T]{index: base + uint32(i), nextFree: t.free}
		t.free = v
	}
}

// all calls f for every value in use. f may give back the value that it gets.
func (t *slab[T, P]) all(f func(*T)) {
	for next := 0; next >= 0; {
		next = t.some(next, f)
	}
}

// sliceChunks is how many chunks a slice of a long walk is: 256 values, some ten microseconds at most.
const sliceChunks = 2

// some is all for one slice of the values. It begins with the chunk that an earlier call returned, at first 0, and
// returns the chunk that the next slice begins with, or a negative number after the last slice.
func (t *slab[T, P]) some(from int, f func(*T)) int {
	to := min(from+sliceChunks, len(t.chunks))
	for _, chunk := range t.chunks[min(from, to):to] {
		for i := range chunk {
			if P(&chunk[i]).inUse() {
				f(&chunk[i])
			}
		}
	}
	if to == len(t.chunks) {
		return -1
	}
	return to
}
