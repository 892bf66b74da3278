package pool

import "time"

// With Options.DrainSafely, the sessions of a backend that gets no more because the operator wants it are asked to
// leave: each ends at a moment at which nothing is lost. Whoever holds the leases knows that moment; the pool only says
// which backends are to be left, and when that begins. Rebalancing asks in the same way, and says how many may leave.

// OnLeave registers f, which is called with each backend that its sessions are to leave: with DrainSafely one that goes
// into Drain or Maintenance, or that is removed, unless its leases are revoked (OnRevoke). It is also called with a
// backend that some sessions are to leave, so that others have a share of them: see Backend.TakeLeave.
//
// f is called in the order of the changes, after the backend is out of use and with the pool's mutex held: it must not
// block, nor call methods that change the pool. A session that gets the backend just before may begin after the call of
// f; its holder then looks at Backend.Leaving.
func (p *Pool) OnLeave(f func(*Backend)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leavers = append(p.leavers, f)
}

// DrainsSafely reports whether sessions may be asked to leave a backend. It may be called from any goroutine, and takes
// no lock.
func (p *Pool) DrainsSafely() bool { return p.settings().DrainSafely }

// Leaving reports whether the backend's sessions are to leave it; see Pool.OnLeave. It becomes false when the backend
// is back in use, or DrainSafely is turned off.
func (b *Backend) Leaving() bool { return b.leaving.Load() }

// MayLeave reports whether a session may leave the backend now so that others have a share: TakeLeave may succeed.
func (b *Backend) MayLeave() bool { return b.leaves.Load() > 0 }

// TakeLeave takes the right to end one session of the backend, so that others have a share. It reports false if no
// more may end now.
func (b *Backend) TakeLeave() bool {
	for { // a counter below zero for a moment would let another session take back too much
		n := b.leaves.Load()
		if n <= 0 {
			return false
		}
		if b.leaves.CompareAndSwap(n, n-1) {
			b.moved.Add(1)
			return true
		}
	}
}

// RebalanceMinAge returns how long a session has been there at least that leaves so that others have a share.
func (p *Pool) RebalanceMinAge() time.Duration { return p.settings().Rebalance.MinAge }

// grantLeavesLocked lets so many sessions of a backend leave from now on, in place of those that were to leave before
// and did not, and calls the functions of OnLeave.
func (p *Pool) grantLeavesLocked(b *Backend, n int) {
	b.leaves.Store(int64(n))
	if n == 0 {
		return
	}
	for _, f := range p.leavers {
		f(b)
	}
}

// leaves reports whether the sessions of a backend with the settings of m, nil for one that was removed, are to leave
// it.
func (s *settings) leaves(m *member) bool {
	switch {
	case !s.DrainSafely:
		return false
	case m != nil && m.mode != Maintenance:
		return m.mode == Drain
	}
	return !s.CloseOnRemove // or its leases are revoked
}

// noteLeaveLocked marks a backend whose settings are next, nil for a removed one, as one to be left or not, and calls
// the functions of OnLeave if that begins.
func (p *Pool) noteLeaveLocked(b *Backend, next *member) {
	leaves := p.settings().leaves(next)
	if b.leaving.Swap(leaves) || !leaves {
		return
	}
	for _, f := range p.leavers {
		f(b)
	}
}
