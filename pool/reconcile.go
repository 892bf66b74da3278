package pool

import "time"

// Configuration is the source that overrules all others: its backends replace those of the same id or address that
// another source named or that were added by hand. Among other sources, the first to name an id or address keeps it.
const Configuration = "config"

// Reconciled counts the backends that a Reconcile changed. It is a plain value.
type Reconciled struct {
	Added, Removed, Changed int // a backend replaced by another of the same id counts as changed
	Ignored                 int // named ones of which another source has the id or address
	Held                    int // backends that were removed by hand and that the source still names
}

// A Difference lists the changes that a Reconcile would make. It is a plain value. A backend that gets another address,
// tier or zone is replaced by another of the same id, and is in both Removed and Added.
type Difference struct {
	Counts  Reconciled
	Removed []string    // ids, in the pool's order; also of other sources' backends that are replaced
	Added   []string    // ids, in the order of the specs
	Coming  []Spec      // the specs of Added, with the run-time settings of the backends that they replace
	Changed []Changed   // backends that stay with other settings, in the order of the specs
	Dropped []Unapplied // run-time changes that end
}

// Changed is a backend that stays and whose description by its source has changed.
type Changed struct {
	ID string
	// Fields are the fields of its Spec that change: "weight", "max_sessions", "max_rate", "mode", "check", "role". A
	// field that was set by hand to the same value is among them.
	Fields []string
	Owner  bool // the source becomes its owner; before, another source was, or it was added by hand
}

// Reconcile replaces the backends of source, which is not empty, with those of specs: it adds, removes and changes
// backends as needed, all at once, or nothing on an error. Backends of other sources stay as they are, even when specs
// names them too, unless source is Configuration.
//
// A backend is identified by its id. A run-time change of it holds until the source changes the same setting or no
// longer names the backend. If its address, tier or zone changes, it is removed and another Backend with the same id
// and run-time settings is added. A backend that was removed by Remove stays removed while its source still names it.
//
// The judgements in known give backends that are added their first verdicts, in place of Options.Initial; judgements of
// other backends are ignored. The first backends of a source do not start slowly.
//
// The error wraps an *InvalidBackendError, or ErrDuplicateBackend or ErrDuplicateAddress when specs has an id or an
// address twice.
func (p *Pool) Reconcile(source string, specs []Spec, known ...Judgement) (Reconciled, error) {
	p.mu.Lock()
	r, err := p.reconcileLocked(source, specs, known)
	p.mu.Unlock()
	p.queue.serve()
	return r, err
}

// WouldReconcile returns the changes that Reconcile would make, or its error, and changes nothing.
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

// A comparison has all changes that a Reconcile will make. It is made with Pool.mu held and is valid until Pool.mu is
// unlocked.
type comparison struct {
	source        string
	added         []Spec             // checked; also those that replace another of their id
	removed       map[string]*member // by id; also the replaced ones
	replaced      int                // ids in both added and removed
	changed       []described
	ignored, held int
	overruled     []Unapplied
	named         map[string]bool // ids that specs has
	stillHeld     map[string]Spec // removed by hand and still named, by id
}

// A described backend stays, and its description or its source has changed.
type described struct {
	member *member
	spec   Spec
}

// compareLocked determines the changes that a Reconcile has to make.
func (p *Pool) compareLocked(source string, specs []Spec) (*comparison, error) {
	c := &comparison{
		source: source, removed: make(map[string]*member), named: make(map[string]bool, len(specs)),
		stillHeld: make(map[string]Spec),
	}
	taken := make(map[Address]*member) // by backends of other sources
	for _, m := range p.snap.Load().members {
		if m.source != source {
			taken[m.backend.addr] = m
		}
	}
	checked := make([]Spec, len(specs))
	there := newDirectory(nil)
	for i, s := range specs {
		s, err := s.checked()
		if err == nil {
			err = there.add(s)
		}
		if err != nil {
			return nil, p.failed("take from "+source, s.ID, err)
		}
		c.named[s.ID], checked[i] = true, s
	}
	kept := make(map[string]bool, len(specs))
	for _, s := range checked {
		kept[s.ID] = p.compareOneLocked(c, s, taken[s.Addr])
	}
	for _, m := range p.snap.Load().members {
		if m.source != source || kept[m.backend.id] {
			continue
		}
		c.removed[m.backend.id] = m
		if o, is := m.overrides(); is {
			c.overruled = append(c.overruled, Unapplied{Override: o, Why: OverruledAbsent})
		}
	}
	for n, r := range p.removals {
		if n.source == source && !c.named[n.id] && !r.awaited {
			c.overruled = append(c.overruled, Unapplied{
				Override: Override{Kind: OverrideRemoved, Source: source, Base: r.spec}, Why: OverruledAbsent,
			})
		}
	}
	return c, nil
}

// compareOneLocked compares one backend, and reports whether the source will own it. rival is the backend of another
// source at the same address, or nil.
func (p *Pool) compareOneLocked(c *comparison, s Spec, rival *member) bool {
	if _, held := p.removals[named{c.source, s.ID}]; held {
		c.stillHeld[s.ID] = s
		c.held++
		return false
	}
	m := p.byID[s.ID]
	foreign := m != nil && m.source != c.source
	if (foreign || rival != nil) && c.source != Configuration {
		c.ignored++
		return false
	}
	if rival != nil && rival != m {
		c.removed[rival.backend.id] = rival
		if o, is := rival.overrides(); is {
			c.overruled = append(c.overruled, Unapplied{Override: o, Why: OverruledAddr, Now: s})
		}
	}
	if m == nil {
		c.added = append(c.added, s)
		return true
	}
	if foreign && m.source == "" {
		o, _ := m.overrides()
		c.overruled = append(c.overruled, Unapplied{Override: o, Why: OverruledID, Now: s})
	} else {
		_, dropped := m.changes().against(s)
		c.overruled = append(c.overruled, dropped...)
	}
	switch {
	case m.spec.Addr != s.Addr || m.spec.Tier != s.Tier || m.spec.Zone != s.Zone:
		c.removed[s.ID] = m
		c.added = append(c.added, s)
		c.replaced++
	case m.spec != s || foreign:
		c.changed = append(c.changed, described{m, s})
	}
	return true
}

