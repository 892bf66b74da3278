package pool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
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
// gobreaker's TwoStepCircuitBreaker would be the library for it, and takes a lock at each session's beginning and end, knows
// no share of a pool that may be open, and opens for the same time again and again. A closed breaker here is two atomic
// loads at a session's end and one at its first byte (BenchmarkBreaker).
type BreakerOptions struct {
	Failures     int           // so many in a row open it; 0 = never
	FailureRatio float64       // or this share of the outcomes in a Window, from MinSamples on; 0 = never
	Window       time.Duration // needed with FailureRatio
	MinSamples   int
	OpenFor      time.Duration // how long it is open the first time; it doubles at each reopening
	MaxOpenFor   time.Duration
	Trials       int     // sessions let through when it is half-open, one or more
	MaxOpenShare float64 // of the pool's backends that may be open or half-open; what is rounded down
}

// on reports whether there are breakers at all.
func (o BreakerOptions) on() bool { return o.Failures > 0 || o.FailureRatio > 0 }

func (o BreakerOptions) valid() bool {
	return !o.on() || o.Failures >= 0 && o.FailureRatio >= 0 && o.FailureRatio <= 1 && (o.FailureRatio == 0 || o.Window > 0) &&
		o.OpenFor > 0 && o.MaxOpenFor >= o.OpenFor && o.Trials > 0 && o.MaxOpenShare >= 0 && o.MaxOpenShare <= 1
}

// openFor is how long a breaker stays open after so many reopenings, longer or shorter by up to a tenth, so that backends
// which failed together do not come back together.
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

// A signal is what leases found out about a backend and Run has not acted upon yet.
type signal = uint32

const (
	noSignal    signal = iota
	tripped            // it fails too often
	trialWorked        // a trial of the half-open breaker found it working
	trialFailed
)

// A record is what the leases on one backend came to of late. It is safe for concurrent use.
type record struct {
	failures atomic.Int32 // in a row
	signal   atomic.Uint32
	trials   atomic.Int32 // left, of a half-open breaker
	good     atomic.Int32 // trials that worked

	// The outcomes of this and of the last half of a window, for the ratio: failures in the upper half of the word.
	half      atomic.Int64 // which half of the time that now is
	now, last atomic.Uint64
}

// reset forgets all but a trial under way.
func (r *record) reset() {
	r.failures.Store(0)
	r.signal.Store(noSignal)
	r.now.Store(0)
	r.last.Store(0)
}

// count adds an outcome to its half of a window and returns the failures and all outcomes of the last window.
func (r *record) count(failed bool, now, window time.Duration) (failures, all uint32) {
	half := int64(now / max(window/2, 1))
	// One far behind is of another window, the pool's before it was reconfigured; just behind is a caller that was slower.
	if old := r.half.Load(); (old < half || old > half+1) && r.half.CompareAndSwap(old, half) {
		before := r.now.Swap(0)
		if old != half-1 {
			before = 0 // nothing happened in the half between
		}
		r.last.Store(before)
	}
	add := uint64(1)
	if failed {
		add |= 1 << 32
	}
	sum := r.now.Add(add) + r.last.Load()
	return uint32(sum >> 32), uint32(sum)
}

// failed reports whether an outcome speaks against the backend, and spoke whether it says anything.
func (o Outcome) failed() (failed, spoke bool) {
	switch o {
	case ConnectRefused, ConnectTimeout, ConnectUnreachable, CutEarly:
		return true, true
	case Served:
		return false, true
	}
	return false, false
}

// judge takes the outcome of a lease into the backend's record. It is called at every release, and for a good session of a
// backend without failures it is two atomic loads. What sessions of before find out does not count while the breaker is not
// closed: they were there when it opened.
func (p *Pool) judge(s *settings, l *Lease, o Outcome) {
	r := &l.b.record
	failed, spoke := o.failed()
	switch {
	case l.trial:
		p.judgeTrial(s, r, failed, spoke)
		return
	case !spoke || !l.b.inUse.Load():
		return
	case failed:
		if n := r.failures.Add(1); s.Breaker.Failures > 0 && int(n) >= s.Breaker.Failures {
			p.trip(r)
		}
	default:
		r.succeeded()
	}
	if s.Breaker.FailureRatio > 0 {
		failures, all := r.count(failed, s.Clock(), s.Breaker.Window)
		if failed && int(all) >= s.Breaker.MinSamples && float64(failures) >= s.Breaker.FailureRatio*float64(all) {
			p.trip(r)
		}
	}
}

