package pool

import (
	"fmt"
	"time"
)

// Restore applies overrides that Overrides has returned to a new pool: all at once, or nothing on an error. It may be
// called before or after the first Reconcile. It returns the overruled ones:
//   - A changed setting is applied unless the source has changed it since (Base). Another address, tier or zone does
//     not matter: overrides belong to the backend's id.
//   - A removed backend is removed.
//   - An added backend is added unless the pool has one of its id or address. Backends that Configuration names later
//     replace it.
//
// Overrides of a backend that its source has not named yet wait until it does, however long that takes; then the same
// rules apply, without a report. An added backend does not start slowly.
//
// The error is an *InvalidOverrideError.
func (p *Pool) Restore(overrides []Override) ([]Unapplied, error) {
	checked := make([]Override, len(overrides))
	seen := make(map[named]bool, len(overrides))
	for i, o := range overrides {
		o, err := o.checked()
		if of := (named{o.Source, o.Base.ID}); err == nil && seen[of] {
			err = ErrDuplicateBackend
		} else {
			seen[of] = true
		}
		if err != nil {
			return nil, fmt.Errorf("pool %s: restore: %w",
				p.name, &InvalidOverrideError{Index: i, Override: overrides[i], Err: err})
		}
		checked[i] = o
	}
	p.mu.Lock()
	unapplied := p.restoreLocked(checked)
	p.mu.Unlock()
	p.queue.serve()
	return unapplied, nil
}

func (p *Pool) restoreLocked(overrides []Override) []Unapplied {
	r := &restoring{pool: p, now: time.Now(), ids: make(map[string]*member, len(p.byID)),
		addrs: make(map[Address]*member)}
	for id, m := range p.byID {
		r.ids[id] = m
	}
	for _, o := range overrides { // removals first: a backend added by hand may have the address of a removed one
		switch o.Kind {
		case OverrideRemoved:
			r.remove(o)
		case OverrideChanged:
			r.change(o)
		}
	}
	for _, m := range r.ids {
		r.addrs[m.backend.addr] = m
	}
	for _, o := range overrides {
		if o.Kind == OverrideAdded {
			r.add(o)
		}
	}
	if c := r.changes; len(c.added)+len(c.removed)+len(c.edits) > 0 {
		p.applyLocked(c, r.now)
	}
	return r.unapplied
}

// restoring is the state of one call of Restore, with Pool.mu held.
type restoring struct {
	pool      *Pool
	now       time.Time
	changes   changes
	ids       map[string]*member  // the backends that there will be
	addrs     map[Address]*member // the same, by address
	unapplied []Unapplied
}

// mine returns the override's backend if its source has named it already, or nil.
func (r *restoring) mine(o Override) *member {
	if m := r.pool.byID[o.Base.ID]; m != nil && m.source == o.Source {
		return m
	}
	return nil
}

func (r *restoring) remove(o Override) {
	m := r.mine(o)
	if m == nil {
		r.pool.removals[named{o.Source, o.Base.ID}] = removal{spec: o.Base, awaited: true}
		return
	}
	r.pool.removals[named{o.Source, o.Base.ID}] = removal{spec: m.spec}
	r.changes.removed = append(r.changes.removed, m)
	delete(r.ids, o.Base.ID)
}

func (r *restoring) change(o Override) {
	m := r.mine(o)
	if m == nil {
		r.pool.awaited[named{o.Source, o.Base.ID}] = o
		return
	}
	o, overruled := o.against(m.spec)
	r.unapplied = append(r.unapplied, overruled...)
	e := &edit{old: m, next: *m}
	if o.Weight != nil {
		e.note(e.next.setWeight(*o.Weight))
	}
	if o.MaxSessions != nil {
		e.note(e.next.setMaxSessions(*o.MaxSessions))
	}
	if o.MaxRate != nil {
		e.note(e.next.setMaxRate(*o.MaxRate))
	}
	if o.Mode != nil {
		e.noteMode(*o.Mode)
	}
	if len(e.events) > 0 {
		r.changes.edits = append(r.changes.edits, e)
	}
}

func (r *restoring) add(o Override) {
	if m := r.ids[o.Base.ID]; m != nil {
		r.unapplied = append(r.unapplied, Unapplied{Override: o, Why: OverruledID, Now: m.spec})
		return
	}
	if m := r.addrs[o.Base.Addr]; m != nil {
		r.unapplied = append(r.unapplied, Unapplied{Override: o, Why: OverruledAddr, Now: m.spec})
		return
	}
	m := r.pool.memberLocked(o.Base, "", r.now)
	m.fresh = true
	r.pool.noteReturn(nil, m)
	r.ids[o.Base.ID], r.addrs[o.Base.Addr] = m, m
	r.changes.added = append(r.changes.added, m)
}

// take applies the run-time values that waited for a backend which its source has just named.
func (m *member) take(o Override) {
	o, _ = o.against(m.spec)
	if o.Weight != nil {
		m.weight = *o.Weight
	}
	if o.MaxSessions != nil {
		m.maxSessions = *o.MaxSessions
	}
	if o.MaxRate != nil {
		m.maxRate = *o.MaxRate
	}
	if o.Mode != nil {
		m.mode = *o.Mode
	}
}

// A removal is a backend that was removed by hand.
type removal struct {
	spec    Spec // its last description by its source
	awaited bool // it was restored, and its source has not named the backend yet
}
