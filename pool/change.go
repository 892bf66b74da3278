package pool

import (
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// changes are all changes of one call, which take effect at once.
type changes struct {
	added, removed []*member // the limits of those added are set here too
	edits          []*edit
}

// An edit is a backend's new settings and the functions that make the events of the changes.
type edit struct {
	old    *member
	next   member
	events []func(Change) Event
}

// note adds a function that makes an event; nil is none.
func (e *edit) note(event func(Change) Event) {
	if event != nil {
		e.events = append(e.events, event)
	}
}

// noteMode sets the backend's mode.
func (e *edit) noteMode(mode Mode) {
	if event := e.next.setMode(mode); event != nil {
		e.note(event)
		e.note(e.next.closeBreaker("another mode"))
	}
}

// noteRole closes the breaker of a backend whose role has changed: earlier sessions say nothing about the new role.
// Besides, a backend of the wrong role gets no trial, and its breaker would stay half-open for ever.
func (e *edit) noteRole() {
	of := func(v Verdict) bool { return v == WrongRole || v == Fallback }
	from, to := e.old.verdict, e.next.verdict
	was, is := e.old.spec.Role, e.next.spec.Role
	if from != to && (of(from) || of(to)) || was != is && was != RoleUnknown && is != RoleUnknown {
		e.note(e.next.closeBreaker("another role"))
	}
}

// applyLocked puts changes in force, revokes leases if the options say so, and publishes the events.
func (p *Pool) applyLocked(c changes, now time.Time) {
	for _, e := range c.edits {
		e.noteRole()
	}
	next := make(map[*member]*member, len(c.edits)+len(c.removed)) // nil for a removed one
	before := p.snap.Load()
	for _, m := range c.removed {
		next[m] = nil
		noteDepartureLocked(m, nil, before.tryAll)
		delete(p.byID, m.backend.id)
	}
	for _, e := range c.edits {
		p.noteReturn(e.old, &e.next)
		p.pacing.limit(e.next.backend, e.next.maxSessionsInForce(), e.next.maxRate)
		next[e.old] = &e.next
		noteDepartureLocked(e.old, &e.next, before.tryAll)
		p.byID[e.next.backend.id] = &e.next
	}
	members := make([]*member, 0, len(p.byID)+len(c.added))
	for _, m := range before.members {
		if edited, changed := next[m]; changed {
			m = edited
		}
		if m != nil {
			members = append(members, m)
		}
	}
	for _, m := range c.added {
		p.pacing.limit(m.backend, m.maxSessionsInForce(), m.maxRate)
		p.byID[m.backend.id] = m
		p.begun[m.source] = true
	}
	members = append(members, c.added...)
	p.rescueLocked(&c, members)
	p.replaceLocked(members)

	for _, m := range c.removed {
		p.pacing.forget(m.backend)
		m.backend.watchers.wake()
		p.revokeLocked(m, nil)
		p.notifyDepartureLocked(m, nil)
		p.noteLeaveLocked(m.backend, nil)
		p.publishLocked(Removed{p.change(m, now)})
	}
	for _, e := range c.edits {
		e.old.backend.watchers.wake()
		p.revokeLocked(e.old, &e.next)
		p.notifyDepartureLocked(e.old, &e.next)
		p.noteLeaveLocked(e.old.backend, &e.next)
		for _, event := range e.events {
			p.publishLocked(event(p.change(&e.next, now)))
		}
	}
	for _, m := range c.added {
		m.backend.leaving.Store(p.settings().leaves(m)) // sessions may be adopted
		p.publishLocked(Added{p.change(m, now)})
	}
}

// Each setter changes one setting and returns a function that makes its event, or nil when nothing changed.

func (m *member) setWeight(weight uint32) func(Change) Event {
	from := m.weight
	m.weight = weight
	return unless(from == weight, func(c Change) Event { return WeightChanged{c, from, weight} })
}

func (m *member) setMaxSessions(n int) func(Change) Event {
	from := m.maxSessions
	m.maxSessions = n
	return unless(from == n, func(c Change) Event { return LimitChanged{c, from, n} })
}

func (m *member) setMaxRate(l rate.Limit) func(Change) Event {
	from := m.maxRate
	m.maxRate = l
	return unless(from == l, func(c Change) Event { return RateChanged{c, from, l} })
}

func (m *member) setMode(mode Mode) func(Change) Event {
	from := m.mode
	m.mode = mode
	return unless(from == mode, func(c Change) Event { return ModeChanged{c, from, mode} })
}

// closeBreaker closes the breaker and forgets the outcomes counted so far.
func (m *member) closeBreaker(why string) func(Change) Event {
	from := m.breaker
	m.breaker, m.reopenings = Closed, 0
	m.backend.record.reset()
	m.backend.record.trials.grant(0)
	return unless(from == Closed, func(c Change) Event { return BreakerChanged{c, from, Closed, why, 0} })
}

func (m *member) setVerdict(j Judgement, now time.Time) func(Change) Event {
	from := m.verdict
	if from == j.Verdict {
		return nil
	}
	m.verdict, m.reason, m.since = j.Verdict, j.Reason, now
	return func(c Change) Event { return VerdictChanged{c, from, j.Verdict, j.Reason} }
}

func unless(same bool, event func(Change) Event) func(Change) Event {
	if same {
		return nil
	}
	return event
}
