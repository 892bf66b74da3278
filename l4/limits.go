package l4

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/limeload/limeload-l4/l4/internal/gate"
)

// Limits are what one client, and all of a listener's clients together, may have.
type Limits = gate.Limits

// An Over is what becomes of clients that are over a limit.
type Over = gate.Over

// The ways.
const (
	OverRefuse = gate.OverRefuse // turned away as any other client that cannot be served
	OverReset  = gate.OverReset  // with a RST
	OverClose  = gate.OverClose  // with a FIN
	OverDrop   = gate.OverDrop   // without a word: the client waits until it gives up
	OverDelay  = gate.OverDelay  // they stay in the kernel's queue
	OverTell   = gate.OverTell   // the client is told why in its own protocol
)

// The bounds of Limits.
const (
	MaxClientSessions = gate.MaxClientSessions
	MinBandwidth      = gate.MinBandwidth // bytes a second
	MaxBandwidth      = gate.MaxBandwidth
	MinTracked        = gate.MinTracked
	MaxTracked        = gate.MaxTracked
)

// SetRateShare says which part of the listeners' rates for all clients is this process's, above 0 to 1; at first it is
// 1. The rest is that of other processes, which keep these rates together. Nothing else is divided. It may be called
// from any goroutine, and is in force for clients that come from then on.
func (s *Server) SetRateShare(share float64) { s.gate.SetRateShare(share) }

// An AccessList says which addresses may come in.
type AccessList = gate.AccessList

// NewAccessList returns an empty list. allowOnly says that whom no prefix contains is denied.
func NewAccessList(allowOnly bool) *AccessList { return gate.NewAccessList(allowOnly) }

// An AccessRule is a rule that was given while the server runs.
type AccessRule = gate.AccessRule

// SetAccessRules replaces the rules that were given while the server runs, for clients that come from now on. Rules
// whose Until has passed are left out; nobody else takes out those whose time comes. It may be called from any
// goroutine.
func (s *Server) SetAccessRules(rules []AccessRule) { s.gate.SetRules(rules) }

// A ClientOrder says which clients are the heaviest.
type ClientOrder = gate.Order

// The orders.
const (
	ByRate     = gate.ByRate     // who came most often lately
	BySessions = gate.BySessions // who has the most sessions and flows
	ByBytes    = gate.ByBytes    // whose sessions and flows have moved most
)

// ClientInfo is what a listener knows of one client.
type ClientInfo = gate.ClientInfo

// A ListenerClients are the clients that a listener knows.
type ListenerClients struct {
	Listener string
	Protocol Protocol
	Tracked  bool         // else the listener has no limit that needs to know its clients
	Known    int          // how many clients it knows
	Most     int          // how many it may know
	Heaviest []ClientInfo // the heaviest first
}

// Clients returns the heaviest clients of a listener, most of each protocol at most; of all listeners if its name is "".
// It may be called from any goroutine, and looks at every client that is known.
func (s *Server) Clients(listener string, by ClientOrder, most int) []ListenerClients {
	var all []ListenerClients
	for _, ls := range s.listenersNamed(listener) {
		c := ListenerClients{Listener: ls.name, Protocol: ls.spec.Load().Protocol}
		c.Known, c.Most, _ = ls.gate.Tracked()
		if c.Tracked = c.Most > 0; c.Tracked {
			c.Heaviest = ls.gate.Heaviest(by, most)
		}
		all = append(all, c)
	}
	return all
}

// listenersNamed returns the listeners of a name, of all if it is "", in the order of their names and protocols.
func (s *Server) listenersNamed(name string) []*listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*listener
	for _, ls := range s.listeners {
		if name == "" || ls.name == name {
			found = append(found, ls)
		}
	}
	slices.SortFunc(found, func(a, b *listener) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.spec.Load().Protocol, b.spec.Load().Protocol))
	})
	return found
}

// ExplainAccess reports whether a client's address may come in at a listener, and the prefix that says so; an invalid
// one if none does. known is false if there is no such listener. It may be called from any goroutine.
func (s *Server) ExplainAccess(listener string, client netip.Addr) (allowed bool, by netip.Prefix, known bool) {
	found := s.listenersNamed(listener)
	if listener == "" || len(found) == 0 {
		return false, netip.Prefix{}, false
	}
	allowed, by = found[0].gate.ExplainAccess(client)
	return allowed, by, true
}

// names returns what says which clients name the real ones; nil if none does.
func (spec *ListenerSpec) names() func(netip.Addr) bool {
	if spec.Proxy.Versions == 0 {
		return nil
	}
	return spec.Proxy.Trusts
}
