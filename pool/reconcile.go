package pool

import (
	"net/netip"
	"time"
)

// Reconciled is what a Reconcile changed, in numbers of backends. It is a plain value.
type Reconciled struct {
	Added, Removed, Changed int
	Ignored                 int // backends that the pool has from elsewhere under the same id or address
}

// Reconcile makes the backends that came from source, which is not empty, those of specs: it adds, removes and changes as
// needed, all at once, or on an error nothing. Backends of other sources are left alone, and stay when specs names one of
// them too.
//
// A backend that stays gets only what its source has changed since the last time: what was set at run time holds until the
// source says something else of the same setting. Another address, tier or zone makes it another backend, and that of
// before is removed.
//
// The error wraps an *InvalidBackendError, or ErrDuplicateBackend when specs has an id twice.
func (p *Pool) Reconcile(source string, specs []Spec) (Reconciled, error) {
	p.mu.Lock()
	r, err := p.reconcileLocked(source, specs)
	p.mu.Unlock()
	p.queue.serve()
	return r, err
}

func (p *Pool) reconcileLocked(source string, specs []Spec) (r Reconciled, err error) {
	wanted := make(map[string]bool, len(specs)) // false for those that are ignored
	taken := make(map[netip.AddrPort]bool)      // by backends of other sources
	for _, m := range p.byID {
		if m.source != source {
			taken[m.backend.addr] = true
		}
	}
	now := time.Now()
	var c changes
	for _, s := range specs {
		s, err := s.checked()
		if _, twice := wanted[s.ID]; err == nil && twice {
			err = ErrDuplicateBackend
		}
		if err != nil {
			return Reconciled{}, p.failed("take from "+source, s.ID, err)
		}
		wanted[s.ID] = true
		switch m := p.byID[s.ID]; {
		case m != nil && m.source != source || taken[s.Addr]:
			r.Ignored++
			wanted[s.ID] = false
		case m == nil:
			c.added = append(c.added, p.memberLocked(s, source, now))
		case m.spec.Addr != s.Addr || m.spec.Tier != s.Tier || m.spec.Zone != s.Zone:
			c.removed, c.added = append(c.removed, m), append(c.added, p.memberLocked(s, source, now))
		case m.spec != s:
			c.edits = append(c.edits, m.followed(s))
		}
	}
	r.Added, r.Changed = len(c.added)-len(c.removed), len(c.edits)+len(c.removed)
	for _, m := range p.snap.Load().members {
		if m.source == source && !wanted[m.backend.id] {
			c.removed = append(c.removed, m)
			r.Removed++
		}
	}
	if len(c.added)+len(c.removed)+len(c.edits) > 0 {
		p.applyLocked(c, now)
	}
	return r, nil
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
	e.next.spec = s
	return e
}

// NoteDiscovery tells the observers what became of asking a source: how many backends it named and what that changed, or
// why it gave no answer.
func (p *Pool) NoteDiscovery(source string, found int, changed Reconciled, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publishLocked(Discovered{
		Change: Change{Pool: p.o.Name, At: time.Now()}, Source: source, Found: found, Changed: changed, Err: err,
	})
}
