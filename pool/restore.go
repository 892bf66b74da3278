package pool

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// An Overruling says why a run-time value was not restored.
type Overruling uint8

// The overrulings.
const (
	OverruledValue   Overruling = iota // the source says something else of that setting than when it was set
	OverruledBackend                   // the source describes another backend under that id, or the removed one otherwise
	OverruledID                        // the pool has a backend under the id of one that was added by hand
	OverruledAddr                      // a source names another backend at the address of one that was added by hand
)

// String returns the reason in words.
func (o Overruling) String() string {
	switch o {
	case OverruledValue:
		return "its source says something else now"
	case OverruledBackend:
		return "its source describes it otherwise now"
	case OverruledID:
		return "there is another backend of that name now"
	case OverruledAddr:
		return "there is another backend at that address now"
	}
	return "overruling(" + strconv.Itoa(int(o)) + ")"
}

// An Unapplied is a run-time value, or all of them, of one backend that Restore did not bring back. It is a plain value.
type Unapplied struct {
	Override Override
	Field    string // "weight", "max_sessions" or "mode"; "" when it is all of the override
	Why      Overruling
	Now      Spec // that of the backend which stands against it
}

// String says what was not restored, and why.
func (u Unapplied) String() string {
	id := u.Override.Base.ID
	if u.Field == "" {
		return fmt.Sprintf("backend %q stays as it is configured, and not %s by hand: %v", id, u.Override.Kind, u.Why)
	}
	return fmt.Sprintf("%s of backend %q stays as it is configured: %v", u.Field, id, u.Why)
}

// Restore does again what Overrides told of, in a new pool: all at once, or on an error nothing. It may be called before or after
// the first Reconcile. It returns what was overruled:
//   - A changed setting is taken up unless the source says something else of it than it did then (Base). With another address, tier
//     or zone it is another backend, of which nothing is taken up.
//   - A removed backend is removed unless its source describes it otherwise than it did then.
//   - An added backend is added unless the pool has one of its id, or a source one at its address. If no source has named
//     anything yet, the first Reconcile has the same right: what it names takes the place of one added by hand.
//
// What a source has not named yet waits until it does, however long that takes, and is then judged in the same way, in silence. A
// backend that is added does not start slowly.
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
			return nil, fmt.Errorf("pool %s: restore: %w", p.name, &InvalidOverrideError{Index: i, Override: overrides[i], Err: err})
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
	r := &restoring{pool: p, now: time.Now(), ids: make(map[string]*member, len(p.byID)), addrs: make(map[netip.AddrPort]*member)}
	for id, m := range p.byID {
		r.ids[id] = m
	}
	for _, o := range overrides { // removals first: what was added by hand may stand where something was removed
		switch o.Kind {
		case OverrideRemoved:
			r.remove(o)
		case OverrideChanged:
			r.change(o)
		}
	}
	for _, m := range r.ids {
		if m.source != "" {
			r.addrs[m.backend.addr] = m
		}
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

// restoring is a Restore under way, with Pool.mu held.
type restoring struct {
	pool      *Pool
	now       time.Time
	changes   changes
	ids       map[string]*member         // of the backends that there will be, without those it adds
	addrs     map[netip.AddrPort]*member // of those of these that have a source
	unapplied []Unapplied
}

// mine returns the backend that the override's source has named already, or nil.
func (r *restoring) mine(o Override) *member {
	if m := r.pool.byID[o.Base.ID]; m != nil && m.source == o.Source {
		return m
	}
	return nil
}

func (r *restoring) remove(o Override) {
	m := r.mine(o)
	switch {
	case m == nil:
		r.pool.removals[named{o.Source, o.Base.ID}] = removal{spec: o.Base, awaited: true}
	case m.spec != o.Base:
		r.unapplied = append(r.unapplied, Unapplied{Override: o, Why: OverruledBackend, Now: m.spec})
	default:
		r.pool.removals[named{o.Source, o.Base.ID}] = removal{spec: o.Base}
		r.changes.removed = append(r.changes.removed, m)
		delete(r.ids, o.Base.ID)
	}
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
	m.fresh, m.restored = true, true
	r.pool.noteReturn(nil, m)
	r.changes.added = append(r.changes.added, m)
}

// against returns the values of o that hold now that the source says s, and those that it overrules.
func (o Override) against(s Spec) (Override, []Unapplied) {
	base := o.Base
	if base.Addr != s.Addr || base.Tier != s.Tier || base.Zone != s.Zone {
		none := o
		none.Weight, none.MaxSessions, none.Mode = nil, nil, nil
		return none, []Unapplied{{Override: o, Why: OverruledBackend, Now: s}}
	}
	held := o
	var overruled []Unapplied
	overrule := func(field string) {
		overruled = append(overruled, Unapplied{Override: o, Field: field, Why: OverruledValue, Now: s})
	}
	if o.Weight != nil && s.Weight != base.Weight {
		held.Weight = nil
		overrule(fieldWeight)
	}
	if o.MaxSessions != nil && s.MaxSessions != base.MaxSessions {
		held.MaxSessions = nil
		overrule(fieldMaxSessions)
	}
	if o.Mode != nil && s.Mode != base.Mode {
		held.Mode = nil
		overrule(fieldMode)
	}
	return held, overruled
}

// take gives a backend that its source has just named the run-time values that waited for it.
func (m *member) take(o Override) {
	o, _ = o.against(m.spec)
	if o.Weight != nil {
		m.weight = *o.Weight
	}
	if o.MaxSessions != nil {
		m.maxSessions = *o.MaxSessions
	}
	if o.Mode != nil {
		m.mode = *o.Mode
	}
}

// A removal is a backend that was removed by hand.
type removal struct {
	spec    Spec // as its source described it
	awaited bool // it was restored, and its source has not named it yet
}
