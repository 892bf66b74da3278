package l4

import (
	"context"
	"net/netip"
	"slices"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/pool"
)

// Commit makes the change, and cannot fail. Listeners that are in the plan as they were keep their sockets and
// sessions; one whose name stays keeps its counters and gets its new settings, for new sessions. One that is not in the
// plan any more stops accepting, and its sessions go on to their end. So do flows, by the sockets they came by;
// datagrams of other clients there go to the listener that has the address now, or are dropped. Clients that have
// connected to a socket that is closed are served, and so are those whose handshake is under way: Commit waits for them
// for up to three seconds, see listen.Depart.
//
// When Commit returns, addresses that were left are free, but for those of UDP that still have flows, and inherited
// descriptors are the server's. After Shutdown it does what Discard does. A second call, or one after Discard, does
// nothing.
func (c *Change) Commit() {
	if c.over {
		return
	}
	c.over = true
	s := c.server
	defer s.changing.Unlock()
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		c.discard()
		return
	}
	r := s.commitLocked(c)
	s.closeHanded(c.taken)
	if !s.live {
		s.close(r) // when the loops start
		s.mu.Unlock()
		return
	}
	s.departing.Add(1)
	s.mu.Unlock()
	listen.Depart(context.Background(), r.departures)
	closing := s.close(r)
	s.departing.Done()
	for _, closed := range closing {
		<-closed
	}
	for i := range r.departures {
		r.departures[i].Gone()
	}
	for _, b := range r.left {
		if b.Protocol == UDP && !b.Ending.Held() {
			<-b.Ending.Gone()
		}
	}
}

// commitLocked swaps the listeners, and returns what is to be closed now: only now, so that an address which passes
// from one listener to another is never without a socket. mu is held.
func (s *Server) commitLocked(c *Change) (r remainder) {
	next := make(map[listenerKey]*listener, len(c.specs))
	stays := make(map[*listener]bool, len(c.specs))
	for i := range c.specs {
		spec := &c.specs[i]
		for p := range spec.pools {
			s.followRevocationsLocked(p)
		}
		if c.before[i] == nil {
			s.lastID++
			c.before[i] = s.newListener(spec.Name, s.lastID)
		}
		next[spec.key()], stays[c.before[i]] = c.before[i], true
	}
	services := s.servicesLocked(c)
	for i := range c.specs {
		s.commitOneLocked(c.before[i], &c.specs[i], c.bound[i], services[i], &r)
	}
	for _, ls := range s.listeners {
		if !stays[ls] {
			r.left = append(r.left, ls.bound...)
			r.retire(ls.dns)
		}
	}
	s.leaving = slices.DeleteFunc(s.leaving, func(b *listen.Binding) bool { return b.Ending.IsGone() })
	serving := bindings(next)
	for _, b := range r.left {
		if b.Protocol == UDP {
			s.leaving = append(s.leaving, b)
		} else {
			r.departures = append(r.departures, listen.DepartureOf(b, serving, false))
		}
	}
	s.listeners = next
	s.shareLocked()
	return r
}

// commitOneLocked gives a listener its spec, the sockets of the spec's places and its DNS service. It may have the
// service and some of the sockets already. mu is held.
func (s *Server) commitOneLocked(
	ls *listener, spec *ListenerSpec, bound []*listen.Binding, service *dns.Service, r *remainder,
) {
	old := ls.spec.Swap(spec)
	changed := ls.dns != service
	if changed {
		r.retire(ls.dns)
		ls.dns = service
	}
	ls.set()
	udp := ls.udp
	if spec.Protocol == TCP {
		udp = nil
	}
	had := ls.bound
	ls.bound = bound
	for _, b := range had {
		if !slices.Contains(bound, b) {
			r.left = append(r.left, b)
		}
	}
	var opened []*listen.Binding
	for i, p := range spec.places() {
		b := bound[i]
		kept := slices.Contains(had, b)
		if (kept && !old.sameOptions(spec) || !kept && len(b.Inherited) > 0) && !b.Elsewhere() {
			b.Tune(spec.sockets(&p, s.offload))
		}
		if !kept {
			opened = append(opened, b)
			if err := b.Publish(); err != nil { // the folder was there a moment ago
				s.log.Error().Str("listener", ls.name).AnErr("err", err).
					Str("event", "socket_unreachable").Msg("nobody can reach the Unix socket")
			}
		}
	}
	if len(opened) == 0 && !changed {
		return
	}
	s.onLoops(func(i int) {
		for _, b := range opened {
			for _, fd := range b.Sockets[i] {
				if udp == nil {
					s.sessions[i].Open(fd, b, ls.tcp)
				} else {
					s.flows[i].Open(fd, b, udp)
				}
			}
		}
		switch {
		case service != nil:
			s.questions[i].Serve(service, udp)
		case udp != nil && changed:
			s.flows[i].Filter(udp, nil)
		}
	})
}

