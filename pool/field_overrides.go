package pool

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// FieldThere is the setting whether a backend is in the pool at all.
const FieldThere = "there"

// OverrideFields returns the settings that a run-time change can be about: FieldThere, and then the names of the
// settings in the configuration.
func OverrideFields() []string {
	return []string{FieldThere, fieldWeight, fieldMaxSessions, fieldMaxRate, fieldMode}
}

// FieldOverrides are the run-time changes of one setting of one backend, at most one for each source. It is a plain
// value.
//
// For FieldThere they are removed backends, and at most one added backend. For another field they are changed ones, with
// a value of that field and no other. Their source is "" for a backend that was added by hand; its Base then does not
// matter.
type FieldOverrides struct {
	ID        string
	Field     string
	Overrides []Override // empty: as the sources say
}

// OverridesOf returns the run-time changes of one setting of a backend, by source. They include those that wait for a
// source, see Restore. The slice is the caller's.
func (p *Pool) OverridesOf(id, field string) FieldOverrides {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := FieldOverrides{ID: id, Field: field}
	m := p.byID[id]
	if field == FieldThere {
		for n, r := range p.removals {
			if n.id == id {
				f.Overrides = append(f.Overrides, Override{Kind: OverrideRemoved, Source: n.source, Base: r.spec})
			}
		}
		if m != nil && m.source == "" {
			f.Overrides = append(f.Overrides, Override{Kind: OverrideAdded, Base: m.spec})
		}
	} else {
		if m != nil {
			if o := m.changes().only(field); o.hasValues() {
				f.Overrides = append(f.Overrides, o)
			}
		}
		for n, o := range p.awaited {
			if o = o.only(field); n.id == id && o.hasValues() {
				f.Overrides = append(f.Overrides, o)
			}
		}
	}
	slices.SortFunc(f.Overrides, func(a, b Override) int { return cmp.Compare(a.Source, b.Source) })
	return f
}

// Check returns an *InvalidOverrideError unless OverridesOf can have returned f.
func (f FieldOverrides) Check() error {
	_, err := f.checked()
	return err
}

// checked returns f with the bases of its overrides as Spec.checked returns them.
func (f FieldOverrides) checked() (FieldOverrides, error) {
	checked := FieldOverrides{ID: f.ID, Field: f.Field, Overrides: make([]Override, len(f.Overrides))}
	seen := make(map[string]bool, len(f.Overrides))
	for i, o := range f.Overrides {
		base, err := o.Base.checked()
		if err == nil {
			err = o.checkFor(f.ID, f.Field)
		}
		if err == nil && seen[o.Source] {
			err = ErrDuplicateBackend
		}
		if err != nil {
			return f, &InvalidOverrideError{Index: i, Override: o, Err: err}
		}
		seen[o.Source] = true
		o.Base = base
		checked.Overrides[i] = o
	}
	return checked, nil
}

// checkFor returns an *InvalidBackendError unless o may be one of the overrides of this setting.
func (o Override) checkFor(id, field string) error {
	added, removed := o.Kind == OverrideAdded, o.Kind == OverrideRemoved
	switch {
	case o.Base.ID != id:
		return &InvalidBackendError{Field: "id", Value: o.Base.ID, Want: "that of the backend"}
	case !slices.Contains(OverrideFields(), field):
		return &InvalidBackendError{Field: "field", Value: field, Want: "one of OverrideFields"}
	case field == FieldThere && !(added && o.Source == "" || removed && o.Source != ""):
		return &InvalidBackendError{Field: "kind", Value: string(o.Kind), Want: "added by hand, or removed from a source"}
	case field == FieldThere && o.hasValues():
		return &InvalidBackendError{Field: "kind", Value: string(o.Kind), Want: "no other value"}
	case field != FieldThere && (o.Kind != OverrideChanged || !o.hasValues() || o.with(field, Override{}).hasValues()):
		return &InvalidBackendError{Field: "kind", Value: string(o.Kind), Want: "changed, with a value of " + field}
	}
	return o.checkValues()
}

// only returns o with its value of one field.
func (o Override) only(field string) Override {
	return Override{Kind: o.Kind, Source: o.Source, Base: o.Base}.with(field, o)
}

