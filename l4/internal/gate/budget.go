package gate

import (
	"math"
	"net/netip"
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

// A budget is what listeners share: descriptors, and local ports. It is immutable; Share makes another.
type budget struct {
	all []*Listener // which have descriptors
	udp []*Listener // which have local ports, too
}

// A Sharer is a listener among which descriptors and ports are shared out.
type Sharer struct {
	Listener *Listener
	Protocol sock.Protocol
	Sources  []netip.Addr // the local addresses of its backends' sockets; none = the kernel chooses
}

// Share says which listeners share, and how many descriptors their listening sockets hold.
func (g *Gate) Share(among []Sharer, held int) {
	var b budget
	for _, s := range among {
		b.all = append(b.all, s.Listener)
		if s.Protocol == sock.UDP {
			b.udp = append(b.udp, s.Listener)
		}
	}
	g.shared.Store(&b)
	g.capacity.Store(max(1, int64(g.spare-held)/2))
	g.portAddresses.Store(portAddresses(among))
	g.measurePorts()
}

// Spare is how many descriptors there are for sessions, flows and listening sockets together.
func (g *Gate) Spare() int { return g.spare }

// portAddresses is how many local addresses flows have ports of. The kernel binds a socket without a source to all
// addresses, and its port must be free on each: so one listener without sources makes it one.
func portAddresses(among []Sharer) int64 {
	v4, v6 := make(map[netip.Addr]bool), make(map[netip.Addr]bool)
	for _, s := range among {
		if s.Protocol != sock.UDP {
			continue
		}
		if len(s.Sources) == 0 {
			return 1
		}
		for _, a := range s.Sources {
			if a.Is4() {
				v4[a] = true
			} else {
				v6[a] = true
			}
		}
	}
	return int64(max(1, len(v4), len(v6))) // both families may have the same ports
}

// A sixteenth of the local ports is left to the rest of the host: a UDP socket needs a port that no other UDP socket of
// the host has, wherever it sends to. It also keeps the kernel's search for a free one short: with 19,000 ports, that
// took 2 us while half of them were free, 9 us with a sixteenth, 150 us with a hundredth, and 1.1 ms to find none.
const hostPortPart = 16

// measurePorts says how many local ports flows may have, by what the kernel says now.
func (g *Gate) measurePorts() {
	most := portsForFlows()
	if addresses := g.portAddresses.Load(); most <= math.MaxInt64/addresses {
		most *= addresses
	}
	g.portsMost.Store(most)
	g.ports.Store(most)
}

// portsForFlows is how many local ports of one address flows may have.
func portsForFlows() int64 {
	n := int64(math.MaxInt64) // it does not say
	if first, last, ok := sock.LocalPorts(); ok {
		n = int64(last-first) + 1
		n -= n / hostPortPart
	}
	return max(1, n)
}

// portsShort leaves flows some ports less than they have, see Flows.PortsShort.
func (g *Gate) portsShort(now time.Duration) {
	have := g.flows.Load()
	g.ports.Store(max(1, have-have/hostPortPart))
	g.portsAgain.Store(int64(now + portsShortFor))
}

// portsShortFor is how long flows do with fewer ports after the kernel had none.
const portsShortFor = 10 * time.Second

// portsLeft is how many ports are left to flows.
func (g *Gate) portsLeft(now time.Duration) int64 {
	if again := g.portsAgain.Load(); again != 0 && int64(now) >= again && g.portsAgain.CompareAndSwap(again, 0) {
		g.ports.Store(g.portsMost.Load())
	}
	return g.ports.Load() - g.flows.Load()
}

// descriptorsLeft is how many descriptors are left to sessions, which take two each, and flows, which take one. A
// farewell, and a client that is refused without a word, takes one, too.
func (g *Gate) descriptorsLeft() int64 {
	return 2*g.capacity.Load() - 2*g.sessions.Load() - g.flows.Load() - g.farewells.Load() -
		g.mute.Load()
}

// keepsPromises reports whether a listener may have something of which left would be left, out of total: the others
// must still get what they are promised and have not got. It costs nothing while there is enough for all promises.
func (ls *Listener) keepsPromises(left, total int64, sharers []*Listener, has func(*Listener) int64) bool {
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

// descriptors is how many descriptors the listener's sessions and flows have.
func (ls *Listener) descriptors() int64 { return 2*ls.sessions.Load() + ls.flows.Load() }

func (ls *Listener) flowCount() int64 { return ls.flows.Load() }
