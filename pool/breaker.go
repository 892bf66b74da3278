package pool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// A Breaker is what the traffic says of a backend. The zero value is Closed.
type Breaker uint8

// The states of a breaker. Only a backend whose breaker is Closed is eligible.
const (
	Closed   Breaker = iota // sessions go to the backend
	Open                    // it failed too often: no session goes to the backend
	HalfOpen                // a few trial sessions find out whether it works again
)

// String returns the state as a lower-case word.
func (b Breaker) String() string {
	switch b {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	}
	return "breaker(" + strconv.Itoa(int(b)) + ")"
}

// BreakerOptions are the settings of the breakers of a pool. The zero value is none.
//
// The library for this would be gobreaker's TwoStepCircuitBreaker. It takes a lock at the beginning and end of each
// session, cannot limit the share of a pool that is open, and opens for the same time at each reopening. A closed
// breaker here costs two atomic loads at a session's end and one at its first byte (BenchmarkBreaker).
type BreakerOptions struct {
	Failures     int           // failures in a row that open it; 0 = never
	FailureRatio float64       // share of failures in a Window of MinSamples outcomes or more that opens it; 0 = never
	Window       time.Duration // needed with FailureRatio
	MinSamples   int
	OpenFor      time.Duration // how long it stays open at first; doubled at each reopening
	MaxOpenFor   time.Duration
	Trials       int // sessions let through when it is half-open, one or more
	// MaxOpenShare is the share of the backends that would serve of which breakers may be open or half-open. The number
	// is rounded down; the last such backend always stays in use.
	MaxOpenShare float64
}

// on reports whether there are breakers at all.
func (o BreakerOptions) on() bool { return o.Failures > 0 || o.FailureRatio > 0 }

func (o BreakerOptions) valid() bool {
	return !o.on() || o.Failures >= 0 && o.FailureRatio >= 0 && o.FailureRatio <= 1 &&
		(o.FailureRatio == 0 || o.Window > 0) &&
		o.OpenFor > 0 && o.MaxOpenFor >= o.OpenFor && o.Trials > 0 && o.MaxOpenShare >= 0 && o.MaxOpenShare <= 1
}

// openFor returns how long a breaker stays open after that many reopenings. It varies by up to a tenth, so that
// backends which failed together do not come back together.
func (o BreakerOptions) openFor(reopenings int) time.Duration {
	d := o.OpenFor
	for range reopenings {
		if d *= 2; d >= o.MaxOpenFor {
			d = o.MaxOpenFor
			break
		}
	}
	return d + time.Duration(float64(d)*0.1*(2*rand.Float64()-1))
}

// Run opens, half-opens and closes breakers until ctx is done, serves the queue when a backend's rate allows the next
// lease, and rebalances. Without it a pool's breakers stay closed, and only releases of leases serve its queue. The
// data path only raises signals, since making a snapshot may take milliseconds and would block a loop.
func (p *Pool) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := p.actOnRecords()
		if look := p.rebalance(); look > 0 && (next == 0 || look < next) {
			next = look
		}
		if next > 0 {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
		for look := false; !look; { // a rate's timer may fire often, and the records may be many
			select {
			case <-ctx.Done():
				return
			case <-p.wake:
				look = true
			case <-timer.C:
				look = true
			case <-p.pacing.timer.C:
				p.pacing.fired()
				p.queue.serve()
			}
		}
	}
}

