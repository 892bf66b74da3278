package pool

// A Revocation says why the leases on a backend are to be given back.
type Revocation uint8

// The revocations.
const (
	RevokedUnhealthy Revocation = iota // the checks judge it unhealthy, or of the wrong role
	RevokedRemoved                     // it was removed from the pool, or put into maintenance
)

// OnRevoke has f told of each backend whose leases are to be given back, because the pool's options say so and it
// became unhealthy or had the wrong role, was removed or went into maintenance. One that is tried although it is
// unhealthy keeps its leases, also when others are healthy again, until its verdict becomes the wrong role.
//
// f is called in the order of the changes, after the backend is out of use and while the pool takes no other change: it
// must not block, and not call methods that change the pool.
//
// A lease that was picked just before may reach its holder after f was called; Backend.Revoked tells.
func (p *Pool) OnRevoke(f func(*Backend, Revocation)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revokers = append(p.revokers, f)
}

// revokeLocked revokes the leases on a backend whose settings changed from old to next, nil for a removed one, if the
// options want that.
func (p *Pool) revokeLocked(old, next *member) {
	b := old.backend
	var why Revocation
	switch {
	case p.settings().CloseOnRemove && (next == nil || next.mode == Maintenance && old.mode != Maintenance):
		why = RevokedRemoved
	case p.settings().CloseOnUnhealthy && next != nil && next.verdict != old.verdict && next.verdict.final() &&
		!(old.verdict.final() && b.revoked.Load()): // it is not when it was tried in spite of the verdict before
		why = RevokedUnhealthy
	default:
		return
	}
	if b.inUse.Load() {
		return // no other is healthy, and so it is tried all the same
	}
	b.revoked.Store(true)
	p.counts.revocations.Add(1)
	for _, f := range p.revokers {
		f(b, why)
	}
}
