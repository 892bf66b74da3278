package session

// onRound is what a session needs now and then while the loop is in use.
func (l *Loop) onRound(s *Session) {
	l.flush(s)
	if s.phase == relaying {
		l.limit(s) // there may be a limit since it began
	}
}

// flush adds to the counters of its listener and its backend what a session has moved since the last time.
func (l *Loop) flush(s *Session) {
	in, out := s.in.unflushed(), s.out.unflushed()
	if in > 0 || out > 0 {
		c := l.counters(s)
		c.BytesIn.Add(in)
		c.BytesOut.Add(out)
		s.listener.NoteBytes(s.peer.Addr(), in, out)
	}
	if s.phase != relaying {
		return
	}
	if in += uint64(s.prefilled); in > 0 || out > 0 {
		s.lease.Backend().AddBytes(in, out)
		s.prefilled = 0
	}
}
