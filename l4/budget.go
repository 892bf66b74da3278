package l4

import (
	"math"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// promisedPart is the part of a budget, one in so many, that is promised to the listeners, the same to each: however
// much one of them takes, every other one still gets its part of that. What nobody was promised goes to whoever comes
// first.
const promisedPart = 4

// unansweredPart is the part of the descriptors and ports, one in so many, that a listener's flows may have which were
// never answered. A client whose address is forged can have no other.
const unansweredPart = 2

// A budget is what listeners share: descriptors, and local ports. It is immutable; Apply makes another.
type budget struct {
	all []*listener // which have descriptors
	udp []*listener // which have local ports, too
}

// setBudgetLocked says which listeners share, and what.
func (s *Server) setBudgetLocked() {
	var b budget
	left := s.spare
	for _, ls := range s.listeners {
		ls.bound.all(func(int) { left-- })
		b.all = append(b.all, ls)
		if ls.spec.Load().Protocol == UDP {
			b.udp = append(b.udp, ls)
		}
	}
	s.shared.Store(&b)
	s.capacity.Store(max(1, int64(left)/2))
	s.measurePorts()
}

// A sixteenth of the local ports is left to the rest of the host: a UDP socket needs a port that no other UDP socket of
// the host has, wherever it sends to. It also keeps the kernel's search for a free one short: with 19,000 ports, that
// took 2 us while half of them were free, 9 us with a sixteenth, 150 us with a hundredth, and 1.1 ms to find none.
const hostPortPart = 16

// measurePorts says how many local ports flows may have, by what the kernel says now.
func (s *Server) measurePorts() {
	most := portsForFlows()
	s.portsMost.Store(most)
	s.ports.Store(most)
}

// portsForFlows is how many local ports flows may have on this host.
func portsForFlows() int64 {
	n := int64(math.MaxInt64) // it does not say
	if first, last, ok := sock.LocalPorts(); ok {
		n = int64(last-first) + 1
		n -= n / hostPortPart
	}
	return max(1, n)
}

// portsShort is called when the kernel has no port left: others have more of them than was thought. Flows have to do
// with some less than they have, for a while.
func (s *Server) portsShort(now time.Duration) {
	have := s.flows.Load()
	s.ports.Store(max(1, have-have/hostPortPart))
	s.portsAgain.Store(int64(now + portsShortFor))
}

// portsShortFor is how long flows do with fewer ports after the kernel had none.
const portsShortFor = 10 * time.Second

// portsLeft is how many ports are left to flows.
func (s *Server) portsLeft(now time.Duration) int64 {
	if again := s.portsAgain.Load(); again != 0 && int64(now) >= again && s.portsAgain.CompareAndSwap(again, 0) {
		s.ports.Store(s.portsMost.Load())
	}
	return s.ports.Load() - s.flows.Load()
}

// descriptorsLeft is how many descriptors are left to sessions, which take two each, and flows, which take one.
func (s *Server) descriptorsLeft() int64 {
	return 2*s.capacity.Load() - 2*s.sessions.Load() - s.flows.Load()
}

// keepsPromises reports whether a listener may have something of which left would be left, out of total: the others
// must still get what they are promised and have not got. It costs nothing while there is enough for all promises.
func (ls *listener) keepsPromises(left, total int64, sharers []*listener, has func(*listener) int64) bool {
	if left < 0 || left >= total/promisedPart {
		return left >= 0
	}
	each := total / promisedPart / int64(max(1, len(sharers)))
	for _, other := range sharers {
		if other != ls {
			left -= max(0, each-has(other))
		}
	}
	return left >= 0
}

// descriptors is how many descriptors the listener's sessions or flows have.
func (ls *listener) descriptors() int64 {
	if ls.spec.Load().Protocol == UDP {
		return ls.flows()
	}
	return 2 * ls.sessions.Load()
}

// flows is how many flows a UDP listener has.
func (ls *listener) flows() int64 { return ls.sessions.Load() }
