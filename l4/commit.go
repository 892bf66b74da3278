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
	next := make(map[string]*listener, len(c.specs))
	for i := range c.specs {
		spec := &c.specs[i]
		for p := range spec.pools {
			s.followRevocationsLocked(p)
		}
		ls := s.listeners[spec.Name]
		if ls == nil {
			s.lastID++
			ls = s.newListener(spec.Name, s.lastID)
		}
		next[spec.Name] = ls
		s.commitOneLocked(ls, spec, c.opened[spec.Name], &r)
	}
	for name, ls := range s.listeners {
		if next[name] == nil {
			r.left = append(r.left, ls.bound)
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

// commitOneLocked gives a listener its spec, and the sockets that were opened for it, nil for none. mu is held.
func (s *Server) commitOneLocked(ls *listener, spec *ListenerSpec, b *listen.Binding, r *remainder) {
	old := ls.spec.Swap(spec)
	changed := s.swapDNSLocked(ls, old, spec, r)
	ls.set()
	service, udp := ls.dns, ls.udp
	if spec.Protocol == TCP {
		udp = nil
	}
	serve := func(i int) {
		switch {
		case service != nil:
			s.questions[i].Serve(service, udp)
		case udp != nil:
			s.flows[i].Filter(udp, nil)
		}
	}
	if b == nil {
		if !old.sameOptions(spec) {
			ls.bound.Tune(spec.sockets(s.offload))
		}
		if changed {
			s.onLoops(serve)
		}
		return
	}
	if ls.bound != nil {
		r.left = append(r.left, ls.bound)
	}
	ls.bound = b
	if err := b.Publish(); err != nil { // the folder was there a moment ago
		s.log.Error().Str("listener", ls.name).AnErr("err", err).Msg("nobody can reach the Unix socket")
	}
	if len(b.Inherited) > 0 {
		b.Tune(spec.sockets(s.offload))
	}
	s.onLoops(func(i int) {
		for _, fd := range b.Sockets[i] {
			if udp == nil {
				s.sessions[i].Open(fd, b, ls.tcp)
			} else {
				s.flows[i].Open(fd, b, udp)
			}
		}
		if service != nil {
			serve(i)
		}
	})
}

// swapDNSLocked gives a listener the DNS service that its new spec asks for, if that is another one than it has. mu is
// held.
func (s *Server) swapDNSLocked(ls *listener, old, spec *ListenerSpec, r *remainder) (changed bool) {
	if old != nil && old.sameDNS(spec) || old == nil && spec.DNS == nil {
		return false
	}
	r.retire(ls.dns)
	ls.dns = nil
	if spec.DNS != nil {
		current := func() *pool.Pool { return ls.spec.Load().Pool }
		ls.dns = dns.NewService(s.questions, ls.gate, current, *spec.DNS, spec.Protocol == TCP)
	}
	return true
}

// shareLocked says where the listeners are, and among which descriptors and ports are shared out. mu is held.
func (s *Server) shareLocked() {
	var at []dial.Address
	var sharers []gate.Sharer
	held := 0
	for _, ls := range s.listeners {
		b := ls.bound
		var sources []netip.Addr
		if p := ls.spec.Load().Pool; p != nil {
			sources = p.Source()
		}
		if !b.IsUnix() {
			at = append(at, dial.Address{Protocol: b.Protocol, At: b.Address})
		}
		sharers = append(sharers, gate.Sharer{Listener: ls.gate, Protocol: b.Protocol, Sources: sources})
		held += b.Size()
	}
	s.gate.Chains.Listen(at)
	s.gate.Share(sharers, held)
}

func bindings(listeners map[string]*listener) (all []*listen.Binding) {
	for _, ls := range listeners {
		all = append(all, ls.bound)
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
		if len(b.Inherited) > 0 || b.IsUnix() || successor == nil || !s.live || s.ended {
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
		switch at := ls.bound.Address; {
		case ls.bound.Protocol != b.Protocol:
		case at == b.Address:
			return ls
		case at.Port() == b.Address.Port() && at.Addr().IsUnspecified():
			successor = ls
		}
	}
	return successor
}