// judgeFirstByte takes in that the backend has spoken: that it works is known then, and not after the hours that a session may
// last.
func (p *Pool) judgeFirstByte(s *settings, l *Lease) {
	if l.trial {
		p.judgeTrial(s, &l.b.record, false, true)
		l.trial = false // from here on it is a session like any other
		return
	}
	l.b.record.succeeded()
}

// succeeded ends a row of failures.
func (r *record) succeeded() {
	if r.failures.Load() != 0 {
		r.failures.Store(0)
	}
}

// judgeTrial takes the outcome of a trial: one failure opens the breaker again, and as many successes as there are trials
// close it. A trial that says nothing is given back.
func (p *Pool) judgeTrial(s *settings, r *record, failed, spoke bool) {
	switch {
	case !spoke:
		r.trials.Add(1)
		return
	case failed:
		r.signal.Store(trialFailed)
	case int(r.good.Add(1)) < s.Breaker.Trials || !r.signal.CompareAndSwap(noSignal, trialWorked):
		return
	}
	p.wakeRun()
}

// trip has Run open the breaker. Of many failures at once only one needs to.
func (p *Pool) trip(r *record) {
	if r.signal.CompareAndSwap(noSignal, tripped) {
		p.wakeRun()
	}
}

// wakeRun makes Run look at the records soon. It never blocks.
func (p *Pool) wakeRun() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// trial returns a backend whose breaker is half-open with a lease on it, or nil. A stand-in is not tried while the tiers before
// its own can serve.
func (s *snapshot) trial(pc *PickContext) *Backend {
	for _, b := range s.trials {
		if b.record.trials.Load() <= 0 || len(s.tiers) > 0 && b.tier > s.tiers[0].group.tier || slices.Contains(pc.Tried, b) {
			continue
		}
		if b.record.trials.Add(-1) < 0 {
			b.record.trials.Add(1)
			continue
		}
		if b.load.TryAcquire() {
			return b
		}
		b.record.trials.Add(1)
	}
	return nil
}

// Run opens, half-opens and closes breakers until ctx is done; without it a pool's breakers stay closed. The data path only
// raises signals: to make a snapshot may take milliseconds, which no loop has.
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

// actOnRecords changes the breakers that are to change, and returns how long none will by itself; 0 is for ever.
func (p *Pool) actOnRecords() (next time.Duration) {
	p.mu.Lock()
	now := p.clock()
	var c changes
	members := p.snap.Load().members
	notClosed := 0
	for _, m := range members {
		if m.breaker != Closed {
			notClosed++
		}
	}
	for _, m := range members {
		e := &edit{old: m, next: *m}
		if event := p.turn(&e.next, now, notClosed, len(members)); event != nil {
			e.events = append(e.events, event)
			c.edits = append(c.edits, e)
			if m.breaker == Closed {
				notClosed++
			}
		}
		if e.next.breaker == Open && (next == 0 || e.next.until-now < next) {
			next = max(e.next.until-now, 1)
		}
	}
	if len(c.edits) > 0 {
		p.applyLocked(c, time.Now())
	}
	p.mu.Unlock()
	p.queue.serve()
	return next
}

// turn changes a member's breaker as its record and the time say, and returns how to make the event, or nil.
func (p *Pool) turn(m *member, now time.Duration, notClosed, all int) func(Change) Event {
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
		r.good.Store(0)
		r.reset()
		r.trials.Store(int32(o.Trials))
	case from == HalfOpen && s == trialWorked:
		m.breaker, m.reopenings, reason = Closed, 0, "a trial worked"
		r.reset()
	case from == HalfOpen && s == trialFailed:
		m.reopenings++
		length = o.openFor(m.reopenings)
		m.breaker, m.until, reason = Open, now+length, "a trial failed"
		r.reset()
	case from == Closed && s == tripped:
		reason = fmt.Sprintf("%d failures in a row", r.failures.Load())
		if int(r.failures.Load()) < o.Failures || o.Failures == 0 {
			reason = fmt.Sprintf("too many failures within %v", o.Window)
		}
		r.reset()
		if float64(notClosed+1) > o.MaxOpenShare*float64(all) {
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
	if to == Open {
		m.backend.openings.Add(1)
		p.counts.openings.Add(1)
	}
	return func(c Change) Event { return BreakerChanged{c, from, to, reason, length} }
}
