package pool

import (
	"strconv"
	"time"
)

// A Lease is the right to use a backend, from Pick to Release. It is a small value; the zero value is not a lease. Its
// holder must release it exactly once. It outlives the removal of its backend from the pool.
type Lease struct {
	b     *Backend
	trial uint32 // the grant of its trial of a half-open breaker; else 0
}

// Backend returns the backend that was picked.
func (l Lease) Backend() *Backend { return l.b }

// Release gives the lease back with its outcome, and serves sessions that wait for a backend. It allocates nothing and
// may be called from any goroutine. A second release panics if the load falls below zero; otherwise it counts as the
// release of another lease.
func (l Lease) Release(o Outcome) {
	l.b.outcomes[o].Add(1)
	if l.b.load.Release() == 0 {
		l.b.watchers.wake()
	}
	p := l.b.pool
	if s := p.settings(); s.breaks || s.Checked || o.hint() {
		p.judge(s, &l, o)
	}
	p.queue.serve()
}

// Leased returns the backends on which somebody holds a lease now, apart from those that were removed. The slice is the
// caller's. It may be called from any goroutine.
func (p *Pool) Leased() (leased []*Backend) {
	for _, m := range p.snap.Load().members {
		if m.backend.load.Leases() > 0 {
			leased = append(leased, m.backend)
		}
	}
	return leased
}

// Opened says that the backend was reached: it accepted the connection, or for UDP a datagram was sent to it.
func (l Lease) Opened() {
	if l.trial != 0 {
		l.b.record.trials.opened.CompareAndSwap(0, max(int64(l.b.pool.clock()), 1))
	}
}

// ConnectTook is Opened with the time that connecting took, which is counted, and which least_time uses. loop is the
// index of the caller's loop, for which the backend has counters of its own; every number will do.
func (l Lease) ConnectTook(took time.Duration, loop int) {
	l.Opened()
	l.b.took(connectTimes, loop, took)
	if p := l.b.pool; p.settings().timed {
		now := p.clock()
		l.b.load.ObserveConnect(took, now)
		l.b.group.Load().state.Advance(now)
	}
}

// FirstByteTook says that the backend has sent its first byte, and how long it took after it had something to answer.
// The breaker uses the fact, least_time the time, and both are counted. loop is as in ConnectTook. It is called at most
// once.
func (l *Lease) FirstByteTook(took time.Duration, loop int) {
	l.b.took(firstByteTimes, loop, took)
	p := l.b.pool
	s := p.settings()
	if s.breaks {
		p.judgeWorking(s, l)
	}
	if s.timed {
		now := p.clock()
		l.b.load.ObserveFirstByte(took, now)
		l.b.group.Load().state.Advance(now)
	}
}

// Held says that the backend has kept the connection open for HeldAfter, perhaps without sending anything. That makes a
// trial succeed and ends a row of failures.
func (l *Lease) Held() {
	if s := l.b.pool.settings(); s.breaks {
		l.b.pool.judgeWorking(s, l)
	}
}

// Heard says that the backend has sent something again, after FirstByteTook. That ends a row of failures.
func (l Lease) Heard() { l.b.record.succeeded() }

// An Outcome says what a lease showed about its backend.
type Outcome uint8

// The outcomes.
const (
	Served             Outcome = iota // the backend accepted the connection and did its part
	ConnectRefused                    // it refused the connection
	ConnectTimeout                    // it did not answer the connect in time
	ConnectUnreachable                // there was no way to it
	CutEarly                          // it ended the connection at once, before anything was sent either way
	TLSFailed                         // the TLS handshake with it failed
	// says nothing about the backend: a client or a lack of our own resources may be the cause
	Neutral
	NoAnswer  // a question had no answer in time; perhaps nobody can answer it
	ICMPError // ICMP said that it cannot be reached, which anybody may have forged

	numOutcomes = iota
)

// String returns the outcome as a lower-case word, fit for a label.
func (o Outcome) String() string {
	switch o {
	case Served:
		return "served"
	case ConnectRefused:
		return "connect_refused"
	case ConnectTimeout:
		return "connect_timeout"
	case ConnectUnreachable:
		return "connect_unreachable"
	case CutEarly:
		return "cut_early"
	case TLSFailed:
		return "tls_failed"
	case Neutral:
		return "neutral"
	case NoAnswer:
		return "no_answer"
	case ICMPError:
		return "icmp_error"
	}
	return "outcome(" + strconv.Itoa(int(o)) + ")"
}
