package session

// A remainder is bytes that a direction keeps for its destination. A session at rest has none, so a direction has a
// pointer to it: two slices in each direction were a sixth of a session's memory.
type remainder struct {
	bytes []byte // a part of buf; what the destination has not taken
	buf   []byte // of the loop's Buffers
}

// maxFreeRemainders is how many of them a loop keeps to be used again.
const maxFreeRemainders = 64

// rest is what a direction keeps, apart from a pipe.
func (d *direction) rest() []byte {
	if d.kept == nil {
		return nil
	}
	return d.kept.bytes
}

// keep makes a direction that holds nothing keep a copy of p.
func (l *Loop) keep(d *direction, p []byte) {
	buf := l.Buffers.Get(len(p))
	l.keepIn(d, buf, buf[:copy(buf, p)])
}

// keepIn makes a direction that holds nothing keep bytes that are in a buffer of the loop's Buffers, which it takes
// over.
func (l *Loop) keepIn(d *direction, buf, bytes []byte) {
	d.kept = l.freeRemainders.Take()
	*d.kept = remainder{bytes: bytes, buf: buf}
}

// release gives back what a direction holds, and drops its bytes if there are any.
func (l *Loop) release(d *direction) {
	if k := d.kept; k != nil {
		l.Buffers.Put(k.buf)
		*k, d.kept = remainder{}, nil
		l.freeRemainders.GiveUpTo(maxFreeRemainders, k)
	}
	if d.pipe != nil {
		l.Pipes.Put(d.pipe)
		d.pipe = nil
	}
}
