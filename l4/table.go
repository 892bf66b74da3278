package l4

// tableChunk is how many sessions are allocated at once: few enough that a quiet loop stays small.
const tableChunk = 128

// A table is a loop's sessions, found by the index an event carries. Sessions never move, so pointers to
// them hold; a slot's generation tells its users apart. Used onLoop only; its zero value is ready.
type table struct {
	chunks []*[tableChunk]session
	free   *session
}

// take returns a slot in its zero state but for index, generation and the capacity of tried.
func (t *table) take() *session {
	if t.free == nil {
		t.grow()
	}
	s := t.free
	t.free, s.nextFree = s.nextFree, nil
	return s
}

// give takes a slot back; its generation ends here.
func (t *table) give(s *session) {
	clear(s.tried)
	*s = session{index: s.index, generation: s.generation + 1, tried: s.tried[:0], nextFree: t.free}
	t.free = s
}

// at returns the slot of an index that take has given out.
func (t *table) at(index uint32) *session {
	return &t.chunks[index/tableChunk][index%tableChunk]
}

func (t *table) grow() {
	chunk := new([tableChunk]session)
	base := uint32(len(t.chunks) * tableChunk)
	t.chunks = append(t.chunks, chunk)
	for i := tableChunk - 1; i >= 0; i-- {
		s := &chunk[i]
		s.index = base + uint32(i)
		s.nextFree = t.free
		t.free = s
	}
}

// all calls f for every session in use. f may end the session it is given.
func (t *table) all(f func(*session)) {
	for next := 0; next >= 0; {
		next = t.some(next, f)
	}
}

// sliceChunks is how many chunks a slice of a long walk through a table is: 256 sessions, some ten microseconds at the most.
const sliceChunks = 2

// some does what all does for a slice of the sessions, from a chunk on that an earlier call has returned, first 0. It returns the
// chunk that the next slice begins with, negative after the last.
func (t *table) some(from int, f func(*session)) int {
	to := min(from+sliceChunks, len(t.chunks))
	for _, chunk := range t.chunks[from:to] {
		for i := range chunk {
			if chunk[i].phase != unused {
				f(&chunk[i])
			}
		}
	}
	if to == len(t.chunks) {
		return -1
	}
	return to
}
