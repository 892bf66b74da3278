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
	Open                    // it failed too often: none do
	HalfOpen                // a few may try whether it is better
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
// gobreaker's TwoStepCircuitBreaker would be the library for it, and takes a lock at each session's beginning and end,
// knows no share of a pool that may be open, and opens for the same time again and again. A closed breaker here is two
// atomic loads at a session's end and one at its first byte (BenchmarkBreaker).
type BreakerOptions struct {
	Failures     int           // so many in a row open it; 0 = never
	FailureRatio float64       // or this share of the outcomes in a Window, from MinSamples on; 0 = never
	Window       time.Duration // needed with FailureRatio
	MinSamples   int
	OpenFor      time.Duration // how long it is open the first time; it doubles at each reopening
	MaxOpenFor   time.Duration
	Trials       int // sessions let through when it is half-open, one or more
	// of the backends that would serve, how many may be open or half-open, rounded down; never the last one
	MaxOpenShare float64
}

// on reports whether there are breakers at all.
func (o BreakerOptions) on() bool { return o.Failures > 0 || o.FailureRatio > 0 }

func (o BreakerOptions) valid() bool {
	return !o.on() || o.Failures >= 0 && o.FailureRatio >= 0 && o.FailureRatio <= 1 &&
		(o.FailureRatio == 0 || o.Window > 0) &&
		o.OpenFor > 0 && o.MaxOpenFor >= o.OpenFor && o.Trials > 0 && o.MaxOpenShare >= 0 && o.MaxOpenShare <= 1
}

// openFor is how long a breaker stays open after so many reopenings, longer or shorter by up to a tenth, so that
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

// Run opens, half-opens and closes breakers until ctx is done; without it a pool's breakers stay closed. The data path
// only raises signals: to make a snapshot may take milliseconds, which no loop has.
func (p *Pool) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if next := p.actOnRecords(); next > 0 {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// actOnRecords changes the breakers that are to change, publishes what is suspected, and returns how long nothing will
// change by itself; 0 is for ever.
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

// nextLook is how long it takes until a breaker may change by itself; 0 is for ever.
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

// A breakerShare is how many backends of a pool would serve, were it not for their breakers, and how many of these
// their breakers keep from it. Others do not count: a standby that has the wrong role does not make up for the primary.
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

// allows reports whether one more may be kept from serving: never the last one.
func (s *breakerShare) allows(o BreakerOptions) bool {
	return s.kept+1 < s.serving && float64(s.kept+1) <= o.MaxOpenShare*float64(s.serving)
}

// turn changes a member's breaker as its record and the time say, and returns how to make the event, or nil.
func (p *Pool) turn(m *member, now time.Duration, share *breakerShare) func(Change) Event {
	r := &m.backend.record
	s := r.signal.Load()
	from, o := m.breaker, p.settings().Breaker
	var reason string
	var length time.Duration
	switch {
	case !o.on():
		r.signal.Store(noSignal) // of a session that ended just before breakers were turned off
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
			return nil // it stays in use whatever it does, and is counted anew
		}
		length = o.openFor(0)
		m.breaker, m.until = Open, now+length
	case s != noSignal && (from != HalfOpen || s == tripped):
		r.signal.Store(noSignal) // of a session that began before
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

// rescueLocked closes the breakers of all members that are healthy and ready when no other one is eligible: the breaker
// alone never takes the last backend that would serve. It adds to the changes what it has changed of members, which are
// in no snapshot yet.
//
// It leaves a pool alone that tries all its backends then, whatever their breakers say.
func (p *Pool) rescueLocked(c *changes, members []*member) {
	if p.settings().TryAllWhenNone || slices.ContainsFunc(members, (*member).eligible) {
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
