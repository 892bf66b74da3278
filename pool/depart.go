package pool

// OnDepart has f called with each backend that departs: that is removed from the pool, or goes into maintenance. Leases
// on it go on unless the options revoke them (OnRevoke), but its address may be somebody else's soon: whoever sends to
// it without a connection gives up after a time of its own.
//
// f is called in the order of the changes, after the backend is out of use and while the pool takes no other change: it
// must not block, and not call methods that change the pool.
func (p *Pool) OnDepart(f func(*Backend)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.departers = append(p.departers, f)
}

// Departed returns which of its departures the backend is on, counted from 1, and 0 while it is in the pool and not in
// maintenance. So a timer that was started at a departure can tell whether the backend has returned since.
func (b *Backend) Departed() uint64 {
	if n := b.departures.Load(); n&1 == 1 {
		return n/2 + 1
	}
	return 0
}

// Drains reports whether the backend gets nothing new for no other reason than the operator's wish: it was removed, is
// in maintenance or drain, or has weight 0, while its checks and its breaker would let it serve. What has begun on it
// may go on.
func (b *Backend) Drains() bool { return b.drains.Load() }

// well reports whether checks and traffic would let m serve, whatever the operator wants, when all that are not of the
// wrong role are tried or not.
func (m *member) well(tryAll bool) bool {
	if tryAll {
		return m.verdict != WrongRole
	}
	return m.verdict == Healthy && m.breaker == Closed
}

// noteDrainsLocked says of backends that s puts out of use by the operator's wish that they drain. It is called before
// s is in force: nobody sees such a backend out of use without learning why.
func (s *snapshot) noteDrainsLocked() {
	for _, m := range s.members {
		if !m.enabled() && m.well(s.tryAll) && !m.backend.drains.Load() {
			m.backend.drains.Store(true)
		}
	}
}

// endDrainsLocked says of all others that they do not. It is called after s is in force.
func (s *snapshot) endDrainsLocked() {
	for _, m := range s.members {
		if (m.enabled() || !m.well(s.tryAll)) && m.backend.drains.Load() {
			m.backend.drains.Store(false)
		}
	}
}

// departing reports whether a change from m to next, nil for its removal, is a departure.
func (m *member) departing(next *member) bool {
	return m.mode != Maintenance && (next == nil || next.mode == Maintenance)
}

// noteDepartureLocked marks a backend whose settings are about to change from old to next as departed, or as returned.
// A removed one that is in maintenance has departed before.
func noteDepartureLocked(old, next *member, tryAll bool) {
	b := old.backend
	if next == nil {
		b.drains.Store(old.well(tryAll))
	}
	if gone := next == nil || next.mode == Maintenance; gone != (b.departures.Load()&1 == 1) {
		b.departures.Add(1)
	}
}

// tellDepartureLocked tells whoever wants to know of a departure.
func (p *Pool) tellDepartureLocked(old, next *member) {
	if !old.departing(next) {
		return
	}
	for _, f := range p.departers {
		f(old.backend)
	}
}
