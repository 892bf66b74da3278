package l4

import (
	"cmp"
	"time"
)

// Settings are what can be changed of a Server while it runs, for sessions that begin or end from then on.
type Settings struct {
	MaxSessions int  // as in Options
	Access      bool // as in Options
	AccessEvery int  // as in Options
	NoProbes    bool // as in Options

	// DrainTimeout is how long flows may go on whose backend was removed or went into maintenance; 0 = not at all.
	// Sessions have a connection to a backend that nobody else can answer on, and go on to their end.
	DrainTimeout time.Duration
}

// Set changes the settings. It may be called from any goroutine. Sessions that are there go on, even if they are too
// many now.
func (s *Server) Set(to Settings) {
	every := 0
	if to.Access {
		every = cmp.Or(to.AccessEvery, 1)
	}
	s.access.Set(every, !to.NoProbes)
	s.drainTimeout.Store(int64(to.DrainTimeout))
	s.gate.SetMaxSessions(to.MaxSessions)
}

// Settings returns the settings in force.
func (s *Server) Settings() Settings {
	every, probes := s.access.Settings()
	access := every != 0
	if every == 1 {
		every = 0 // which is the same
	}
	return Settings{
		MaxSessions: s.gate.MaxSessions(), Access: access, AccessEvery: every, NoProbes: !probes,
		DrainTimeout: time.Duration(s.drainTimeout.Load()),
	}
}
