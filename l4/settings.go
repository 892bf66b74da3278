package l4

import "time"

// Settings are what can be changed of a Server while it runs, for sessions that begin or end from then on.
type Settings struct {
	MaxSessions int  // as in Options
	Access      bool // as in Options
	NoProbes    bool // as in Options

	// DrainTimeout is how long flows may go on whose backend was removed or went into maintenance; 0 = not at all.
	// Sessions have a connection to a backend that nobody else can answer on, and go on to their end.
	DrainTimeout time.Duration
}

// Set changes the settings. It may be called from any goroutine; sessions there are too many of go on.
func (s *Server) Set(to Settings) {
	s.access.Store(to.Access)
	s.probes.Store(!to.NoProbes)
	s.drainTimeout.Store(int64(to.DrainTimeout))
	if s.max.Swap(int64(to.MaxSessions)) == int64(to.MaxSessions) {
		return
	}
	if possible := s.capacity.Load(); int64(to.MaxSessions) > possible {
		s.log.Warn().Int("max_sessions", to.MaxSessions).Int64("possible", possible).
			Msg("fewer sessions are possible than max_sessions: raise the limit of open files")
	}
}

// Settings returns the settings in force.
func (s *Server) Settings() Settings {
	return Settings{
		MaxSessions: int(s.max.Load()), Access: s.access.Load(), NoProbes: !s.probes.Load(),
		DrainTimeout: time.Duration(s.drainTimeout.Load()),
	}
}
