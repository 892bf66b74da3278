package pool

// OnDepart registers f, which is called with each backend that departs: it is removed from the pool or put into
// maintenance. Leases on it stay valid unless the options revoke them (OnRevoke). But its address may soon belong to
// another machine, so UDP flows to it must end after a time limit of their own.
//
// f is called in the order of the changes, after the backend is out of use and with the pool's mutex held: it must not
// block, nor call methods that change the pool.
func (p *Pool) OnDepart(f func(*Backend)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.departers = append(p.departers, f)
}

// Departed returns the number of the backend's current departure, counted from 1, and 0 while it is in the pool and not
// in maintenance. A timer that was started at a departure sees by it whether the backend has returned since.
func (b *Backend) Departed() uint64 {
	if n := b.departures.Load(); n&1 == 1 {
		return n/2 + 1
	}
	return 0
}

// Drains reports whether the operator or its agent is the only reason why the backend gets nothing new: it was removed,
// is in maintenance or drain, or has weight 0, while its checks and its breaker would let it serve. Its sessions and
// flows
// may continue.
func (b *Backend) Drains() bool { return b.drains.Load() }

// well reports whether checks and traffic would let m serve, whatever its mode and weight. tryAll is whether the pool
// tries all backends that are not of the wrong role.
func (m *member) well(tryAll bool) bool {
	if tryAll {
		return m.verdict != WrongRole
	}
	return (m.verdict == Healthy || m.verdict == Fallback) && !m.agent.Down && m.breaker == Closed
}

// noteDrainsLocked marks as draining the backends that s puts out of use because the operator wants it. It is called
// before s is in force, so that whoever finds such a backend out of use also finds it draining.
func (s *snapshot) noteDrainsLocked() {
	for _, m := range s.members {
		if !m.enabled() && m.well(s.tryAll) && !m.backend.drains.Load() {
			m.backend.drains.Store(true)
		}
	}
}

// endDrainsLocked unmarks all others. It is called after s is in force.
func (s *snapshot) endDrainsLocked() {
	for _, m := range s.members {
		if (m.enabled() || !m.well(s.tryAll)) && m.backend.drains.Load() {
			m.backend.drains.Store(false)
		}
	}
}

// departing reports whether a change from m to next, nil for its removal, is a departure.
func (m *member) departing(next *member) bool {
	return m.modeInForce() != Maintenance && (next == nil || next.modeInForce() == Maintenance)
}

// noteDepartureLocked marks a backend whose settings are about to change from old to next as departed or as returned.
// Removing a backend that is in maintenance is no second departure.
func noteDepartureLocked(old, next *member, tryAll bool) {
	b := old.backend
	if next == nil {
		b.drains.Store(old.well(tryAll))
	}
	if gone := next == nil || next.modeInForce() == Maintenance; gone != (b.departures.Load()&1 == 1) {
		b.departures.Add(1)
	}
}

// notifyDepartureLocked calls the functions of OnDepart if the change is a departure.
func (p *Pool) notifyDepartureLocked(old, next *member) {
	if !old.departing(next) {
		return
	}
	for _, f := range p.departers {
		f(old.backend)
	}
}