// with returns o with the value of one field, and its base, from another override; without a value if that has none.
func (o Override) with(field string, from Override) Override {
	switch field {
	case fieldWeight:
		o.Weight, o.Base.Weight = from.Weight, from.Base.Weight
	case fieldMaxSessions:
		o.MaxSessions, o.Base.MaxSessions = from.MaxSessions, from.Base.MaxSessions
	case fieldMaxRate:
		o.MaxRate, o.Base.MaxRate = from.MaxRate, from.Base.MaxRate
	case fieldMode:
		o.Mode, o.Base.Mode = from.Mode, from.Base.Mode
	}
	return o
}

// set sets one field to the value of an override, or to what the source says if that has none.
func (e *edit) set(field string, o Override) {
	spec := e.next.spec
	switch field {
	case fieldWeight:
		e.note(e.next.setWeight(*cmp.Or(o.Weight, &spec.Weight)))
	case fieldMaxSessions:
		e.note(e.next.setMaxSessions(*cmp.Or(o.MaxSessions, &spec.MaxSessions)))
	case fieldMaxRate:
		e.note(e.next.setMaxRate(*cmp.Or(o.MaxRate, &spec.MaxRate)))
	case fieldMode:
		e.noteMode(*cmp.Or(o.Mode, &spec.Mode))
	}
}

// SetOverrides makes these the run-time changes of their settings, in place of those there are: all at once, or nothing
// on an error. Other settings stay. What is as it should be already causes no event.
//   - A value is in force where the source still says what it said when the value was set (Base). Where the source says
//     something else, or there is no value, the source's value is in force.
//   - A removed backend is removed. One that was removed and is no longer so is back, unless its id or address is taken.
//   - An added backend is added, unless its id or address is taken. One that was added by hand and is no longer so is
//     removed; so is one whose address, tier, zone or check differs, before the other one is added.
//
// Values of a backend that its source has not named yet wait until it does. No setting may occur twice. The error is an
// *InvalidOverrideError.
func (p *Pool) SetOverrides(all []FieldOverrides) error {
	checked := make([]FieldOverrides, len(all))
	for i, f := range all {
		var err error
		if checked[i], err = f.checked(); err != nil {
			return fmt.Errorf("pool %s: set overrides: %w", p.name, err)
		}
	}
	p.mu.Lock()
	s := newSettling(p)
	s.settle(checked)
	if c := s.changes; len(c.added)+len(c.removed)+len(c.edits) > 0 {
		p.applyLocked(c, s.now)
	}
	p.mu.Unlock()
	p.queue.serve()
	return nil
}

// settling is the state of one call of SetOverrides, with Pool.mu held.
type settling struct {
	pool    *Pool
	now     time.Time
	changes changes

	ids   map[string]*member  // the backends that there will be
	addrs map[Address]*member // the same, by address; from addAll on
	edits map[string]*edit    // of backends that stay or are new, by id
	isNew map[string]bool     // ids of changes.added

	removals, awaited map[string][]named // those of Pool, by id
}

func newSettling(p *Pool) *settling {
	s := &settling{
		pool: p, now: time.Now(), ids: make(map[string]*member, len(p.byID)), addrs: make(map[Address]*member),
		edits: make(map[string]*edit), isNew: make(map[string]bool), removals: make(map[string][]named),
		awaited: make(map[string][]named),
	}
	for id, m := range p.byID {
		s.ids[id] = m
	}
	for n := range p.removals {
		s.removals[n.id] = append(s.removals[n.id], n)
	}
	for n := range p.awaited {
		s.awaited[n.id] = append(s.awaited[n.id], n)
	}
	return s
}

