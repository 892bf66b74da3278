package pool

import (
	"fmt"
	"time"
)

// Reconfigure gives the pool other options while it is in use. They are checked as by New, and the name must be the
// pool's; on an error nothing has changed. Options equal to those in force change nothing at all. The Clock stays the
// first one.
//
// They are in force when it returns, all at once. Backends with their counters, leases, verdicts and modes, positions,
// times and whoever waits stay, and what is not changed keeps its state:
//   - Clients that were remembered remain so, the latest of them when there is room for fewer. Only with stickiness
//     turned off are they forgotten.
//   - Another zone or hash balance takes backends to other groups with their leases.
//   - A backend that grows into its weight has as much of it as before and needs as much of the new SlowStart as it
//     needed of the old one; with SlowStart turned off it has all.
//   - Open breakers keep their time. Turned off, all are closed and what was counted is forgotten.
//   - Who waits may go on waiting, also where there is room for fewer, and keeps its time.
//   - CloseOnUnhealthy and CloseOnRemove say what becomes of leases at changes from then on; those before are not
//     judged again.
//   - Initial is for backends added from then on.
//
// No pick is delayed by it, or refused that would have been served before and after.
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
	p.mu.Unlock()
	if old.sticky != nil && next.sticky != nil {
		next.sticky.takeOver(old.sticky, p.clock()) // who came while the table was made
	}
	p.wakeRun()
	p.queue.serve()
	return nil
}

// regroupLocked has every backend compete where the zone in force wants it.
func (p *Pool) regroupLocked() {
	for _, m := range p.byID {
		if g := p.groupLocked(m.spec); m.backend.group.Load() != g {
			m.backend.group.Store(g)
		}
	}
}

// adjustedLocked is what becomes of backends when the settings that were old are other ones.
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

// grantTrialsLocked gives half-open breakers the trials that they need more than before; without, one that has used up
// its own would be half-open for ever.
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
