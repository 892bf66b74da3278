package pool

import (
	"math"
	"sync/atomic"
	"time"
)

// noteReturn starts the slow start of a backend that becomes eligible by the change from old to next; old is nil for a
// new backend.
func (p *Pool) noteReturn(old, next *member) {
	if old != nil && old.eligible() || !next.eligible() {
		if next.verdict.failing() {
			next.fresh = false // a later recovery starts slowly
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

// regrow keeps the part of its weight that a backend has at now when SlowStart changes, and reports whether that
// changes the member. A backend at its full weight does not start again.
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

// slowSteps is the number of steps in which a weight grows.
const slowSteps = 100

// slowStarts has the backends of a snapshot whose weights still grow. Picks advance the growth, so it needs no
// goroutine; without picks nobody could notice it.
type slowStarts struct {
	// set once, then read-only
	growing []growing
	length  time.Duration

	next atomic.Int64 // when they grow next, on the pool's clock; grown when none grows any more
}

// grown is the time of the next growth after the last one: never.
const grown = math.MaxInt64

// A growing is a backend, the time of its return, on the pool's clock, and its full weight.
type growing struct {
	backend *Backend
	since   time.Duration
	weight  uint32
}

// slowStartsLocked returns the eligible backends whose weights still grow, or nil, and gives all others their full
// weight.
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
				s.growing = append(s.growing, growing{m.backend, m.returned, m.weightInForce()})
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

// grow sets the share of their weight that the backends have at this time.
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
