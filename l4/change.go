package l4

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A Fate is what a Plan makes of a listener.
type Fate uint8

// The fates.
const (
	Kept    Fate = iota // it stays as it is
	Updated             // it keeps its sockets, and has other settings for new sessions
	Added               // it is new
	Removed             // it stops accepting, and its sessions go on to their end
	Rebound             // it gets other sockets, but keeps those of addresses that stay; its sessions and counters stay
)

// String returns the fate as a lower-case word.
func (f Fate) String() string {
	return [...]string{Kept: "kept", Updated: "updated", Added: "added", Removed: "removed", Rebound: "rebound"}[f]
}

// A ListenerChange is what a Plan makes of one listener.
type ListenerChange struct {
	Name     string
	Protocol Protocol
	Fate     Fate
	From     []pool.Address // where it listens now; nil for one that is added
	To       []pool.Address // where it will; nil for one that is removed
	Sessions int            // it has now
}

// A Change is a Plan that is ready: all that can fail is done. It is for one goroutine, which calls Commit or Discard
// soon. Until then every other Prepare and Apply waits, and so do clients that the new sockets attract.
type Change struct {
	// Listeners is what becomes of each: those of the plan in its order, then those that go, by name.
	Listeners []ListenerChange

	server *Server
	specs  []ListenerSpec
	before []*listener         // for each of specs the listener that it changes; nil for a new one
	bound  [][]*listen.Binding // for each of specs the sockets of its places, kept or opened; nil until they are opened
	opened []*listen.Binding   // those of bound that are opened
	taken  map[int]bool        // by index in Server.handed: those of opened
	over   bool
}

// ErrShutdown is what Prepare and Apply return once Shutdown was called.
var ErrShutdown = errors.New("l4: the server is shut down")

// Apply makes the server serve exactly p: Prepare and Commit in one. On an error, nothing has changed.
func (s *Server) Apply(p Plan) error {
	c, err := s.Prepare(p)
	if err != nil {
		return err
	}
	c.Commit()
	return nil
}

// Prepare does all that can fail of making the server serve exactly p: it checks p and opens the sockets that are new.
// A listener that cannot be opened is a *ListenError. While another Change is neither committed nor discarded, Prepare
// waits.
func (s *Server) Prepare(p Plan) (*Change, error) {
	s.changing.Lock() // until the change is over
	c, err := s.prepare(p)
	if err != nil {
		s.changing.Unlock()
		return nil, err
	}
	return c, nil
}

func (s *Server) prepare(p Plan) (*Change, error) {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended {
		return nil, ErrShutdown
	}
	c := &Change{server: s}
	for _, spec := range p.Listeners {
		spec.clonePlaces()
		if spec.DNS != nil {
			dns := *spec.DNS
			spec.DNS = &dns
		}
		spec.Routes = slices.Clone(spec.Routes)
		c.specs = append(c.specs, spec)
	}
	c.before = s.matchLocked(c.specs)
	for i := range c.specs {
		c.bound = append(c.bound, c.before[i].kept(&c.specs[i]))
	}
	err := c.check()
	if err == nil {
		err = c.open()
	}
	if err != nil {
		c.discard()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Listeners = s.compareLocked(c.specs)
	for i, bound := range c.bound {
		c.Listeners[i].To = addressesOf(bound)
	}
	return c, nil
}

// Compare returns what Apply would make of the listeners, as Change.Listeners does. It opens and changes nothing, and
// does not look whether p is valid.
func (s *Server) Compare(p Plan) []ListenerChange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.compareLocked(p.Listeners)
}

