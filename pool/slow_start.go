package pool

import (
	"math"
	"sync/atomic"
	"time"
)

// noteReturn sees whether a backend becomes eligible with next, the settings that follow old; nil is none before.
func (p *Pool) noteReturn(old, next *member) {
	if old != nil && old.eligible() || !next.eligible() {
		if next.verdict.failing() {
			next.fresh = false // what recovers later starts slowly
		}
		return
	}
	next.returning = !next.fresh
	next.fresh = false
	next.returned = p.clock()
	if p.settings().SlowStart > 0 && next.returning {
		next.backend.load.SetShare(0)
	}
}

// regrow keeps the part of its weight that a backend has at now when slow start takes another time, and reports whether
// that is a change. One that has all of it does not start again.
func (m *member) regrow(from, to, now time.Duration) bool {
	if !m.returning || from == to {
		return false
	}
	if grew := now - m.returned; to == 0 || grew >= from {
		m.returning = false
	} else {
		m.returned = now - time.Duration(float64(grew)/float64(from)*float64(to))
	}
	return true
}

// slowSteps is in how many steps a weight grows.
const slowSteps = 100

// slowStarts is the backends of a snapshot that still grow into their weights. Whoever picks lets them grow: that needs
// no goroutine, and where nobody picks nobody is to know.
type slowStarts struct {
	// set once, then read-only
	growing []growing
	length  time.Duration

	next atomic.Int64 // when they grow again, on the pool's clock; grown when all have
}

// grown is when weights grow that have grown: never.
const grown = math.MaxInt64

// A growing backend had its return at a time of the pool's clock.
type growing struct {
	backend *Backend
	since   time.Duration
}

// slowStartsLocked returns the eligible backends that still grow, or nil; the others have their whole weight.
func (p *Pool) slowStartsLocked() *slowStarts {
	length := p.settings().SlowStart
	if length == 0 && !p.slowed {
		return nil
	}
	now := p.clock()
	s := &slowStarts{length: length}
	for _, g := range p.groups {
		for _, m := range g.eligible {
			if m.returning && now < m.returned+length {
				s.growing = append(s.growing, growing{m.backend, m.returned})
			} else {
				m.backend.load.SetShare(1)
			}
		}
	}
	if len(s.growing) == 0 {
		return nil
	}
	return s
}

// grow gives the backends the share of their weight that they have at now.
func (s *slowStarts) grow(clock func() time.Duration) {
	next := s.next.Load()
	if next == grown {
		return
	}
	now := clock()
	if int64(now) < next || !s.next.CompareAndSwap(next, int64(now+s.length/slowSteps)) {
		return // not yet, or another caller does it
	}
	all := true
	for _, g := range s.growing {
		share := float64(now-g.since) / float64(s.length)
		g.backend.load.SetShare(min(share, 1))
		all = all && share >= 1
	}
	if all {
		s.next.Store(grown)
	}
}
