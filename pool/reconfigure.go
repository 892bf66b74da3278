package pool

import (
	"fmt"
	"time"
)

// Reconfigure gives the pool other options while it is in use. They are checked as by New, and the name must be the
// pool's; on an error nothing has changed. Options equal to those in force change nothing at all. The Clock stays the
// first one.
//
// They take effect at once, before it returns. Backends keep their counters, leases, verdicts and modes; pickers keep
// their positions and times; waiting sessions keep waiting. In detail:
//   - Clients stay remembered, the most recently seen ones if there is room for fewer. Turning stickiness off
//     forgets them, and so does another StickyName.
//   - A change of zone or hash balance moves backends with their leases to other groups.
//   - A backend in slow start keeps the share of its weight that it has reached, and needs as large a part of the new
//     SlowStart as it still needed of the old one. Turning SlowStart off gives it its full weight.
//   - Open breakers keep their time. Turning breakers off closes them all and forgets the outcomes counted.
//   - Waiting sessions keep their places and times, even if there is now room for fewer.
//   - DrainSafely applies to the backends that are in Drain or Maintenance already. Those that were removed before stay
//     as they were.
//   - CloseOnUnhealthy and CloseOnRemove apply to later changes of backends; earlier changes are not judged again.
//   - Initial applies to backends added later.
//   - Source, CongestionControl, LoopbackCongestionControl and Secure apply to connections made later.
//
// It delays no pick, and refuses none that would have been served both before and after it.
func (p *Pool) Reconfigure(o Options) error {
	o.Clock = p.clock
	if o.Name != p.name {
		return fmt.Errorf("pool %s: reconfigure: cannot be renamed to %q", p.name, o.Name)
	}
	if err := CheckOptions(o); err != nil {
		return fmt.Errorf("reconfigure: %w", err)
	}
	p.mu.Lock()
	old := p.settings()
	if old.same(o) {
		p.mu.Unlock()
		return nil
	}
	next := o.settings(old)
	p.inForce.Store(next)
	p.regroupLocked()
	p.applyLocked(p.adjustedLocked(old), time.Now())
	p.grantTrialsLocked(o.Breaker.Trials - old.Breaker.Trials)
	for _, m := range p.snap.Load().members {
		p.noteLeaveLocked(m.backend, m)
	}
	p.mu.Unlock()
	if next.sticky != nil && old.remembersLike(next) {
		next.sticky.takeOver(old.sticky, p.clock()) // clients that came while the table was made
	}
	p.wakeRun()
	p.queue.serve()
	return nil
}

// regroupLocked moves every backend to its group under the zone in force.
func (p *Pool) regroupLocked() {
	for _, m := range p.byID {
		if g := p.groupLocked(m.spec); m.backend.group.Load() != g {
			m.backend.group.Store(g)
		}
	}
}

// adjustedLocked returns the changes of backends that follow from the change of settings from old.
func (p *Pool) adjustedLocked(old *settings) changes {
	var c changes
	now := p.clock()
	p.slowed = p.slowed || old.SlowStart > 0
	for _, m := range p.snap.Load().members {
		e := &edit{old: m, next: *m}
		grew := e.next.regrow(old.SlowStart, p.settings().SlowStart, now)
		if !p.settings().Breaker.on() {
			e.note(e.next.closeBreaker("breakers are turned off"))
		}
		if grew || len(e.events) > 0 {
			c.edits = append(c.edits, e)
		}
	}
	return c
}

// grantTrialsLocked gives half-open breakers more trials. Otherwise one that has used up its trials and now needs more
// successes would stay half-open for ever.
func (p *Pool) grantTrialsLocked(more int) {
	if more <= 0 {
		return
	}
	for _, m := range p.byID {
		if m.breaker == HalfOpen {
			m.backend.record.trials.places.Add(uint64(more))
		}
	}
}
