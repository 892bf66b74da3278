package l4

// Prefill is bytes that a session's backend gets before anything that is relayed: what was read from the client before
// a backend was chosen, or what the backend must know about the client. The direction to the backend holds it until the
// backend is connected, through all attempts to connect: no byte of it has gone anywhere, so another attempt is always
// safe.

// prefill adds bytes to the session's prefill, behind what was added before. It takes them out of b. fromClient says
// that the client has sent them, and that they count in its bytes already: then they count as bytes to the backend,
// too. The session has no backend connection yet.
func (l *loop) prefill(s *session, b *streamBuffer, fromClient bool) {
	if b.size() == 0 {
		b.release(l)
		return
	}
	if fromClient {
		s.prefilled += uint32(b.size())
	}
	d := &s.in
	if d.held() {
		both := l.buffers.append(l.buffers.append(nil, d.kept), b.buf[b.from:])
		l.release(d)
		b.release(l)
		d.buf, d.kept = both[:cap(both)], both
		return
	}
	d.buf, d.kept = b.buf[:cap(b.buf)], b.buf[b.from:]
	d.writes = 1 // the prefill is the first write
	*b = streamBuffer{}
}
