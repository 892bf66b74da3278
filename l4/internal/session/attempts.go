package session

import "github.com/limeload/limeload-l4/pool"

// attempts are a session's attempts to get a connection to a backend that have failed. Most sessions have none.
type attempts struct {
	at []*pool.Backend // in order
}

// forget empties the list, and keeps its memory.
func (a *attempts) forget() {
	clear(a.at)
	a.at = a.at[:0]
}

// tried returns the backends that have failed the session, the last one last.
func (s *Session) tried() []*pool.Backend {
	if s.attempts == nil {
		return nil
	}
	return s.attempts.at
}

// triedAt notes that an attempt at a backend has failed.
func (s *Session) triedAt(b *pool.Backend) {
	if s.attempts == nil {
		s.attempts = new(attempts)
	}
	s.attempts.at = append(s.attempts.at, b)
}
