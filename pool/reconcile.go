package pool

import (
	"net/netip"
	"slices"
	"time"
)

// Reconciled is what a Reconcile changed, in numbers of backends. It is a plain value.
type Reconciled struct {
	Added, Removed, Changed int // one that becomes another backend of the same id is changed
	Ignored                 int // backends that the pool has from elsewhere under the same id or address
	Held                    int // backends that were removed by hand and that the source describes as before
}

// A Difference is what a Reconcile would change. It is a plain value. A backend that becomes another one of the same id, with
// another address, tier or zone, is among both the Removed and the Added.
type Difference struct {
	Counts  Reconciled
	Removed []string  // ids, in the pool's order; of backends that were given by hand those, too, that make room
	Added   []string  // ids, in the order of the specs
	Changed []Changed // backends that stay and get other settings, in the order of the specs
}

// Changed is a backend that stays and of which its source says something else than before.
type Changed struct {
	ID     string
	Fields []string // of its Spec: "weight", "max_sessions", "mode", "check". One that was set by hand to the same value is among them
}

// Reconcile makes the backends that came from source, which is not empty, those of specs: it adds, removes and changes as
// needed, all at once, or on an error nothing. Backends of other sources are left alone, and stay when specs names one of
// them too.
//
// A backend that stays gets only what its source has changed since the last time: what was set at run time holds until the
// source says something else of the same setting. Another address, tier or zone makes it another backend, and that of
// before is removed. One that was removed by Remove stays away for as long as its source describes it as it did then.
//
// What is known of backends to be added is their verdict from the first moment on, in place of Options.Initial; what else is known
// is ignored. What a source names first does not start slowly.
//
// The error wraps an *InvalidBackendError, or ErrDuplicateBackend when specs has an id twice.
func (p *Pool) Reconcile(source string, specs []Spec, known ...Judgement) (Reconciled, error) {
	p.mu.Lock()
	r, err := p.reconcileLocked(source, specs, known)
	p.mu.Unlock()
	p.queue.serve()
	return r, err
}

// WouldReconcile returns what Reconcile would change, and its error, and changes nothing.
func (p *Pool) WouldReconcile(source string, specs []Spec) (Difference, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, err := p.compareLocked(source, specs)
	if err != nil {
		return Difference{}, err
	}
	return c.difference(p.snap.Load().members), nil
}

// A named is a backend as a source calls it.
type named struct{ source, id string }

// A comparison is what a source says next to what the pool has: all that a Reconcile will do. It is made under Pool.mu and holds
// until that is unlocked.
type comparison struct {
	added         []Spec             // checked; also those that replace another of their id
	removed       map[string]*member // by id; also those that are replaced or make room
	replaced      int                // ids that are in both
	changed       []described
	ignored, held int
	named         map[string]bool // ids that specs has
	stillHeld     map[string]bool // ids that stay away, whatever stands in their place
}

// A described backend stays, and its source describes it otherwise than before.
type described struct {
	member *member
	spec   Spec
}

// compareLocked finds out what a Reconcile is to do.
func (p *Pool) compareLocked(source string, specs []Spec) (*comparison, error) {
	c := &comparison{
		removed: make(map[string]*member), named: make(map[string]bool, len(specs)), stillHeld: make(map[string]bool),
	}
	taken := make(map[netip.AddrPort][]*member) // by backends of other sources
	for _, m := range p.snap.Load().members {
		if m.source != source {
			taken[m.backend.addr] = append(taken[m.backend.addr], m)
		}
	}
	checked := make([]Spec, len(specs))
	for i, s := range specs {
		s, err := s.checked()
		if err == nil && c.named[s.ID] {
			err = ErrDuplicateBackend
		}
		if err != nil {
			return nil, p.failed("take from "+source, s.ID, err)
		}
		c.named[s.ID], checked[i] = true, s
	}
	kept := make(map[string]bool, len(specs))
	for _, s := range checked {
		if p.removals[named{source, s.ID}].spec == s { // no checked spec is the zero one
			c.stillHeld[s.ID] = true
		}
		kept[s.ID] = p.compareOneLocked(c, source, s, taken[s.Addr])
	}
	for _, m := range p.byID {
		if m.source == source && !kept[m.backend.id] {
			c.removed[m.backend.id] = m
		}
	}
	return c, nil
}

// compareOneLocked compares one backend, and reports whether it is the source's in the end. Rivals are those of other sources at its
// address.
func (p *Pool) compareOneLocked(c *comparison, source string, s Spec, rivals []*member) bool {
	m := p.byID[s.ID]
	if m != nil && m.source != source {
		rivals, m = append(slices.Clip(rivals), m), nil
	}
	if slices.ContainsFunc(rivals, func(r *member) bool { return !p.yieldsLocked(r) }) {
		c.ignored++
		return false
	}
	if c.stillHeld[s.ID] {
		c.held++
		return false
	}
	for _, r := range rivals {
		c.removed[r.backend.id] = r
	}
	switch {
	case m == nil:
		c.added = append(c.added, s)
		if r := c.removed[s.ID]; r != nil && r.source != source {
			c.replaced++
		}
	case m.spec.Addr != s.Addr || m.spec.Tier != s.Tier || m.spec.Zone != s.Zone:
		c.removed[s.ID] = m
		c.added = append(c.added, s)
		c.replaced++
	case m.spec != s:
		c.changed = append(c.changed, described{m, s})
	}
	return true
}