// settle finds all changes that are needed. Backends go first and come next, since one that comes may have the address
// of one that goes; and backends of a source come before those added by hand.
func (s *settling) settle(all []FieldOverrides) {
	type coming struct {
		spec   Spec
		source string
	}
	var back, added []coming
	for _, f := range all {
		if f.Field != FieldThere {
			continue
		}
		for _, n := range s.remove(f) {
			back = append(back, coming{s.pool.removals[n].spec, n.source})
			delete(s.pool.removals, n)
		}
		for _, o := range f.Overrides {
			if o.Kind == OverrideAdded {
				added = append(added, coming{o.Base, ""})
			}
		}
	}
	for _, m := range s.ids {
		s.addrs[m.backend.addr] = m
	}
	for _, c := range append(back, added...) {
		s.add(c.spec, c.source)
	}
	for _, f := range all {
		if f.Field != FieldThere {
			s.set(f)
		}
	}
	for _, m := range s.changes.added {
		s.pool.noteReturn(nil, m)
	}
	for id, e := range s.edits {
		if !s.isNew[id] && len(e.events) > 0 {
			s.changes.edits = append(s.changes.edits, e)
		}
	}
	slices.SortFunc(s.changes.edits, func(a, b *edit) int { return cmp.Compare(a.old.backend.id, b.old.backend.id) })
}

// remove removes what f says, and an added backend that f does not say. It returns the removals that are over, of
// backends that their sources still name.
func (s *settling) remove(f FieldOverrides) (over []named) {
	var added *Override
	wanted := make(map[named]bool, len(f.Overrides))
	for i, o := range f.Overrides {
		if o.Kind == OverrideAdded {
			added = &f.Overrides[i]
			continue
		}
		n := named{o.Source, f.ID}
		wanted[n] = true
		if m := s.ids[f.ID]; m != nil && m.source == o.Source {
			s.pool.removals[n] = removal{spec: m.spec}
			s.drop(m)
		} else if _, is := s.pool.removals[n]; !is {
			s.pool.removals[n] = removal{spec: o.Base, awaited: true}
		}
	}
	if m := s.ids[f.ID]; m != nil && m.source == "" && (added == nil || !m.spec.isOf(added.Base)) {
		s.drop(m)
	}
	for _, n := range s.removals[f.ID] {
		switch r := s.pool.removals[n]; {
		case wanted[n]:
		case r.awaited: // its source has not named it yet
			delete(s.pool.removals, n)
		default:
			over = append(over, n)
		}
	}
	return over
}

// isOf reports whether two specs describe one backend, perhaps with other settings.
func (s Spec) isOf(other Spec) bool {
	return s.Addr == other.Addr && s.Tier == other.Tier && s.Zone == other.Zone && s.Check == other.Check
}

func (s *settling) drop(m *member) {
	s.changes.removed = append(s.changes.removed, m)
	delete(s.ids, m.backend.id)
}

// add adds a backend, unless its id or address is taken.
func (s *settling) add(spec Spec, source string) {
	if s.ids[spec.ID] != nil || s.addrs[spec.Addr] != nil {
		return
	}
	m := s.pool.memberLocked(spec, source, s.now)
	s.ids[spec.ID], s.addrs[spec.Addr], s.isNew[spec.ID] = m, m, true
	s.changes.added = append(s.changes.added, m)
}

// set sets one field of a backend.
func (s *settling) set(f FieldOverrides) {
	m := s.ids[f.ID]
	var mine Override
	for _, o := range f.Overrides {
		n := named{o.Source, f.ID}
		_, removed := s.pool.removals[n]
		switch {
		case m != nil && m.source == o.Source:
			if mine = o; m.source != "" {
				mine, _ = o.against(m.spec)
			}
		case o.Source != "" && !removed:
			s.await(n, f.Field, o)
		}
	}
	for _, n := range s.awaited[f.ID] {
		if !slices.ContainsFunc(f.Overrides, func(o Override) bool { return o.Source == n.source }) {
			s.await(n, f.Field, Override{})
		}
	}
	if m == nil {
		return
	}
	e := s.edits[f.ID]
	if e == nil {
		e = &edit{old: m, next: *m}
		s.edits[f.ID] = e
	}
	e.set(f.Field, mine)
	if s.isNew[f.ID] {
		*m = e.next // nobody has seen it yet
	}
}

// await makes a value wait for its source, or ends that if o has none.
func (s *settling) await(n named, field string, o Override) {
	waiting, is := s.pool.awaited[n]
	if !is {
		waiting = Override{Kind: OverrideChanged, Source: n.source, Base: o.Base}
	}
	if waiting = waiting.with(field, o); waiting.hasValues() {
		s.pool.awaited[n] = waiting
	} else {
		delete(s.pool.awaited, n)
	}
}
