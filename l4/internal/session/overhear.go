package session

import "github.com/limeload/limeload-l4/pool"

// An Overhearer looks at what a session's backend says first. It is called onLoop.
type Overhearer interface {
	// Overhear looks at the next bytes from the backend, which are valid during the call only. It reports false when it
	// needs no more.
	Overhear(s *Session, p []byte) (more bool)

	// Forget is the last call, when the session is over.
	Forget(s *Session)
}

// An overhearing is a session's Overhearer.
type overhearing struct {
	by   Overhearer
	over bool // it needs no more
}

// Overhear gives the session an Overhearer. It is called once at most, by a preface.
func (l *Loop) Overhear(s *Session, by Overhearer) { s.overhears = &overhearing{by: by} }

// Backend is where the session is connected to, or was; nil before its first backend is chosen.
func (s *Session) Backend() *pool.Backend { return s.lease.Backend() }

// overhear lets the session's Overhearer look at what was read from the backend. Meanwhile the bytes go on being copied,
// since nobody sees those in a pipe.
func (s *Session) overhear(p []byte) {
	o := s.overhears
	if o.over {
		return
	}
	if o.over = !o.by.Overhear(s, p); !o.over {
		s.out.bulk, s.out.rounds = false, 0
	}
}

// endOverhearing ends what Overhear has begun.
func (s *Session) endOverhearing() {
	if o := s.overhears; o != nil {
		s.overhears = nil
		o.by.Forget(s)
	}
}
