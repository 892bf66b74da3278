package l4

import (
	"cmp"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A ListeningSocket is a socket of a listener on its way to another process. It is written as JSON; the descriptor goes
// beside it.
type ListeningSocket struct {
	Listener  string       `json:"listener"`
	Protocol  Protocol     `json:"protocol"`
	Place     pool.Address `json:"place"`               // as its ListenerSpec has it, perhaps with port 0
	Address   pool.Address `json:"address"`             // where it is bound
	Loop      int          `json:"loop"`                // the index of the loop that served it
	Inherited bool         `json:"inherited,omitempty"` // somebody else has opened it, see Place.Inherited

	FD int `json:"-"`
}

// Sockets returns the listening sockets. The descriptors stay the server's. A socket that several loops have is there
// once.
func (h *Handover) Sockets() []ListeningSocket {
	s := h.server
	var all []ListeningSocket
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ls := range s.listeners {
		spec := ls.spec.Load()
		for k, p := range spec.places() {
			all = append(all, socketsOf(ls.name, spec.Protocol, &p, ls.bound[k])...)
		}
	}
	slices.SortStableFunc(all, func(a, b ListeningSocket) int {
		return cmp.Or(cmp.Compare(a.Listener, b.Listener), cmp.Compare(a.Protocol, b.Protocol))
	})
	return all
}

func socketsOf(name string, protocol Protocol, p *Place, b *listen.Binding) (all []ListeningSocket) {
	seen := make(map[uint64]bool)
	for i, fds := range b.Sockets {
		for _, fd := range fds {
			cookie := sock.Cookie(fd)
			if seen[cookie] {
				continue
			}
			seen[cookie] = true
			all = append(all, ListeningSocket{
				Listener: name, Protocol: protocol, Place: p.address(), Address: addressOf(b), Loop: i,
				Inherited: len(b.Inherited) > 0, FD: fd,
			})
		}
	}
	return all
}

// handedAge is how far back the moments of a server reach that takes over sessions: they count from its start and are
// never negative.
const handedAge = 10 * 365 * 24 * time.Hour

// startOf is the moment from which a server's moments count.
func startOf(o Options) time.Time {
	if o.Sockets == nil {
		return time.Now()
	}
	return time.Now().Add(-handedAge)
}

// expectSockets makes a new server wait for Admit, if it gets sockets of another process.
func (s *Server) expectSockets(sockets []ListeningSocket) {
	if sockets == nil {
		return
	}
	s.handed, s.waits = slices.Clone(sockets), true
	for i := range s.loops {
		s.sessions[i].Suspend()
		s.flows[i].Suspend()
	}
}

// takeOver makes the binding of a place out of sockets of another process; nil if none fits. Those of the same listener
// and configured place fit, or else those that are bound there.
func (c *Change) takeOver(spec *ListenerSpec, p *Place) (*listen.Binding, error) {
	if len(c.server.handed) == 0 || len(p.Inherited) > 0 {
		return nil, nil
	}
	fits := c.fitting(func(h *ListeningSocket) bool {
		return h.Listener == spec.Name && h.Protocol == spec.Protocol && h.Place == p.address()
	}, p)
	if fits == nil {
		fits = c.fitting(func(h *ListeningSocket) bool {
			return h.Protocol == spec.Protocol && h.Address == p.address()
		}, p)
	}
	if fits == nil {
		return nil, nil
	}
	s := c.server
	var fds []int
	inherited := false
	for _, i := range fits {
		fds = append(fds, s.handed[i].FD)
		inherited = inherited || s.handed[i].Inherited
	}
	b, err := listen.TakeOver(spec.sockets(p, s.offload), len(s.loops), fds, inherited, s.closeSockets)
	if err != nil {
		return nil, err
	}
	if c.taken == nil {
		c.taken = make(map[int]bool)
	}
	for _, i := range fits {
		c.taken[i] = true
	}
	return b, nil
}

// fitting returns the indices of sockets of one address that fit a place, and that no other place has.
func (c *Change) fitting(fits func(*ListeningSocket) bool, p *Place) (found []int) {
	s := c.server
	for i := range s.handed {
		h := &s.handed[i]
		switch {
		case c.taken[i] || !fits(h):
		case p.Address.Addr().Is6() && h.Address.Addr().Is6() && sock.TakesBoth(h.FD) != p.DualStack:
		case len(found) > 0 && s.handed[found[0]].Address != h.Address:
		default:
			found = append(found, i)
		}
	}
	return found
}

// closeHanded closes the sockets of another process that no listener has got. changing is held.
func (s *Server) closeHanded(taken map[int]bool) {
	for i := range s.handed {
		if !taken[i] {
			sock.Close(s.handed[i].FD)
		}
	}
	s.handed = nil
}

// closeUnused closes the sockets of another process that no Apply has used. While a Change has them, it is left to the
// end of the process.
func (s *Server) closeUnused() {
	if s.changing.TryLock() {
		s.closeHanded(nil)
		s.changing.Unlock()
	}
}

// Admit begins to admit clients, in a server that was made with Options.Sockets. It does nothing in others. From then on
// the sockets are this server's, which gives them its options.
func (s *Server) Admit() {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	if !s.waits || s.ended {
		s.mu.Unlock()
		return
	}
	s.waits = false
	live := s.live
	for _, ls := range s.listeners {
		spec := ls.spec.Load()
		for i, p := range spec.places() {
			if b := ls.bound[i]; b.Elsewhere() {
				if err := b.Own(spec.sockets(&p, s.offload)); err != nil {
					s.log.Error().Str("listener", ls.name).AnErr("err", err).
						Str("event", "socket_permissions_kept").Msg("the Unix socket keeps its permissions")
				}
			}
		}
	}
	s.mu.Unlock()
	if live {
		s.admit()
		return
	}
	for i := range s.loops {
		s.sessions[i].Admit()
		s.flows[i].Admit()
	}
}

// admit makes the loops admit clients, and waits until they do.
func (s *Server) admit() {
	s.onEachLoop(func(i int) {
		s.sessions[i].Admit()
		s.flows[i].Admit()
	})
}
