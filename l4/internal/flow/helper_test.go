package flow_test

import (
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// pool is the first listener's.
func (s *l4.Server) pool() *pool.Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ls := range s.listeners {
		return ls.spec.Load().Pool
	}
	return nil
}

// oneFlow is the first loop's flow; there must be one.
func (l *loop) oneFlow() (found *flow) {
	l.flows.store.all(func(f *flow) { found = f })
	return found
}