// servicesLocked returns the DNS service of each of a change's specs, nil for none: that which its listener has, if it
// still fits, or a new one. Two listeners of one name with the same settings have one cache. c.before has no nil any
// more. mu is held.
func (s *Server) servicesLocked(c *Change) []*dns.Service {
	services := make([]*dns.Service, len(c.specs))
	byKey := make(map[listenerKey]int, len(c.specs))
	for i := range c.specs {
		byKey[c.specs[i].key()] = i
	}
	for i := range c.specs {
		spec, ls := &c.specs[i], c.before[i]
		if spec.DNS == nil || services[i] != nil {
			continue
		}
		k, paired := byKey[spec.key().otherProtocol()]
		paired = paired && c.specs[k].DNS != nil && *c.specs[k].DNS == *spec.DNS && spec.DNS.Cache.MaxEntries > 0
		switch old := ls.spec.Load(); {
		case !paired && old != nil && old.sameDNS(spec) && ls.dns.Sibling() == nil:
			services[i] = ls.dns
		case !paired:
			services[i] = dns.NewService(s.questions, ls.gate, ls.currentPool, *spec.DNS, spec.Protocol == TCP)
		case old != nil && old.sameDNS(spec) && ls.dns.Sibling() != nil && ls.dns.Sibling() == c.before[k].dns:
			services[i], services[k] = ls.dns, c.before[k].dns // of which one lasts as long as the other
		default:
			tcp, udp := i, k
			if spec.Protocol == UDP {
				tcp, udp = k, i
			}
			services[tcp], services[udp] = dns.NewPair(s.questions, c.before[tcp].gate, c.before[udp].gate,
				c.before[tcp].currentPool, c.before[udp].currentPool, *spec.DNS)
		}
	}
	return services
}

// currentPool is the pool of the listener's clients, now.
func (ls *listener) currentPool() *pool.Pool { return ls.spec.Load().Pool }

// shareLocked says where the listeners are, and among which descriptors and ports are shared out. mu is held.
func (s *Server) shareLocked() {
	var at []dial.Address
	var sharers []gate.Sharer
	held := 0
	for _, ls := range s.listeners {
		spec := ls.spec.Load()
		var sources []netip.Addr
		if spec.Pool != nil {
			sources = spec.Pool.Source()
		}
		for _, b := range ls.bound {
			if !b.IsUnix() {
				at = append(at, dial.Address{Protocol: b.Protocol, At: b.Address})
			}
			held += b.Size()
		}
		sharers = append(sharers, gate.Sharer{Listener: ls.gate, Protocol: spec.Protocol, Sources: sources})
	}
	s.gate.Chains.Listen(at)
	s.gate.Share(sharers, held)
}

func bindings(listeners map[listenerKey]*listener) (all []*listen.Binding) {
	for _, ls := range listeners {
		all = append(all, ls.bound...)
	}
	return all
}

// A remainder is what a change leaves to be closed.
type remainder struct {
	left       []*listen.Binding
	departures []listen.Departure // those of left that are of TCP
	services   []*dns.Service
}

// retire adds a DNS service that is not needed any more, nil for none.
func (r *remainder) retire(service *dns.Service) {
	if service != nil {
		r.services = append(r.services, service)
	}
}

// close makes the loops leave what is left. It returns channels that are closed when all have.
func (s *Server) close(r remainder) (closing []<-chan struct{}) {
	for _, b := range r.left {
		closing = append(closing, s.leave(b))
	}
	for _, service := range r.services {
		s.onLoops(func(i int) { s.questions[i].Retire(service) })
	}
	return closing
}

// Discard gives the change up. When it returns, what Prepare has opened is closed, and inherited descriptors are the
// caller's as before. Clients that have found a new socket are served by the listener whose address includes it. They
// are reset if there is none, or if the server has not started. A second call, or one after Commit, does nothing.
func (c *Change) Discard() {
	if c.over {
		return
	}
	c.over = true
	defer c.server.changing.Unlock()
	c.discard()
}

func (c *Change) discard() {
	s := c.server
	s.mu.Lock()
	successors := make(map[*listen.Binding]*listener)
	var departures []listen.Departure
	for _, b := range c.opened {
		successor := s.successorLocked(b)
		if len(b.Inherited) > 0 || b.IsUnix() || b.Elsewhere() || successor == nil || !s.live || s.ended {
			b.Close()
			continue
		}
		successors[b] = successor
		if b.Protocol == TCP {
			departures = append(departures, listen.DepartureOf(b, bindings(s.listeners), true))
		}
	}
	s.departing.Add(1)
	s.mu.Unlock()
	listen.Depart(context.Background(), departures)
	var closing []<-chan struct{}
	for b, successor := range successors {
		closing = append(closing, s.onLoops(func(i int) {
			if b.Protocol == TCP {
				s.sessions[i].GiveBack(b, successor.tcp)
			} else {
				s.flows[i].GiveBack(b, successor.udp)
			}
		}))
	}
	s.departing.Done()
	for _, closed := range closing {
		<-closed
	}
	for i := range departures {
		departures[i].Gone()
	}
}

// successorLocked returns the listener that clients of b's address had before b's sockets were opened, nil if none. mu
// is held.
func (s *Server) successorLocked(b *listen.Binding) (successor *listener) {
	for _, ls := range s.listeners {
		for _, other := range ls.bound {
			switch at := other.Address; {
			case other.Protocol != b.Protocol:
			case at == b.Address:
				return ls
			case at.Port() == b.Address.Port() && at.Addr().IsUnspecified():
				successor = ls
			}
		}
	}
	return successor
}
