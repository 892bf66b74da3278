package flow

import (
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A revocation is a backend whose flows are to end, and their reason.
type revocation struct {
	backend *pool.Backend
	why     tally.Reason
}

// Revoke ends the flows of a backend at the end of this batch of events: the pool wants its leases back.
func (l *Loop) Revoke(b *pool.Backend, why tally.Reason) {
	l.revoked = append(l.revoked, revocation{b, why})
}

func (l *Loop) takeRevoked() {
	for _, r := range l.revoked {
		if !r.backend.Revoked() {
			continue // it is back in use already
		}
		l.store.All(func(f *Flow) {
			if f.to.assigned && f.to.lease.Backend() == r.backend {
				l.End(f, r.why)
			}
		})
	}
	l.revoked = l.revoked[:0]
}

// Depart ends the flows of a backend that the pool has no more, or has in maintenance, unless it has returned since
// that departure. A flow has no connection: it would send to that address for as long as its client does, whoever has
// the address then.
func (l *Loop) Depart(b *pool.Backend, departure uint64) {
	if l.departed == nil {
		l.departed = make(map[*pool.Backend]uint64)
	}
	l.departed[b] = departure
}

// takeDeparted ends the flows of backends that have departed, with one walk for all that departed together.
func (l *Loop) takeDeparted() {
	l.store.All(func(f *Flow) {
		if !f.to.assigned {
			return
		}
		b := f.to.lease.Backend()
		if departure := l.departed[b]; departure != 0 && departure == b.Departed() {
			l.End(f, tally.BackendRemoved)
		}
	})
	l.departed = nil
}

// EndAll ends all flows. Detached ones are taken to be another process's.
func (l *Loop) EndAll(why tally.Reason) {
	l.store.All(func(f *Flow) {
		if f.detached {
			l.Gone(loop.RefTo(f))
			return
		}
		l.End(f, why)
	})
}

// Some calls visit for a slice of the flows, as loop.Slab.Some does.
func (l *Loop) Some(from int, visit func(*Flow)) int { return l.store.Some(from, visit) }
