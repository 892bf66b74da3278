package l4

import (
	"context"
	"time"
	"weak"

	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// followRevocationsLocked subscribes to the backends of a pool whose sessions are to end. Pools that are gone are
// forgotten. mu is held.
func (s *Server) followRevocationsLocked(p *pool.Pool) {
	for known := range s.revoking {
		if known.Value() == nil {
			delete(s.revoking, known)
		}
	}
	if key := weak.Make(p); !s.revoking[key] {
		s.revoking[key] = true
		p.OnRevoke(s.revoke)
		p.OnDepart(s.depart)
		p.OnLeave(s.leaveBackend)
	}
}

// revoke makes every loop end its sessions and flows of a backend: the pool wants its leases back. DNS questions there
// are retried elsewhere.
func (s *Server) revoke(b *pool.Backend, why pool.Revocation) {
	reason := tally.BackendUnhealthy
	if why == pool.RevokedRemoved {
		reason = tally.BackendRemoved
	}
	s.onLoops(func(i int) {
		s.questions[i].Revoke(b)
		s.sessions[i].Revoke(b, reason)
		s.flows[i].Revoke(b, reason)
	})
}

// depart ends the flows of a backend that the pool has no more, or has in maintenance, once drain_timeout has passed,
// unless it has returned by then.
func (s *Server) depart(b *pool.Backend) {
	departure := b.Departed()
	time.AfterFunc(time.Duration(s.drainTimeout.Load()), func() {
		if s.gate.Flows() > 0 { // in vain after a shut down, which has ended all flows
			s.onLoops(func(i int) { s.flows[i].Depart(b, departure) })
		}
	})
}

// leaveBackend asks the sessions of a backend to leave it, each at a moment at which nothing is lost.
func (s *Server) leaveBackend(b *pool.Backend) {
	patience := time.Duration(s.drainTimeout.Load()) / 2
	s.onLoops(func(i int) { s.sessions[i].AskToLeave(b, patience) })
}

// leaveAll asks all sessions that can leave their backends safely to do so, since the server shuts down. ctx is done
// when the others are cut.
func (s *Server) leaveAll(ctx context.Context) {
	if ctx.Err() != nil || s.Sessions() == 0 {
		return
	}
	patience := time.Duration(s.drainTimeout.Load()) / 2
	if deadline, set := ctx.Deadline(); set {
		patience = max(time.Until(deadline)/2, 0)
	}
	s.onLoops(func(i int) { s.sessions[i].AskAllToLeave(patience) })
}