func (s *Server) compareLocked(specs []ListenerSpec) []ListenerChange {
	changes := make([]ListenerChange, 0, len(specs))
	staying := make(map[*listener]bool, len(specs))
	before := s.matchLocked(specs)
	for i := range specs {
		spec, ls := &specs[i], before[i]
		c := ListenerChange{Name: spec.Name, Protocol: spec.Protocol, Fate: Added}
		kept := ls.kept(spec)
		for k, p := range spec.places() {
			if kept[k] != nil {
				c.To = append(c.To, addressOf(kept[k]))
			} else {
				c.To = append(c.To, p.address())
			}
		}
		if ls != nil {
			staying[ls] = true
			old := ls.spec.Load()
			c.From, c.Sessions = addressesOf(ls.bound), ls.now()
			switch {
			case !old.sameSockets(spec):
				c.Fate = Rebound
			case old.equal(spec):
				c.Fate = Kept
			default:
				c.Fate = Updated
			}
		}
		changes = append(changes, c)
	}
	stay := len(changes)
	for _, ls := range s.listeners {
		if !staying[ls] {
			changes = append(changes, ListenerChange{
				Name: ls.name, Protocol: ls.spec.Load().Protocol, Fate: Removed, From: addressesOf(ls.bound),
				Sessions: ls.now(),
			})
		}
	}
	slices.SortFunc(changes[stay:], func(a, b ListenerChange) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol))
	})
	return changes
}

// matchLocked returns for each spec the listener that it changes, nil for one that is new: the one of its name and
// protocol, or else that of its name whose protocol no spec of the name has. Either of mu and changing is held.
func (s *Server) matchLocked(specs []ListenerSpec) []*listener {
	wanted := make(map[listenerKey]bool, len(specs))
	for i := range specs {
		wanted[specs[i].key()] = true
	}
	before := make([]*listener, len(specs))
	for i := range specs {
		key := specs[i].key()
		before[i] = s.listeners[key]
		if other := key.otherProtocol(); before[i] == nil && !wanted[other] {
			before[i] = s.listeners[other]
		}
	}
	return before
}

// kept returns for each place of a spec the sockets of the listener that serve it; nil where none do, and ls may be
// nil.
func (ls *listener) kept(spec *ListenerSpec) []*listen.Binding {
	places := spec.places()
	kept := make([]*listen.Binding, len(places))
	if ls == nil {
		return kept
	}
	old := ls.spec.Load()
	if old.Protocol != spec.Protocol {
		return kept
	}
	for i, k := range matchPlaces(old.places(), places) {
		if k >= 0 {
			kept[i] = ls.bound[k]
		}
	}
	return kept
}

// check finds mistakes in the plan. Here and in open, the server's listeners cannot change: this is the only change.
func (c *Change) check() error {
	seen := make(map[listenerKey]bool, len(c.specs))
	at := make(map[socketPlace]*ListenerSpec, len(c.specs))
	owned := c.server.descriptors()
	for i := range c.specs {
		spec := &c.specs[i]
		if err := spec.validate(); err != nil {
			return err
		}
		if seen[spec.key()] {
			return fmt.Errorf("listener %q stands in the plan twice", spec.Name)
		}
		seen[spec.key()] = true
		if err := c.checkPlaces(i, at, owned); err != nil {
			return err
		}
	}
	return c.checkSockets()
}

// A socketPlace is an address of a protocol.
type socketPlace struct {
	address  pool.Address
	protocol Protocol
}

// checkPlaces finds mistakes in where one of the specs is to listen, beside those checked before it. It adds the
// spec's addresses to at, and its inherited descriptors to owned.
func (c *Change) checkPlaces(i int, at map[socketPlace]*ListenerSpec, owned map[int]bool) error {
	spec := &c.specs[i]
	for k, p := range spec.places() {
		address := p.address()
		if kept := c.bound[i][k]; kept != nil {
			address = addressOf(kept)
		} else {
			for _, fd := range p.Inherited {
				if owned[fd] {
					return spec.failed(k, fmt.Errorf("inherited descriptor %d is in use already", fd))
				}
				owned[fd] = true
			}
		}
		// The kernel would not mind: it spreads clients over all sockets of an address that are ours.
		here := socketPlace{address, spec.Protocol}
		switch other := at[here]; {
		case other == nil || address.Port() == 0 && address.Path == "":
		case other == spec:
			return fmt.Errorf("listener %q has the address %s twice", spec.Name, address)
		default:
			return fmt.Errorf("listeners %q and %q have one address, %s", other.Name, spec.Name, address)
		}
		at[here] = spec
	}
	return nil
}

