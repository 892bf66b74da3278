package l4

// scratchBytes is the size of a loop's one read buffer, and so the most a session can be left holding when
// its peer takes nothing. Larger reads do not pay for short messages, and bulk goes through a pipe.
const scratchBytes = 64 << 10

// keptClasses are the sizes of the buffers that hold what a peer would not take: most such remainders
// are small, and thousands of slow readers must not cost scratchBytes each.
var keptClasses = [...]int{4 << 10, 16 << 10, scratchBytes}

// spareBuffers is how many buffers of each class a loop keeps for the next slow peer; more go to the
// garbage collector.
const spareBuffers = 16

// A bufferPool is one loop's, used onLoop only. Its zero value is empty and ready.
type bufferPool struct {
	free [len(keptClasses)][][]byte
}

// get returns a buffer of at least n bytes, at most scratchBytes.
func (p *bufferPool) get(n int) []byte {
	c := keptClass(n)
	if last := len(p.free[c]) - 1; last >= 0 {
		b := p.free[c][last]
		p.free[c] = p.free[c][:last]
		return b
	}
	return make([]byte, keptClasses[c])
}

// put takes a buffer of get's back; the caller must not use it again.
func (p *bufferPool) put(b []byte) {
	c := keptClass(len(b))
	if len(p.free[c]) < spareBuffers {
		p.free[c] = append(p.free[c], b)
	}
}

func keptClass(n int) int {
	for c, size := range keptClasses {
		if n <= size {
			return c
		}
	}
	panic("l4: kept more than was read")
}
