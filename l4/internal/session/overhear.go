package session

import "github.com/limeload/limeload-l4/pool"

// An Overhearer looks at what a session's backend says first. It is called onLoop.
type Overhearer interface {
	// Overhear looks at the next bytes from the backend, which are valid during the call only. It may change them, and
	// returns how many of them the client gets. more is false when it needs no more.
	Overhear(s *Session, p []byte) (n int, more bool)

	// Forget is the last call, when the session is over.
	Forget(s *Session)
}

// Overhear gives the session an Overhearer. It is called once at most, by a preface.
func (l *Loop) Overhear(s *Session, by Overhearer) { l.more(s).overhears = by }

// Backend is where the session is connected to, or was; nil before its first backend is chosen.
func (s *Session) Backend() *pool.Backend { return s.lease.Backend() }

// Encrypted reports on which sides of the session TLS is spoken by this process, or by the kernel for it.
func (s *Session) Encrypted() (client, backend bool) {
	x := s.extra
	return s.client.kernel || x != nil && x.client != nil, s.backend.kernel || x != nil && x.backend != nil
}

// overhear lets the session's Overhearer, if there is one, look at what was read from the backend. It returns how many
// of the bytes the client gets. Meanwhile the bytes are copied, since nobody sees those in a pipe.
func (s *Session) overhear(p []byte) int {
	x := s.extra
	if x.overhears == nil || x.overheard {
		return len(p)
	}
	n, more := x.overhears.Overhear(s, p)
	if x.overheard = !more; more {
		s.out.bulk, s.out.rounds = false, 0
	}
	return n
}