// yieldsLocked reports whether a backend makes room for one of the same id or address: one that was restored before the
// configuration had its say.
func (p *Pool) yieldsLocked(m *member) bool { return m.restored && !p.reconciled }

// counts returns the comparison in numbers.
func (c *comparison) counts() Reconciled {
	return Reconciled{
		Added: len(c.added) - c.replaced, Removed: len(c.removed) - c.replaced, Changed: len(c.changed) + c.replaced,
		Ignored: c.ignored, Held: c.held,
	}
}

func (c *comparison) difference(members []*member) Difference {
	d := Difference{Counts: c.counts()}
	for _, m := range members {
		if c.removed[m.backend.id] != nil {
			d.Removed = append(d.Removed, m.backend.id)
		}
	}
	for _, s := range c.added {
		d.Added = append(d.Added, s.ID)
	}
	for _, e := range c.changed {
		d.Changed = append(d.Changed, Changed{ID: e.spec.ID, Fields: changedFields(e.member.spec, e.spec)})
	}
	return d
}

// changedFields are the fields in which specs of one backend differ.
func changedFields(from, to Spec) (fields []string) {
	if from.Weight != to.Weight {
		fields = append(fields, fieldWeight)
	}
	if from.MaxSessions != to.MaxSessions {
		fields = append(fields, fieldMaxSessions)
	}
	if from.Mode != to.Mode {
		fields = append(fields, fieldMode)
	}
	if from.Check != to.Check {
		fields = append(fields, fieldCheck)
	}
	return fields
}

func (p *Pool) reconcileLocked(source string, specs []Spec, known []Judgement) (Reconciled, error) {
	judged := make(map[string]Judgement, len(known))
	for _, j := range known {
		if err := validateVerdict(j.Verdict); err != nil {
			return Reconciled{}, p.failed("take from "+source, j.ID, err)
		}
		judged[j.ID] = j
	}
	compared, err := p.compareLocked(source, specs)
	if err != nil {
		return Reconciled{}, err
	}
	now := time.Now()
	var c changes
	for _, d := range compared.changed {
		c.edits = append(c.edits, d.member.followed(d.spec))
	}
	for _, m := range p.snap.Load().members {
		if compared.removed[m.backend.id] != nil {
			c.removed = append(c.removed, m)
		}
	}
	for _, s := range compared.added {
		m := p.memberLocked(s, source, now)
		if j, is := judged[s.ID]; is {
			m.verdict, m.reason = j.Verdict, j.Reason
		}
		if o, is := p.awaited[named{source, s.ID}]; is {
			m.take(o)
			delete(p.awaited, named{source, s.ID})
		}
		p.noteReturn(nil, m)
		c.added = append(c.added, m)
	}
	p.rememberRemovalsLocked(source, compared)
	p.reconciled = true
	if len(c.added)+len(c.removed)+len(c.edits) > 0 {
		p.applyLocked(c, now)
	}
	return compared.counts(), nil
}

// rememberRemovalsLocked forgets the removals of backends that their source describes otherwise now, or names no more.
func (p *Pool) rememberRemovalsLocked(source string, c *comparison) {
	for n, r := range p.removals {
		switch {
		case n.source != source:
		case c.stillHeld[n.id]:
			p.removals[n] = removal{spec: r.spec}
		case c.named[n.id] || !r.awaited:
			delete(p.removals, n)
		}
	}
}

// followed is the edit of a backend that its source describes by s now.
func (m *member) followed(s Spec) *edit {
	e := &edit{old: m, next: *m}
	if s.Weight != m.spec.Weight {
		e.note(e.next.setWeight(s.Weight))
	}
	if s.MaxSessions != m.spec.MaxSessions {
		e.note(e.next.setMaxSessions(s.MaxSessions))
	}
	if s.Mode != m.spec.Mode {
		e.noteMode(s.Mode)
	}
	if from := m.spec.Check; s.Check != from {
		e.note(func(c Change) Event { return CheckChanged{c, from, s.Check} })
	}
	e.next.spec = s
	return e
}

// NoteDiscovery tells the observers what became of asking a source: how many backends it named and what that changed, or
// why it gave no answer.
func (p *Pool) NoteDiscovery(source string, found int, changed Reconciled, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publishLocked(Discovered{
		Change: Change{Pool: p.name, At: time.Now()}, Source: source, Found: found, Changed: changed, Err: err,
	})
}
