package l4

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A Fate is what a Plan makes of a listener.
type Fate uint8

// The fates.
const (
	Kept    Fate = iota // it stays as it is
	Updated             // it keeps its sockets, and has other settings for new sessions
	Added               // it is new
	Removed             // it stops accepting, and its sessions go on to their end
	Rebound             // it gets other sockets, for another address; its sessions and counters stay
)

// String returns the fate as a lower-case word.
func (f Fate) String() string {
	return [...]string{Kept: "kept", Updated: "updated", Added: "added", Removed: "removed", Rebound: "rebound"}[f]
}

// A ListenerChange is what a Plan makes of one listener.
type ListenerChange struct {
	Name     string
	Fate     Fate
	From     netip.AddrPort // where it listens now; invalid for one that is added, and for a Unix socket
	To       netip.AddrPort // where it will; invalid for one that is removed, and for a Unix socket
	FromPath string         // of the Unix socket where it listens now; "" = none
	ToPath   string         // of the Unix socket where it will; "" = none
	Sessions int            // it has now
}

// A Change is a Plan that is ready: all that can fail is done. It is for one goroutine, which calls Commit or Discard
// soon. Until then every other Prepare and Apply waits, and so do clients that the new sockets attract.
type Change struct {
	// Listeners is what becomes of each: those of the plan in its order, then those that go, by name.
	Listeners []ListenerChange

	server *Server
	specs  []ListenerSpec
	opened map[string]*listen.Binding // by listener
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
	c := &Change{server: s, opened: make(map[string]*listen.Binding)}
	for _, spec := range p.Listeners {
		spec.Inherited = slices.Clone(spec.Inherited)
		if spec.DNS != nil {
			dns := *spec.DNS
			spec.DNS = &dns
		}
		spec.Routes = slices.Clone(spec.Routes)
		c.specs = append(c.specs, spec)
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
	for i := range c.specs {
		if b := c.opened[c.specs[i].Name]; b != nil {
			c.Listeners[i].To = b.Address
		}
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
	staying := make(map[string]bool, len(specs))
	for i := range specs {
		spec := &specs[i]
		staying[spec.Name] = true
		c := ListenerChange{Name: spec.Name, Fate: Added, To: spec.address(), ToPath: spec.Unix.Path}
		if ls := s.listeners[spec.Name]; ls != nil {
			old := ls.spec.Load()
			c.From, c.FromPath, c.Sessions = ls.bound.Address, ls.bound.Unix.Path, ls.now()
			switch {
			case !old.sameSockets(spec):
				c.Fate = Rebound
			case old.equal(spec):
				c.Fate, c.To = Kept, c.From
			default:
				c.Fate, c.To = Updated, c.From
			}
		}
		changes = append(changes, c)
	}
	stay := len(changes)
	for _, ls := range s.listeners {
		if !staying[ls.name] {
			changes = append(changes, ListenerChange{
				Name: ls.name, Fate: Removed, From: ls.bound.Address, FromPath: ls.bound.Unix.Path, Sessions: ls.now(),
			})
		}
	}
	slices.SortFunc(changes[stay:], func(a, b ListenerChange) int { return strings.Compare(a.Name, b.Name) })
	return changes
}

// check finds mistakes in the plan. Here and in open, the server's listeners cannot change: this is the only change.
func (c *Change) check() error {
	s := c.server
	seen := make(map[string]bool, len(c.specs))
	type place struct {
		address  netip.AddrPort
		path     string
		protocol Protocol
	}
	at := make(map[place]string, len(c.specs))
	owned := s.descriptors()
	for i := range c.specs {
		spec := &c.specs[i]
		if err := spec.validate(); err != nil {
			return err
		}
		if seen[spec.Name] {
			return fmt.Errorf("listener %q stands in the plan twice", spec.Name)
		}
		seen[spec.Name] = true
		address := spec.address()
		if c.keepsSockets(spec) {
			address = s.listeners[spec.Name].bound.Address
		} else {
			for _, fd := range spec.Inherited {
				if owned[fd] {
					return spec.failed(fmt.Errorf("inherited descriptor %d is in use already", fd))
				}
				owned[fd] = true
			}
		}
		// The kernel would not mind: it spreads clients over all sockets of an address that are ours.
		here := place{address, spec.Unix.Path, spec.Protocol}
		if other, taken := at[here]; taken && (address.Port() != 0 || here.path != "") {
			return fmt.Errorf("listeners %q and %q have one address, %s", other, spec.Name, spec.where(address))
		}
		at[here] = spec.Name
	}
	return nil
}

// open opens the sockets that the server does not have, and tries the options that are to be changed in place on a
// socket of its own. When it returns an error, discard closes what it has opened.
func (c *Change) open() error {
	for i := range c.specs {
		spec := &c.specs[i]
		keeps := c.keepsSockets(spec)
		if spec.Protocol == TCP && spec.Unix.Path == "" && (keeps || len(spec.Inherited) > 0) {
			if err := sock.CheckListenOptions(spec.listenOptions()); err != nil {
				return spec.failed(err)
			}
		}
		if keeps {
			continue
		}
		s := c.server
		b, err := listen.Open(spec.sockets(s.offload), len(s.loops), c.holds(spec), s.closeSockets)
		if err != nil {
			return spec.failed(err)
		}
		c.opened[spec.Name] = b
	}
	return nil
}

// keepsSockets reports whether the server has a listener of that name whose sockets fit the spec.
func (c *Change) keepsSockets(spec *ListenerSpec) bool {
	ls := c.server.listeners[spec.Name]
	return ls != nil && ls.spec.Load().sameSockets(spec)
}

// holds reports whether a listener of this server, or one just opened for it, has the port of a spec. A wildcard may
// stand beside one of its addresses, which the kernel prefers; and an old listener beside its successor, also one that
// only waits for the end of its flows.
func (c *Change) holds(spec *ListenerSpec) bool {
	has := func(b *listen.Binding) bool {
		return b.Protocol == spec.Protocol && b.Address.Port() == spec.Address.Port() && b.Unix.Path == spec.Unix.Path
	}
	for _, ls := range c.server.listeners {
		if has(ls.bound) {
			return true
		}
	}
	for _, b := range c.opened {
		if has(b) {
			return true
		}
	}
	return slices.ContainsFunc(c.server.leaving, func(b *listen.Binding) bool {
		return has(b) && !b.Ending.IsGone()
	})
}

// descriptors returns every listening socket that the server holds. changing must be held.
func (s *Server) descriptors() map[int]bool {
	all := make(map[int]bool)
	for _, ls := range s.listeners {
		ls.bound.Each(func(fd int) { all[fd] = true })
	}
	return all
}