// actOnRecords changes the breakers whose records ask for it and publishes suspected backends. It returns the time
// until the next breaker may change by itself; 0 is never.
func (p *Pool) actOnRecords() (next time.Duration) {
	p.mu.Lock()
	now := p.clock()
	at := time.Now()
	var c changes
	members := p.snap.Load().members
	share := breakerShareOf(members)
	for _, m := range members {
		e := &edit{old: m, next: *m}
		if event := p.turn(&e.next, now, share); event != nil {
			e.events = append(e.events, event)
			c.edits = append(c.edits, e)
			share.note(m, &e.next)
		}
		if wait := e.next.nextLook(now, p.settings()); wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	if len(c.edits) > 0 {
		p.applyLocked(c, at)
	}
	p.publishSuspectedLocked(at)
	p.mu.Unlock()
	p.queue.serve()
	return next
}

// nextLook returns the time until the breaker may change by itself; 0 is never.
func (m *member) nextLook(now time.Duration, s *settings) time.Duration {
	switch {
	case m.breaker == Open:
		return max(m.until-now, 1)
	case m.onTrial() && m.until > now:
		return min(m.until-now, s.trialTime())
	case m.onTrial():
		return s.trialTime()
	}
	return 0
}

// A breakerShare counts the backends of a pool that would serve if their breakers were closed, and those of them whose
// breakers are not. Other backends do not count: a standby of the wrong role cannot replace the primary.
type breakerShare struct{ serving, kept int }

func breakerShareOf(members []*member) *breakerShare {
	s := new(breakerShare)
	for _, m := range members {
		if m.wouldServe() {
			s.serving++
			if m.breaker != Closed {
				s.kept++
			}
		}
	}
	return s
}

// note counts a change of a member's breaker.
func (s *breakerShare) note(old, next *member) {
	switch {
	case !next.wouldServe() || (old.breaker == Closed) == (next.breaker == Closed):
	case next.breaker == Closed:
		s.kept--
	default:
		s.kept++
	}
}

// allows reports whether one more breaker may open. The last backend that serves never may.
func (s *breakerShare) allows(o BreakerOptions) bool {
	return s.kept+1 < s.serving && float64(s.kept+1) <= o.MaxOpenShare*float64(s.serving)
}

// turn changes a member's breaker according to its record and the time. It returns a function that makes the event, or
// nil when nothing changed.
func (p *Pool) turn(m *member, now time.Duration, share *breakerShare) func(Change) Event {
	r := &m.backend.record
	s := r.signal.Load()
	from, o := m.breaker, p.settings().Breaker
	var reason string
	var length time.Duration
	switch {
	case !o.on():
		r.signal.Store(noSignal) // a session that ended just before breakers were turned off left it
		return nil
	case from == Open && now >= m.until:
		m.breaker, reason = HalfOpen, "its time is over"
		m.until = now + o.openFor(m.reopenings)
		r.trials.begin(o.Trials)
		r.reset()
	case from == HalfOpen && s == trialWorked:
		m.breaker, m.reopenings, reason = Closed, 0, "a trial worked"
		r.reset()
	case from == HalfOpen && s == trialFailed:
		m.reopenings++
		length = o.openFor(m.reopenings)
		m.breaker, m.until, reason = Open, now+length, "a trial failed"
		r.reset()
	case m.onTrial() && now >= m.until && r.trials.held(now, p.settings().trialTime()):
		m.breaker, m.reopenings, reason = Closed, 0, "no trial failed"
		r.reset()
	case m.onTrial() && r.trials.lost(now, p.settings().trialTime()):
		r.trials.grant(o.Trials)
		return nil
	case from == Closed && s == tripped:
		reason = fmt.Sprintf("%d failures in a row", r.failures.Load())
		if int(r.failures.Load()) < o.Failures || o.Failures == 0 {
			reason = fmt.Sprintf("too many failures within %v", o.Window)
		}
		r.reset()
		if !m.wouldServe() || !share.allows(o) {
			return nil // it stays in use, and its outcomes are counted anew
		}
		length = o.openFor(0)
		m.breaker, m.until = Open, now+length
	case s != noSignal && (from != HalfOpen || s == tripped):
		r.signal.Store(noSignal) // a session from before the opening left it
		return nil
	default:
		return nil
	}
	to := m.breaker
	if to != HalfOpen {
		r.trials.grant(0)
	}
	if to == Open {
		m.backend.openings.Add(1)
		p.counts.openings.Add(1)
	}
	return func(c Change) Event { return BreakerChanged{c, from, to, reason, length} }
}

// rescueLocked closes the breakers of all members that would serve when no member is eligible: breakers alone never
// take the last backend that would serve out of use. It adds its changes of members, which are in no snapshot yet, to
// c.
//
// In a pool with TryAllWhenNone it changes nothing: that pool tries all its backends then, whatever their breakers say.
func (p *Pool) rescueLocked(c *changes, members []*member) {
	if p.settings().TryAllWhenNone || slices.ContainsFunc(members, (*member).eligible) ||
		slices.ContainsFunc(members, (*member).standsIn) {
		return
	}
	for i, m := range members {
		if !m.wouldServe() {
			continue
		}
		at := slices.IndexFunc(c.edits, func(e *edit) bool { return &e.next == m })
		if at < 0 {
			at = len(c.edits)
			c.edits = append(c.edits, &edit{old: m, next: *m})
		}
		e := c.edits[at]
		e.note(e.next.closeBreaker("no other backend can serve"))
		p.noteReturn(e.old, &e.next)
		members[i] = &e.next
		p.byID[m.backend.id] = &e.next
	}
}
