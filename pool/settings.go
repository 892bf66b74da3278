package pool

import (
	"net/netip"
	"reflect"
)

// settings are the options of a pool in force, with values derived from them. They are immutable; Reconfigure makes new
// ones. Each snapshot has its settings, so that a pick uses those of one moment. Releases need no snapshot and load the
// settings through a pointer of their own, which saves a nanosecond at each end of a session (BenchmarkBreaker).
type settings struct {
	Options
	timed   bool         // the algorithm uses times
	ordered bool         // it uses the order of the backends
	drawn   bool         // it draws at random
	breaks  bool         // there are breakers
	named   bool         // sessions' names count
	sticky  *stickyTable // nil without stickiness

	sources4, sources6 []netip.Addr // Source by the family of the address
}

// settings returns checked options as settings. They take over the sticky table of old, resized if needed; old is nil
// for a new pool.
func (o Options) settings(old *settings) *settings {
	kind := o.kind()
	s := &settings{Options: o, timed: kind.Timed, ordered: kind.Ordered, drawn: kind.Drawn, breaks: o.Breaker.on(),
		named: o.HashName && kind.Hash || o.StickyName && o.StickyTTL > 0}
	for _, a := range o.Source {
		if a = a.Unmap(); a.Is4() {
			s.sources4 = append(s.sources4, a)
		} else {
			s.sources6 = append(s.sources6, a)
		}
	}
	switch {
	case o.StickyTTL == 0:
	case old == nil || !old.remembersLike(s):
		s.sticky = newStickyTable(o.StickyTTL, o.StickyEntries)
	default:
		s.sticky = old.sticky.resized(o.StickyTTL, o.StickyEntries, o.Clock())
	}
	return s
}

// remembersLike reports whether there is a sticky table in s with the keys that o needs.
func (s *settings) remembersLike(o *settings) bool {
	return s.sticky != nil && s.StickyName == o.StickyName && (!s.StickyName || s.NamedBy == o.NamedBy)
}

// NeedsName reports whether a session's name of that kind counts when its backend is picked. It may be called from any
// goroutine, and takes no lock.
func (p *Pool) NeedsName(kind NameKind) bool {
	s := p.settings()
	return s.named && s.NamedBy == kind
}

// picksLike reports whether a picker made for o can be used with s.
func (s *settings) picksLike(o *settings) bool {
	return s.Algorithm == o.Algorithm && s.HashBalance == o.HashBalance
}

// same reports whether o equals the options in force, apart from Clock.
func (s *settings) same(o Options) bool {
	mine := s.Options
	mine.Clock, o.Clock = nil, nil // functions cannot be compared
	if mine.Secure != o.Secure {
		return false
	}
	mine.Secure, o.Secure = nil, nil // compared, and DeepEqual would look inside
	return reflect.DeepEqual(mine, o)
}

// Sources returns the local addresses of connections to an address: those of Options.Source that are of its family.
// only reports whether the pool has a Source at all; then no connection may come from elsewhere, even if there is none
// of the family. The slice must not be changed.
func (p *Pool) Sources(to netip.Addr) (sources []netip.Addr, only bool) {
	s := p.settings()
	if len(s.Source) == 0 {
		return nil, false
	}
	if to.Is4() || to.Is4In6() {
		return s.sources4, true
	}
	return s.sources6, true
}

// Source returns the local addresses of connections to all backends; none if the kernel chooses. The slice must not be
// changed.
func (p *Pool) Source() []netip.Addr { return p.settings().Source }

// CongestionControl returns the algorithm of TCP connections to a backend at this address; "" is the system's.
func (p *Pool) CongestionControl(to netip.Addr) string {
	s := p.settings()
	if s.CongestionControl == "" && to.IsLoopback() {
		return s.LoopbackCongestionControl
	}
	return s.CongestionControl
}

// Secure returns what TCP connections to the backends are encrypted with; nil is nothing.
func (p *Pool) Secure() any { return p.settings().Secure }