// counts returns the numbers of the comparison.
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
		if old := c.removed[s.ID]; old != nil {
			s = old.carried(s)
		}
		d.Coming = append(d.Coming, s)
	}
	for _, e := range c.changed {
		d.Changed = append(d.Changed, Changed{
			ID: e.spec.ID, Fields: changedFields(e.member.spec, e.spec), Owner: e.member.source != c.source,
		})
	}
	d.Dropped = c.overruled
	return d
}

// changedFields returns the names of the fields in which two specs of a backend differ.
func changedFields(from, to Spec) (fields []string) {
	if from.Weight != to.Weight {
		fields = append(fields, fieldWeight)
	}
	if from.MaxSessions != to.MaxSessions {
		fields = append(fields, fieldMaxSessions)
	}
	if from.MaxRate != to.MaxRate {
		fields = append(fields, fieldMaxRate)
	}
	if from.Mode != to.Mode {
		fields = append(fields, fieldMode)
	}
	if from.Check != to.Check {
		fields = append(fields, fieldCheck)
	}
	if from.Role != to.Role {
		fields = append(fields, fieldRole)
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
		e := d.member.followed(d.spec)
		e.next.source, p.begun[source] = source, true
		c.edits = append(c.edits, e)
	}
	for _, m := range p.snap.Load().members {
		if compared.removed[m.backend.id] != nil {
			c.removed = append(c.removed, m)
		}
	}
	for _, s := range compared.added {
		m := p.memberLocked(s, source, now)
		if old := compared.removed[s.ID]; old != nil {
			m.follow(old)
		}
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
	p.rememberRemovalsLocked(compared)
	if len(c.added)+len(c.removed)+len(c.edits) > 0 {
		p.applyLocked(c, now)
	}
	for _, u := range compared.overruled {
		change := Change{Pool: p.name, Backend: BackendInfo{ID: u.Override.Base.ID, Addr: u.Override.Base.Addr,
			Source: source}, At: now}
		if m := p.byID[change.Backend.ID]; m != nil {
			change = p.change(m, now)
		}
		p.publishLocked(Overruled{change, u})
	}
	return compared.counts(), nil
}

// rememberRemovalsLocked keeps the removals of backends that the source still names and forgets the others. A restored
// removal stays until its source first names the backend.
func (p *Pool) rememberRemovalsLocked(c *comparison) {
	for n, r := range p.removals {
		s, held := c.stillHeld[n.id]
		switch {
		case n.source != c.source:
		case held:
			p.removals[n] = removal{spec: s}
		case !r.awaited:
			delete(p.removals, n)
		}
	}
}

// follow makes m the successor of old, which has the same id: m takes over the run-time settings of old that its source
// does not overrule.
func (m *member) follow(old *member) {
	s := old.carried(m.spec)
	m.weight, m.maxSessions, m.maxRate, m.mode = s.Weight, s.MaxSessions, s.MaxRate, s.Mode
	for _, f := range old.backend.former {
		if f.load.Leases() > 0 {
			m.backend.former = append(m.backend.former, f)
		}
	}
	m.backend.former = append(m.backend.former, old.backend)
}

// carried returns s with the run-time settings of m that s does not overrule.
func (m *member) carried(s Spec) Spec {
	o, _ := m.changes().against(s)
	if o.Weight != nil {
		s.Weight = *o.Weight
	}
	if o.MaxSessions != nil {
		s.MaxSessions = *o.MaxSessions
	}
	if o.MaxRate != nil {
		s.MaxRate = *o.MaxRate
	}
	if o.Mode != nil {
		s.Mode = *o.Mode
	}
	return s
}

// followed returns the edit of a backend for its source's new description s.
func (m *member) followed(s Spec) *edit {
	e := &edit{old: m, next: *m}
	if s.Weight != m.spec.Weight {
		e.note(e.next.setWeight(s.Weight))
	}
	if s.MaxSessions != m.spec.MaxSessions {
		e.note(e.next.setMaxSessions(s.MaxSessions))
	}
	if s.MaxRate != m.spec.MaxRate {
		e.note(e.next.setMaxRate(s.MaxRate))
	}
	if s.Mode != m.spec.Mode {
		e.noteMode(s.Mode)
	}
	if from := m.spec.Check; s.Check != from {
		e.note(func(c Change) Event { return CheckChanged{c, from, s.Check} })
	}
	if from := m.spec.Role; s.Role != from {
		e.note(func(c Change) Event { return RoleChanged{c, from, s.Role} })
	}
	e.next.spec = s
	return e
}

// NoteDiscovery publishes the result of asking a source: how many backends it named and what that changed, or why it
// gave no answer. With backends, err says what part of the answer is of no use.
func (p *Pool) NoteDiscovery(source string, found int, changed Reconciled, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publishLocked(Discovered{
		Change: Change{Pool: p.name, At: time.Now()}, Source: source, Found: found, Changed: changed, Err: err,
	})
}
