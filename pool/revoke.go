package pool

// A Revocation says why the leases on a backend must be given back.
type Revocation uint8

// The revocations.
const (
	RevokedUnhealthy Revocation = iota // the backend became unhealthy, had the wrong role, or is down says its agent
	RevokedRemoved                     // the backend was removed from the pool or put into maintenance
)

// OnRevoke registers f, which is called with each backend whose leases must be given back. These are backends that
// became unhealthy or had the wrong role, or that were removed or put into maintenance, if the pool's options say so.
// An unhealthy backend that is tried for want of healthy ones keeps its leases, also when others are healthy again,
// until its verdict becomes WrongRole.
//
// f is called in the order of the changes, after the backend is out of use and with the pool's mutex held: it must not
// block, nor call methods that change the pool.
//
// A lease that was picked just before may reach its holder after the call of f; the holder then checks Backend.Revoked.
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
	case p.settings().CloseOnRemove &&
		(next == nil || next.modeInForce() == Maintenance && old.modeInForce() != Maintenance):
		why = RevokedRemoved
	case p.settings().CloseOnUnhealthy && next != nil && next.verdict != old.verdict && next.verdict.final() &&
		!(old.verdict.final() && b.revoked.Load()): // not so if it was tried in spite of its earlier verdict
		why = RevokedUnhealthy
	case p.settings().CloseOnUnhealthy && next != nil && next.agent.Down && !old.agent.Down:
		why = RevokedUnhealthy
	default:
		return
	}
	if b.inUse.Load() {
		return // no other backend is healthy, so this one stays in use
	}
	b.revoked.Store(true)
	p.counts.revocations.Add(1)
	for _, f := range p.revokers {
		f(b, why)
	}
}
