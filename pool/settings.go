package pool

import "reflect"

// settings are the options of a pool in force, with values derived from them. They are immutable; Reconfigure makes new
// ones. Each snapshot has its settings, so that a pick uses those of one moment. Releases need no snapshot and load the
// settings through a pointer of their own, which saves a nanosecond at each end of a session (BenchmarkBreaker).
type settings struct {
	Options
	timed   bool         // the algorithm uses times
	ordered bool         // it uses the order of the backends
	drawn   bool         // it draws at random
	breaks  bool         // there are breakers
	sticky  *stickyTable // nil without stickiness
}

// settings returns checked options as settings. They take over the sticky table of old, resized if needed; old is nil
// for a new pool.
func (o Options) settings(old *settings) *settings {
	kind := o.kind()
	s := &settings{Options: o, timed: kind.Timed, ordered: kind.Ordered, drawn: kind.Drawn, breaks: o.Breaker.on()}
	switch {
	case o.StickyTTL == 0:
	case old == nil || old.sticky == nil:
		s.sticky = newStickyTable(o.StickyTTL, o.StickyEntries)
	default:
		s.sticky = old.sticky.resized(o.StickyTTL, o.StickyEntries, o.Clock())
	}
	return s
}

// picksLike reports whether a picker made for o can be used with s.
func (s *settings) picksLike(o *settings) bool {
	return s.Algorithm == o.Algorithm && s.HashBalance == o.HashBalance
}

// same reports whether o equals the options in force, apart from Clock.
func (s *settings) same(o Options) bool {
	mine := s.Options
	mine.Clock, o.Clock = nil, nil // functions cannot be compared
	return reflect.DeepEqual(mine, o)
}
