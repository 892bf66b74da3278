package loop

// A ByteQueue is bytes of a stream that wait: to be looked at, or to be sent. Used onLoop only. The zero value is
// empty, and an empty queue holds no memory.
type ByteQueue struct {
	buf  []byte // of Buffers; nil when it is empty
	from int    // what is before it is done with
}

// Size is how many bytes wait.
func (q *ByteQueue) Size() int { return len(q.buf) - q.from }

// Bytes returns the bytes that wait. They are valid until the queue is changed.
func (q *ByteQueue) Bytes() []byte { return q.buf[q.from:] }

// Append adds bytes, which are copied.
func (q *ByteQueue) Append(from *Buffers, p []byte) {
	if q.from > 0 {
		q.buf = q.buf[:copy(q.buf, q.buf[q.from:])]
		q.from = 0
	}
	q.buf = from.Append(q.buf, p)
}

// Done takes the first n bytes out.
func (q *ByteQueue) Done(to *Buffers, n int) {
	if q.from += n; q.from == len(q.buf) {
		q.Release(to)
	}
}

// Release gives the memory back, and drops the bytes that wait.
func (q *ByteQueue) Release(to *Buffers) {
	to.putAppended(q.buf)
	*q = ByteQueue{}
}

// Detach empties the queue, and gives the caller its memory: buf, which the caller puts back, and in it the bytes that
// wait.
func (q *ByteQueue) Detach() (buf, waiting []byte) {
	buf, waiting = q.buf[:cap(q.buf)], q.buf[q.from:]
	*q = ByteQueue{}
	return buf, waiting
}
