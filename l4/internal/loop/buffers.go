package loop

// ScratchBytes is the size of a loop's one read buffer, and so the most a session can be left holding when its peer
// takes nothing. Larger reads do not pay for short messages, and bulk goes through a pipe.
const ScratchBytes = 64 << 10

// bufferClasses are the sizes of the buffers that hold what a peer would not take: most such remainders are small, and
// thousands of slow readers must not cost ScratchBytes each.
var bufferClasses = [...]int{4 << 10, 16 << 10, ScratchBytes}

// maxFree is how many buffers of each class a loop keeps for the next slow peer. More go to the garbage collector.
const maxFree = 16

// Buffers are one loop's, used onLoop only. The zero value is empty and ready.
type Buffers struct {
	free [len(bufferClasses)][][]byte
}

// Get returns a buffer of at least n bytes, at most ScratchBytes.
func (p *Buffers) Get(n int) []byte {
	c := bufferClass(n)
	if last := len(p.free[c]) - 1; last >= 0 {
		b := p.free[c][last]
		p.free[c] = p.free[c][:last]
		return b
	}
	return make([]byte, bufferClasses[c])
}

// Put takes a buffer back; the caller must not use it again. A buffer of Append's that is larger than any of Get's goes
// to the garbage collector.
func (p *Buffers) Put(b []byte) {
	if len(b) > ScratchBytes {
		return
	}
	c := bufferClass(len(b))
	if len(p.free[c]) < maxFree {
		p.free[c] = append(p.free[c], b)
	}
}

// Append appends more to b, which is nil or came from here, and returns what then holds both. That may be larger than
// ScratchBytes.
func (p *Buffers) Append(b, more []byte) []byte {
	n := len(b) + len(more)
	if n <= cap(b) {
		return append(b, more...)
	}
	var larger []byte
	if n <= ScratchBytes {
		larger = p.Get(n)[:0]
	} else {
		larger = make([]byte, 0, n+ScratchBytes)
	}
	larger = append(append(larger, b...), more...)
	p.putAppended(b)
	return larger
}

// putAppended takes back what Append has returned; nil is nothing.
func (p *Buffers) putAppended(b []byte) {
	if cap(b) > 0 {
		p.Put(b[:cap(b)])
	}
}

func bufferClass(n int) int {
	for c, size := range bufferClasses {
		if n <= size {
			return c
		}
	}
	panic("l4: kept more than was read")
}
