package l4

import (
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// A revocation is a backend whose sessions and flows are to end, and their reason.
type revocation struct {
	backend *pool.Backend
	why     Reason
}

// revoke has every loop end its sessions and flows of a backend: the pool wants its leases back.
func (s *Server) revoke(b *pool.Backend, why pool.Revocation) {
	r := revocation{b, BackendUnhealthy}
	if why == pool.RevokedRemoved {
		r.why = BackendRemoved
	}
	for _, l := range s.loops {
		l.mailbox.post(message{do: func() { l.revoked = append(l.revoked, r) }})
	}
}

// takeRevoked ends the sessions and flows of revoked backends. A session that is only being connected goes to another backend; that is why
// all of it waits for the end of the batch, which may still have an event of the connection it gives up.
func (l *loop) takeRevoked() {
	for _, r := range l.revoked {
		if !r.backend.Revoked() {
			continue // it is back in use already
		}
		l.sessions.all(func(s *session) {
			if s.phase == queued || s.lease.Backend() != r.backend {
				return
			}
			if s.phase == relaying {
				l.end(s, r.why)
				return
			}
			s.backend.close(false)
			s.lease.Release(pool.Neutral)
			l.connect(s)
		})
		l.flows.store.all(func(f *flow) {
			if f.home.housed && f.home.lease.Backend() == r.backend {
				l.endFlow(f, r.why)
			}
		})
	}
	l.revoked = l.revoked[:0]
}

// depart ends the flows of a backend that the pool has no more, or has in maintenance, once drain_timeout has passed,
// unless it has returned by then. A flow has no connection: it would send to that address for as long as its client
// does, whoever has the address then.
func (s *Server) depart(b *pool.Backend) {
	departure := b.Departed()
	time.AfterFunc(time.Duration(s.drainTimeout.Load()), func() {
		if s.flows.Load() == 0 {
			return
		}
		for _, l := range s.loops {
			l.mailbox.post(message{do: func() { // in vain after a shut down, which has ended all flows
				if l.departed == nil {
					l.departed = make(map[*pool.Backend]uint64)
				}
				l.departed[b] = departure
			}})
		}
	})
}

// takeDeparted ends the flows of backends whose time is over, with one walk for all that departed together.
func (l *loop) takeDeparted() {
	l.flows.store.all(func(f *flow) {
		if !f.home.housed {
			return
		}
		b := f.home.lease.Backend()
		if departure := l.departed[b]; departure != 0 && departure == b.Departed() {
			l.endFlow(f, BackendRemoved)
		}
	})
	l.departed = nil
}
