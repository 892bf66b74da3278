package conf

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// A loop of listeners is a configuration in which a session returns to its own listener: a backend is that listener, or
// another listener whose pool leads back to it. Each session would make another one until no descriptors are left. A
// listener may be the backend of another one as long as it does not lead back.

// checkLoops reports backends that lead back to a listener of their pool, if the file alone shows it. A loop that
// depends on the addresses of this machine is only a warning, see warnOfLoops, since the file may be meant for another
// machine.
func checkLoops(r *report, listeners []Listener, pools []Pool) {
	reportLoops(r, listeners, pools, netip.Addr.IsLoopback)
}

// warnOfLoops reports loops through addresses of this machine. The loops that checkLoops finds are mistakes already.
func warnOfLoops(r *report, c *Config) {
	var own []netip.Addr
	addresses, _ := net.InterfaceAddrs() // without them there are fewer warnings
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	reportLoops(r, c.Listeners, c.Pools, func(a netip.Addr) bool { return slices.Contains(own, a) })
	warnOfOpenAdmin(r, c)
}

// warnOfOpenAdmin reports backends that are the control API.
func warnOfOpenAdmin(r *report, c *Config) {
	for _, p := range c.Pools {
		for i, b := range p.Backends {
			if c.Admin.Bind.IsValid() && c.mayReach(p.Name, &b, c.Admin.Bind) || b.Path != "" && b.Path == c.Admin.Socket {
				r.add(join(element(Path("pool", p.Name, "backends"), i), "address"), Error{Found: quote(b.Address),
					Message: "the control API listens there: whoever reaches a listener of this pool reaches it"})
			}
		}
	}
}

// mayReach reports whether a backend of a pool is at this address, by its own port or by one of a client.
func (c *Config) mayReach(pool string, b *Backend, at netip.AddrPort) bool {
	if !b.lacksPort() {
		return b.Addr == at
	}
	return slices.ContainsFunc(c.Listeners, func(l Listener) bool {
		return slices.Contains(l.Pools(), pool) && slices.Contains(l.reaches(b), at)
	})
}

// A hop leads from the listeners of a pool to the listener that one of its backends is.
type hop struct {
	pool    string
	backend int // in the pool
	to      *Listener
	element int // of its Address
}

// reportLoops reports each backend that leads back; isOwn reports whether a wildcard listens on an address.
func reportLoops(r *report, listeners []Listener, pools []Pool, isOwn func(netip.Addr) bool) {
	hops := make(map[*Listener][]hop, len(listeners))
	for i := range listeners {
		from := &listeners[i]
		for _, name := range from.Pools() {
			at := slices.IndexFunc(pools, func(p Pool) bool { return p.Name == name })
			if at < 0 {
				continue
			}
			for k, b := range pools[at].Backends {
				for _, at := range from.reaches(&b) {
					if to, elem := listenerReached(listeners, from, at, isOwn); to != nil {
						hops[from] = append(hops[from], hop{name, k, to, elem})
						break
					}
				}
			}
		}
	}
	for i := range listeners {
		from := &listeners[i]
		for _, h := range hops[from] {
			if !leadsTo(hops, h.to, from, map[*Listener]bool{}) {
				continue
			}
			path := h.to.AddressPath(h.element)
			back := "sends its clients to this pool"
			if to := h.to.Pools(); !slices.Contains(to, h.pool) {
				back = fmt.Sprintf("its pool, %s, leads back to %s", quote(to[0]), Path("listener", from.Name))
				if len(to) > 1 {
					back = fmt.Sprintf("its pools lead back to %s", Path("listener", from.Name))
				}
			}
			sub := join(element(Path("pool", h.pool, "backends"), h.backend), "address")
			r.add(sub, Error{
				Found: quote(textAt(pools, h.pool, h.backend)),
				Message: fmt.Sprintf("%s %s, %s, listens there and %s: each session makes another",
					path, r.where(path), quote(h.to.Address[h.element]), back),
			})
		}
	}
}

// reaches returns where sessions of the listener connect to when they get a backend.
func (l *Listener) reaches(b *Backend) []netip.AddrPort {
	if !b.lacksPort() {
		return []netip.AddrPort{b.Addr}
	}
	all := make([]netip.AddrPort, 0, len(l.Binds))
	for i := range l.Binds {
		all = append(all, netip.AddrPortFrom(b.Addr.Addr(), l.Binds[i].Port))
	}
	return all
}

// listenerReached is listenerAt for the protocols of a listener.
func listenerReached(
	listeners []Listener, from *Listener, at netip.AddrPort, isOwn func(netip.Addr) bool,
) (to *Listener, elem int) {
	for _, protocol := range from.Protocols() {
		if to, elem = listenerAt(listeners, protocol, at, isOwn); to != nil {
			break
		}
	}
	return to, elem
}

func textAt(pools []Pool, name string, backend int) string {
	i := slices.IndexFunc(pools, func(p Pool) bool { return p.Name == name })
	return pools[i].Backends[backend].Address
}

// listenerAt returns the listener that a connection to an address reaches, or nil, and the element of its Address. The
// kernel prefers a listener on that address to one on all addresses.
func listenerAt(
	listeners []Listener, protocol string, at netip.AddrPort, isOwn func(netip.Addr) bool,
) (wildcard *Listener, elem int) {
	if !at.IsValid() {
		return nil, 0
	}
	for i := range listeners {
		l := &listeners[i]
		if !l.speaks(protocol) {
			continue
		}
		for k := range l.Binds {
			b := &l.Binds[k]
			bound := b.Addr.Addr()
			switch {
			case b.Port != at.Port() || !b.Addr.IsValid():
			case bound == at.Addr():
				return l, b.Element
			case bound.IsUnspecified() && (b.DualStack || bound.Is4() == at.Addr().Is4()) && isOwn(at.Addr()):
				wildcard, elem = l, b.Element
			}
		}
	}
	return wildcard, elem
}

// leadsTo reports whether sessions of a listener may reach another one, or whether both are the same.
func leadsTo(hops map[*Listener][]hop, from, to *Listener, seen map[*Listener]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	return slices.ContainsFunc(hops[from], func(h hop) bool { return leadsTo(hops, h.to, to, seen) })
}
