package pool

import "reflect"

// settings are the options of a pool that are in force, with what follows from them. They are immutable; Reconfigure
// makes others. Each snapshot has its own, so that a pick goes by those of one moment. Leases, which need no snapshot,
// find them behind a pointer of their own: that is a nanosecond less for each end of a session (BenchmarkBreaker).
type settings struct {
	Options
	timed   bool         // the algorithm goes by times
	ordered bool         // it goes by the order of the backends
	drawn   bool         // its picks are draws
	breaks  bool         // there are breakers
	sticky  *stickyTable // nil without stickiness
}

// settings returns checked options as settings, with old's sticky table where that serves; nil is none before.
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

// picksLike reports whether a picker made for o serves for s.
func (s *settings) picksLike(o *settings) bool {
	return s.Algorithm == o.Algorithm && s.HashBalance == o.HashBalance
}

// same reports whether o says what is in force, whatever its Clock.
func (s *settings) same(o Options) bool {
	mine := s.Options
	mine.Clock, o.Clock = nil, nil // functions cannot be compared
	return reflect.DeepEqual(mine, o)
}
