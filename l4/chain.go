package l4

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A backend may be another listener of this process: a chain. One that comes back to a listener it has come by is a
// loop, where each session makes another until there are no descriptors left. Configurations are checked for it, but
// discovery, the API and a changed address of this host can make one, too. So a connection to one of our own listeners
// notes which listeners its client has come by, under the address it has itself, and a client of such an address is
// refused where its chain has been already.
//
// That costs others nothing but a look at a table of ports when a backend is connected to, and at a counter when a
// client comes.

// A chain is the listeners by which the clients of a socket have come. chains.mu guards it.
type chain struct{ listeners []*listener }

// A socketName is what a listener sees of a socket of ours.
type socketName struct {
	protocol Protocol
	address  netip.AddrPort
}

// chains are those of the sockets that are connected to listeners of this process.
type chains struct {
	own  atomic.Pointer[ownAddresses]
	open atomic.Int64 // sockets

	// mu guards the fields below
	mu       sync.Mutex
	bySocket map[socketName]*chain
}

// A link is a session's, a flow's or a DNS socket's place in a chain: where its client has come from, and its own
// socket if that leads to a listener of ours. Its zero value is of no chain.
type link struct {
	came  *chain // nil if the client is none of our sockets
	chain *chain // that of the socket
	name  socketName
	open  bool // name is in chains.bySocket
}

// comesBack tells whether a client has been at a listener before. If it has not, but has been at others, *k tells.
func (c *chains) comesBack(k **link, p Protocol, client netip.AddrPort, ls *listener) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	came := c.bySocket[socketName{p, client}]
	if came == nil {
		return false
	}
	if slices.Contains(came.listeners, ls) {
		return true
	}
	*k = &link{came: &chain{slices.Clone(came.listeners)}}
	return false
}

// join adds to a chain, that of many clients, the listeners by which one more has come.
func (c *chains) join(to *chain, from *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ls := range from.came.listeners {
		if !slices.Contains(to.listeners, ls) {
			to.listeners = append(to.listeners, ls)
		}
	}
}

// note adds a socket of the link.
func (c *chains) note(k *link, name socketName) {
	k.name, k.open = name, true
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bySocket == nil {
		c.bySocket = make(map[socketName]*chain)
	}
	c.bySocket[name] = k.chain
	c.open.Store(int64(len(c.bySocket)))
}

// forget takes the socket of a link out, which is closed or about to be; k may be nil. The kernel may have given its
// port away by now.
func (c *chains) forget(k *link) {
	if k == nil || !k.open {
		return
	}
	k.open = false
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bySocket[k.name] == k.chain {
		delete(c.bySocket, k.name)
	}
	c.open.Store(int64(len(c.bySocket)))
}

// dial makes a socket and connects it to a backend, for a client of a listener. *k is the client's link, nil for none,
// and afterwards the socket's too if the backend is a listener of ours.
func (l *loop) dial(p Protocol, to netip.AddrPort, ls *listener, k **link) (int, sock.Errno) {
	switch {
	case l.isOwn(p, to):
		return l.dialOwn(p, to, ls, k)
	case p == UDP:
		return sock.ConnectDatagram(to)
	}
	return sock.Connect(to)
}

func (l *loop) dialOwn(p Protocol, to netip.AddrPort, ls *listener, k **link) (int, sock.Errno) {
	c := &l.server.chains
	if *k == nil {
		*k = new(link)
	}
	one := *k
	c.forget(one)
	if one.chain == nil {
		one.chain = new(chain)
		if one.came != nil {
			one.chain.listeners = slices.Clone(one.came.listeners)
		}
		one.chain.listeners = append(one.chain.listeners, ls)
	}
	note := func(at netip.AddrPort) { c.note(one, socketName{p, at}) }
	if p == TCP { // the listener may accept it before connect returns
		fd, e := sock.ConnectFrom(to.Addr(), to, note)
		if e != 0 && e != sock.InProgress {
			c.forget(one)
		}
		return fd, e
	}
	fd, e := sock.ConnectDatagram(to)
	if e == 0 {
		if at, err := sock.LocalAddr(fd); err == nil {
			note(at)
		}
	}
	return fd, e
}

// ownAddresses are where listeners of this process listen. It is never modified.
type ownAddresses struct {
	ports [UDP + 1][1 << 16 / 64]uint64 // a bit for each port of a protocol
	at    [UDP + 1][]netip.AddrPort
}

// noteOwnLocked notes where the listeners are.
func (s *Server) noteOwnLocked() {
	own := new(ownAddresses)
	for _, ls := range s.listeners {
		p, at := ls.bound.protocol, ls.bound.address
		own.ports[p][at.Port()/64] |= 1 << (at.Port() % 64)
		own.at[p] = append(own.at[p], at)
	}
	s.chains.own.Store(own)
}

// isOwn tells whether a listener of this process listens at an address.
func (l *loop) isOwn(p Protocol, at netip.AddrPort) bool {
	own := l.server.chains.own.Load()
	if own == nil || own.ports[p][at.Port()/64]&(1<<(at.Port()%64)) == 0 {
		return false
	}
	for _, bound := range own.at[p] {
		if bound.Port() == at.Port() && (bound.Addr() == at.Addr() || bound.Addr().IsUnspecified() && l.isLocal(at.Addr())) {
			return true
		}
	}
	return false
}

// A host's addresses change seldom. Those that are asked about are backends', and few; but there is a bound.
const (
	localFor = 5 * time.Second
	localMax = 4096
)

// A locality is whether an address is one of this host's, and until when that is taken to be so.
type locality struct {
	local bool
	until time.Duration
}

// isLocal tells whether an address is one of this host's.
func (l *loop) isLocal(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	known := l.localities[a]
	if l.now >= known.until {
		if len(l.localities) >= localMax {
			clear(l.localities)
		}
		if l.localities == nil {
			l.localities = make(map[netip.Addr]locality)
		}
		known = locality{sock.IsLocal(a), l.now + localFor}
		l.localities[a] = known
	}
	return known.local
}

// noteLoop warns of a loop, now and then.
func (s *Server) noteLoop(ls *listener) {
	if s.mayNote(&ls.loopNote) {
		s.log.Warn().Str("listener", ls.name).Str("pool", ls.spec.Load().Pool.Name()).
			Msg("clients refused that come from this listener: a backend leads back to it")
	}
}
