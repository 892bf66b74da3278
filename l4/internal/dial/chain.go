package dial

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A backend may be another listener of this process: a chain. A chain that leads back to one of its listeners is a
// loop, where each session makes another one until there are no descriptors left. The configuration is checked for
// loops, but discovery, the API and a changed address of this host can make one, too. So a socket that is connected to
// one of our own listeners is noted, under its own address, with the listeners by which its client has come. A client
// with such an address is refused at a listener that it has already come by.
//
// Others pay for that with a look at a table of ports for each connect, and at a counter for each client.

// A ListenerID is the number of a listener. No two of a process have the same.
type ListenerID uint64

// A Chain is the listeners by which the clients of a socket have come. Chains guards it.
type Chain struct{ listeners []ListenerID }

// NewChain returns the chain of clients that have come by one listener only.
func NewChain(of ListenerID) *Chain { return &Chain{[]ListenerID{of}} }

// A socketName is what a listener sees of a socket of ours.
type socketName struct {
	protocol sock.Protocol
	address  netip.AddrPort
}

// Chains are those of the sockets of this process that are connected to listeners of it. Its methods may be called from
// any goroutine; the zero value is empty and ready.
type Chains struct {
	own  atomic.Pointer[ownAddresses]
	open atomic.Int64 // sockets

	// mu guards the fields below
	mu       sync.Mutex
	bySocket map[socketName]*Chain
}

// A Link is the place of a session, a flow or a DNS socket in a chain: where its client has come from, and its own
// socket if that leads to a listener of ours. The zero value is in no chain. A Link is used by one goroutine.
type Link struct {
	came  *Chain // nil if the client is none of our sockets
	chain *Chain // the socket's
	name  socketName
	open  bool // name is in Chains.bySocket
}

// LinkOf returns the link of a socket that is about to be connected, for clients of this chain.
func LinkOf(c *Chain) *Link { return &Link{chain: c} }

// OnBehalf returns a new link for another socket on behalf of the client of k, which may be nil. It must be called by
// the goroutine that uses k, and the new link may be used by another one.
func (k *Link) OnBehalf() *Link {
	if k == nil {
		return nil
	}
	return &Link{came: k.came}
}

// Empty reports whether no socket leads from this process back to itself.
func (c *Chains) Empty() bool { return c.open.Load() == 0 }

// ComesBack reports whether a client has come by this listener before. If it has come by others only, from is its link
// afterwards; otherwise nil.
func (c *Chains) ComesBack(p sock.Protocol, client netip.AddrPort, at ListenerID) (from *Link, back bool) {
	if c.Empty() {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	came := c.bySocket[socketName{p, client}]
	if came == nil {
		return nil, false
	}
	if slices.Contains(came.listeners, at) {
		return nil, true
	}
	return &Link{came: &Chain{slices.Clone(came.listeners)}}, false
}

// Join adds the listeners by which one client has come to a chain of many clients.
func (c *Chains) Join(to *Chain, from *Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range from.came.listeners {
		if !slices.Contains(to.listeners, id) {
			to.listeners = append(to.listeners, id)
		}
	}
}

// note adds the socket of a link.
func (c *Chains) note(k *Link, name socketName) {
	k.name, k.open = name, true
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bySocket == nil {
		c.bySocket = make(map[socketName]*Chain)
	}
	c.bySocket[name] = k.chain
	c.open.Store(int64(len(c.bySocket)))
}

// Forget takes the socket of a link out, which is closed or about to be; k may be nil. The kernel may have given its
// port away by now.
func (c *Chains) Forget(k *Link) {
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

// ownAddresses are where listeners of this process listen. It is never modified.
type ownAddresses struct {
	ports [sock.UDP + 1][1 << 16 / 64]uint64 // a bit for each port of a protocol
	at    [sock.UDP + 1][]netip.AddrPort
}

// An Address is where a listener listens.
type Address struct {
	Protocol sock.Protocol
	At       netip.AddrPort
}

// Listen says where the listeners of this process listen now.
func (c *Chains) Listen(at []Address) {
	own := new(ownAddresses)
	for _, a := range at {
		own.ports[a.Protocol][a.At.Port()/64] |= 1 << (a.At.Port() % 64)
		own.at[a.Protocol] = append(own.at[a.Protocol], a.At)
	}
	c.own.Store(own)
}
