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

// put takes a buffer back; the caller must not use it again. One of append's that is larger than any of get's goes to the garbage
// collector.
func (p *bufferPool) put(b []byte) {
	if len(b) > scratchBytes {
		return
	}
	c := keptClass(len(b))
	if len(p.free[c]) < spareBuffers {
		p.free[c] = append(p.free[c], b)
	}
}

// append appends p to b, which is nil or came from here, and returns what then holds both; that may be larger than scratchBytes.
func (p *bufferPool) append(b, more []byte) []byte {
	n := len(b) + len(more)
	if n <= cap(b) {
		return append(b, more...)
	}
	var larger []byte
	if n <= scratchBytes {
		larger = p.get(n)[:0]
	} else {
		larger = make([]byte, 0, n+scratchBytes)
	}
	larger = append(append(larger, b...), more...)
	p.drop(b)
	return larger
}

// drop takes back what append has returned; nil is nothing.
func (p *bufferPool) drop(b []byte) {
	if cap(b) > 0 {
		p.put(b[:cap(b)])
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