// checkSockets returns an error if there are too few descriptors for the listening sockets of the plan. The listener
// with the most is blamed.
func (c *Change) checkSockets() error {
	total, most := 0, 0
	loops, room := len(c.server.loops), c.server.gate.Spare()
	for i := range c.specs {
		total += len(c.bound[i]) * loops
		if len(c.bound[i]) > len(c.bound[most]) {
			most = i
		}
	}
	if total == 0 || total < room-1 { // a session takes two
		return nil
	}
	spec := &c.specs[most]
	return spec.failed(0, fmt.Errorf("its %d addresses need a socket for each of %d loops; with those of the other "+
		"listeners that makes %d, and the limit of open files leaves %d: raise it (ulimit -n, LimitNOFILE=)",
		len(c.bound[most]), loops, total, room))
}

// open opens the sockets that the server does not have, and tries the options that are to be changed in place on a
// socket of its own. When it returns an error, discard closes what it has opened.
func (c *Change) open() error {
	s := c.server
	for i := range c.specs {
		spec := &c.specs[i]
		tried := false
		for k, p := range spec.places() {
			keeps := c.bound[i][k] != nil
			given := len(p.Inherited) > 0 || len(s.handed) > 0
			if spec.Protocol == TCP && p.Unix.Path == "" && !tried && (keeps || given) {
				tried = true
				if err := sock.CheckListenOptions(spec.listenOptions()); err != nil {
					return spec.failed(k, err)
				}
			}
			if keeps {
				continue
			}
			if b, err := c.takeOver(spec, &p); err != nil {
				return spec.failed(k, err)
			} else if b != nil {
				c.bound[i][k] = b
				c.opened = append(c.opened, b)
				continue
			}
			c.takePort(i, k, &p)
			b, err := listen.Open(spec.sockets(&p, s.offload), len(s.loops), c.holds(spec.Protocol, &p),
				s.closeSockets)
			if err != nil {
				return spec.failed(k, err)
			}
			c.bound[i][k] = b
			c.opened = append(c.opened, b)
		}
	}
	return nil
}

// takePort gives a place that any port will do for the one that the listener of the same name and another protocol got
// for it.
func (c *Change) takePort(i, k int, p *Place) {
	if p.Address.Port() != 0 || p.Unix.Path != "" {
		return
	}
	sibling := c.specs[i].key().otherProtocol()
	for j := range c.specs {
		if c.specs[j].key() != sibling || k >= len(c.bound[j]) || c.bound[j][k] == nil {
			continue
		}
		p.Address = netip.AddrPortFrom(p.Address.Addr(), c.bound[j][k].Address.Port())
	}
}

// holds reports whether a listener of this server, or one just opened for it, has the port, or the path, of a place. A
// wildcard may stand beside one of its addresses, which the kernel prefers; and an old listener beside its successor,
// also one that only waits for the end of its flows.
func (c *Change) holds(protocol Protocol, p *Place) bool {
	has := func(b *listen.Binding) bool {
		return b.Protocol == protocol && b.Address.Port() == p.Address.Port() && b.Unix.Path == p.Unix.Path
	}
	for _, ls := range c.server.listeners {
		if slices.ContainsFunc(ls.bound, has) {
			return true
		}
	}
	return slices.ContainsFunc(c.opened, has) ||
		slices.ContainsFunc(c.server.leaving, func(b *listen.Binding) bool { return has(b) && !b.Ending.IsGone() })
}

// descriptors returns every listening socket that the server holds. changing must be held.
func (s *Server) descriptors() map[int]bool {
	all := make(map[int]bool)
	for _, b := range bindings(s.listeners) {
		b.Each(func(fd int) { all[fd] = true })
	}
	return all
}
