package session

import "github.com/limeload/limeload-l4/l4/internal/loop"

// Prefill is bytes that a session's backend gets before anything that is relayed: what was read from the client before
// a backend was chosen, or what the backend must know about the client. The direction to the backend holds it until the
// backend is connected, through all attempts to connect: no byte of it has gone anywhere, so another attempt is always
// safe.

// Prefill adds bytes to the session's prefill, behind what was added before, and leaves q empty. fromClient says that
// the client has sent them, and that Read has counted them: then they count as bytes to the backend, too. It is called
// by prefaces: the session has no backend connection yet.
func (l *Loop) Prefill(s *Session, q *loop.ByteQueue, fromClient bool) {
	if q.Size() == 0 {
		q.Release(&l.Buffers)
		return
	}
	if fromClient {
		s.prefilled += uint32(q.Size())
	}
	d := &s.in
	if d.held() {
		both := l.Buffers.Append(l.Buffers.Append(nil, d.rest()), q.Bytes())
		l.release(d)
		q.Release(&l.Buffers)
		l.keepIn(d, both[:cap(both)], both)
		return
	}
	buf, waiting := q.Detach()
	l.keepIn(d, buf, waiting)
	d.writes = 1 // the prefill is the first write
}

// prefillFirst adds bytes, which the client has not sent, to the session's prefill, in front of what is there.
func (l *Loop) prefillFirst(s *Session, p []byte) {
	d := &s.in
	all := l.Buffers.Append(l.Buffers.Append(nil, p), d.rest())
	l.release(d)
	l.keepIn(d, all[:cap(all)], all)
	d.writes = 1
}
