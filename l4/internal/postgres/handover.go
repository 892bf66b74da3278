package postgres

import "github.com/limeload/limeload-l4/l4/internal/session"

// Key returns the key that the session has got; "" for none. It implements session.Keyed.
func (x *learner) Key() string { return x.key }

// Adopt makes the key of a session known that another process hands over, as long as the session lasts. It is called
// onLoop, when the session has its backend.
func (s *Service) Adopt(l *session.Loop, of *session.Session, key string) {
	x := &learner{service: s, begun: true, key: key, target: target{of.Pool(), of.Backend(), of.BackendPort()}}
	if !s.keys.add(x) {
		return
	}
	l.Overhear(of, x)
	of.Heard()
}

// AddCount adds to what Count returns.
func (s *Service) AddCount(r Result, n uint64) { s.counts[r].Add(n) }
