package algo

import (
	"sync/atomic"
	"time"
)

// A State holds what must outlive a rebuild of a picker: the position of round_robin, the start of least_conn's search
// and the clock of least_time. Its zero value is ready to use, and it is safe for concurrent use. It must not be
// copied.
type State struct {
	position atomic.Uint64
	clock    atomic.Int64 // milliseconds
}

// next returns a position that no other caller gets until the counter wraps.
func (s *State) next() uint64 { return s.position.Add(1) - 1 }

// Advance sets the time, on the same clock as the times given to the loads' Observe methods. An earlier time is
// ignored. least_time reads no clock itself: that would cost as much as the rest of a pick.
func (s *State) Advance(now time.Duration) {
	ms := now.Milliseconds()
	if old := s.clock.Load(); old < ms {
		s.clock.CompareAndSwap(old, ms) // a faster caller had about the same time
	}
}
