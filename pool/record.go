package pool

import (
	"sync/atomic"
	"time"
)

// A signal is a finding of leases about a backend that Run has not acted on yet.
type signal = uint32

const (
	noSignal    signal = iota
	tripped            // it fails too often
	trialWorked        // a trial of the half-open breaker found it working
	trialFailed
)

// A record counts the recent outcomes of the leases on one backend. It is safe for concurrent use.
type record struct {
	failures  atomic.Int32 // in a row
	signal    atomic.Uint32
	trials    trials
	suspicion suspicion

	// The outcomes of the current and the previous half of a window, for the ratio. A word has failures in its upper
	// half and all outcomes in its lower half.
	half      atomic.Int64 // the number of the current half, counted from time 0
	now, last atomic.Uint64
}

// reset forgets everything but trials under way.
func (r *record) reset() {
	r.failures.Store(0)
	r.signal.Store(noSignal)
	r.now.Store(0)
	r.last.Store(0)
}

// count adds an outcome to its half of a window and returns the failures and all outcomes of the last window.
func (r *record) count(failed bool, now, window time.Duration) (failures, all uint32) {
	half := int64(now / max(window/2, 1))
	// A half number far ahead of ours is from another window length, before the pool was reconfigured; one ahead by one
	// is from a faster caller.
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

// failed reports whether an outcome counts as a failure of the backend, and in spoke whether it counts at all;
// docs/pools.md has the reasons. judge handles hints.
func (o Outcome) failed() (failed, spoke bool) {
	switch o {
	case ConnectRefused, ConnectTimeout, ConnectUnreachable, CutEarly, TLSFailed:
		return true, true
	case Served:
		return false, true
	}
	return false, false
}

// judge adds the outcome of a lease to the backend's record. It is called at every release, and costs two atomic loads
// for a good session of a backend without failures. While the breaker is not closed, the outcomes of older sessions do
// not count: they began before it opened.
func (p *Pool) judge(s *settings, l *Lease, o Outcome) {
	r := &l.b.record
	failed, spoke := o.failed()
	// The backend may have turned away the client that the PROXY header names, and a client is no evidence.
	byHeader := (o == CutEarly || o == TLSFailed) && s.SendProxy != 0
	if o.hint() || byHeader {
		// Without checks nothing else examines the backend; then one hint a second counts.
		failed = p.suspect(s, l.b) && (o == ICMPError || byHeader) && !s.Checked
		spoke = failed
	}
	if failed && l.b.Addr().IsPortless() {
		failed, spoke = false, false // the client has chosen the port
	}
	if failed && s.Checked {
		p.suspect(s, l.b) // the checks find out sooner than the breaker whether it is gone
	}
	switch {
	case !s.breaks:
		return
	case l.trial != 0 && r.trials.current(l.trial):
		p.judgeTrial(s, r, l.trial, failed, spoke)
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

// judgeWorking records that the backend works. It is called at the first byte or once the backend has held a
// connection, since the end of the session may be hours away.
func (p *Pool) judgeWorking(s *settings, l *Lease) {
	r := &l.b.record
	if l.trial != 0 {
		if r.trials.current(l.trial) {
			p.judgeTrial(s, r, l.trial, false, true)
		}
		l.trial = 0 // from here on it is a session like any other
		return
	}
	r.succeeded()
}

// succeeded ends a row of failures.
func (r *record) succeeded() {
	if r.failures.Load() != 0 {
		r.failures.Store(0)
	}
}

// judgeTrial records the outcome of a trial: one failure opens the breaker again, and as many successes as there are
// trials close it. A neutral outcome gives the trial's place back.
func (p *Pool) judgeTrial(s *settings, r *record, grant uint32, failed, spoke bool) {
	switch {
	case !spoke:
		r.trials.giveBack(grant)
		return
	case failed:
		r.signal.Store(trialFailed)
	case int(r.trials.good.Add(1)) < s.Breaker.Trials || !r.signal.CompareAndSwap(noSignal, trialWorked):
		return
	}
	p.wakeRun()
}

// trip signals Run to open the breaker. Of many concurrent failures only one needs to.
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
