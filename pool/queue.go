package pool

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Waiter is a session that waits for a backend: for one with room and below its rate, or for one that is eligible.
// The caller sets Context and Serve before Wait, Hold or Rest, and must not touch them until Serve is called or Leave
// has returned true. After that the Waiter may be used again.
type Waiter struct {
	Context PickContext

	// Serve is called with the result of the wait. That is a lease, which the session then owns, or ErrNoBackend when
	// waiting has become useless: the pool was closed, or the session has tried every backend of the pool. Serve is
	// called at most once, from any goroutine, and must neither block nor call the pool.
	Serve func(Lease, error)

	// queue.mu guards the fields below
	next, prev *Waiter
	queued     bool
	resting    bool // it has a place and does not stand in the line yet, see Rest
}

// A queue has the sessions that wait for a backend; first come, first served. Each release of a lease and each change
// of the pool serves it, and so does Run when a backend's rate allows the next lease. A waiting session costs no
// goroutine.
//
// There is one line for two causes: sessions come by Wait because every backend is full, or by Hold because none is
// eligible. Each cause has its own bound on the length of the whole line, which is asked only when a session comes.
// While it waits, the cause may change, and change back: the session keeps its place, whatever the bounds are, and each
// cause's timeout counts only the time under that cause; see Barren.
//
// The line of sessions that were held is not served at once if the backends that are back have a slow start; see
// ramp.go.
//
// Waiters go before newcomers, which get ErrBusy while anybody stands in the line. So the first waiter gets the place
// of a released lease.
//
// Waiters keep waiting while no backend is eligible, also without a hold: a drain, a weight of 0, a failed check or a
// reload may end a moment later, and the wait is limited anyway. Newcomers are refused meanwhile, or held.
type queue struct {
	// set once, then read-only
	pool *Pool

	waiting atomic.Int64 // in the line; written with mu held, and each release of a lease reads it without

	mu sync.Mutex
	// mu guards the fields below
	first, last *Waiter
	resting     int // have a place, and do not stand in the line
	waited      waited
}

// QueueMax returns how many sessions may wait while all backends are full; 0: the pool has no queue.
func (p *Pool) QueueMax() int { return p.settings().QueueMax }

// QueueTimeout returns how long a session may wait while all backends are full. The session keeps the value from its
// call of Wait or Hold, and calls Leave when the time is over.
func (p *Pool) QueueTimeout() time.Duration { return p.settings().QueueTimeout }

// HoldMax returns how many sessions may wait while no backend is eligible; 0 without a hold.
func (p *Pool) HoldMax() int {
	if s := p.settings(); s.HoldTimeout > 0 {
		return s.HoldMax
	}
	return 0
}

// HoldTimeout returns how long a session may wait while no backend is eligible; 0 is a pool without a hold, whose
// sessions are refused at once. The session keeps the value from its call of Wait or Hold.
func (p *Pool) HoldTimeout() time.Duration { return p.settings().HoldTimeout }

// Waiting returns how many sessions wait for a backend now, those that rest included.
func (p *Pool) Waiting() int {
	q := &p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sizeLocked()
}

// sizeLocked is the number that the bounds limit.
func (q *queue) sizeLocked() int { return int(q.waiting.Load()) + q.resting }

// Barren returns for how long, in all since New, no backend of the pool was eligible. What it grows by while a session
// waits is the session's time under the hold; the rest of its wait is its time in the queue. It may be called from any
// goroutine, and takes no lock.
func (p *Pool) Barren() time.Duration { return p.snap.Load().barrenAt(p.clock()) }

// Wait puts a session into the line after Pick has returned ErrBusy. Serve may be called before Wait returns. With an
// error, which is ErrQueueFull, or ErrHoldFull during a ramp, w was not queued.
func (p *Pool) Wait(w *Waiter) error {
	q, s := &p.queue, p.settings()
	q.mu.Lock()
	most, ramping := s.QueueMax, p.Ramping()
	if s.HoldTimeout > 0 && (ramping || p.Eligible() == 0) { // since Pick, or a trial is all there is
		most = max(most, s.HoldMax)
	}
	full := q.sizeLocked() >= most
	if full && ramping {
		q.waited.notHeld++
		q.mu.Unlock()
		return ErrHoldFull
	}
	if full && (s.HoldTimeout == 0 || q.waiting.Load() == 0) {
		q.waited.turnedAway++
		q.mu.Unlock()
		return ErrQueueFull
	}
	q.joinLocked(w)
	q.mu.Unlock()
	// A lease that was released since Pick failed did not find w in the line.
	q.serve()
	if full {
		return q.keepServed(w)
	}
	return nil
}

// keepServed takes a session out of the line for which there is no place, or returns nil if it was served. It came
// while others stood in the line: perhaps not because all backends are full, but because one has just become eligible
// and those who were held are being served. A queue without places must not refuse it then.
func (q *queue) keepServed(w *Waiter) error {
	q.mu.Lock()
	left := w.queued
	if left {
		q.removeLocked(w)
		q.waited.all--
		q.waited.turnedAway++
	}
	q.mu.Unlock()
	if !left {
		return nil
	}
	q.serve()
	return ErrQueueFull
}

// Hold puts a session into the line after Pick has returned ErrNoBackend, or after its rest. Its Context has no Tried:
// what it has failed on may be another when it is back. Serve may be called before Hold returns. With an error, which
// is ErrHoldFull, w was not queued; a session that has rested has its place already.
func (p *Pool) Hold(w *Waiter) error {
	q := &p.queue
	q.mu.Lock()
	if w.resting {
		w.resting = false
		q.resting--
		q.waited.all--
	} else if q.sizeLocked() >= p.HoldMax() {
		q.waited.notHeld++
		q.mu.Unlock()
		return ErrHoldFull
	}
	q.joinLocked(w)
	q.mu.Unlock()
	q.serve()
	return nil
}

// Rest gives a session a place that is not in the line yet: it has failed on every eligible backend, and tries them
// again after a moment, when it calls Hold. Meanwhile it delays nobody. With an error, which is ErrHoldFull, it has no
// place.
func (p *Pool) Rest(w *Waiter) error {
	q := &p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sizeLocked() >= p.HoldMax() {
		q.waited.notHeld++
		return ErrHoldFull
	}
	w.resting = true
	q.resting++
	q.waited.all++
	return nil
}

func (q *queue) joinLocked(w *Waiter) {
	w.queued, w.prev, w.next = true, q.last, nil
	if q.last != nil {
		q.last.next = w
	} else {
		q.first = w
	}
	q.last = w
	if q.waiting.Add(1) == 1 {
		q.pool.pacing.endRamp() // it was for those who stood in the line before
	}
	q.waited.all++
}

// Leave takes a session out of the line, or ends its rest. It returns false if w is not there any more: Serve was
// called, or is being called.
func (p *Pool) Leave(w *Waiter) bool {
	q := &p.queue
	q.mu.Lock()
	left, rested := w.queued, w.resting
	switch {
	case left:
		q.removeLocked(w)
		q.waited.left++
	case rested:
		w.resting = false
		q.resting--
		q.waited.left++
	}
	q.mu.Unlock()
	if left {
		q.serve() // those behind w may take backends that w has tried
	}
	return left || rested
}

func (q *queue) removeLocked(w *Waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.last = w.prev
	}
	w.next, w.prev, w.queued = nil, nil, false
	if q.waiting.Add(-1) == 0 {
		q.pool.pacing.endRamp()
	}
}

// serve gives backends to waiters while there is room. If nobody waits, it costs one atomic load.
func (q *queue) serve() {
	for q.waiting.Load() > 0 {
		w, l, err := q.take()
		if w == nil {
			q.pool.pacing.arm() // perhaps it is a rate that they wait for
			return
		}
		w.Serve(l, err)
	}
}

// NextByRate returns when the first backend that is over its rate may have the next lease, on the pool's clock, and
// whether sessions wait for that. A simulation, which has a clock of its own and no Run, then calls ServeByRate.
func (p *Pool) NextByRate() (at time.Duration, wait bool) {
	next := p.pacing.next.Load()
	return time.Duration(next), next != never && p.queue.waiting.Load() > 0
}

// ServeByRate serves the queue as far as the rates allow it now.
func (p *Pool) ServeByRate() { p.queue.serve() }

// Close says that the pool will never have a backend again: all current and later waiters get ErrNoBackend.
func (p *Pool) Close() {
	p.closed.Store(true)
	p.queue.serve()
}

// exhausted reports whether a session has tried all backends, eligible or not, and so would wait in vain.
func (s *snapshot) exhausted(tried []*Backend) bool {
	return len(tried) > 0 && len(s.members) > 0 &&
		!slices.ContainsFunc(s.members, func(m *member) bool { return !slices.Contains(tried, m.backend) })
}

// take takes the first waiter out of the queue for which there is a result, a lease or ErrNoBackend, or returns nil. A
// waiter that has tried some backends does not block those behind it, which may get these backends.
func (q *queue) take() (*Waiter, Lease, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := q.first; w != nil; w = w.next {
		l, err := q.pool.snap.Load().pick(&w.Context)
		if err != nil && q.pool.closed.Load() {
			err = ErrNoBackend
		} else if err == ErrNoBackend && !q.pool.snap.Load().exhausted(w.Context.Tried) {
			err = ErrBusy // a backend may become eligible again
		}
		if err != ErrBusy {
			q.removeLocked(w)
			if err == nil {
				q.waited.served++
				q.pool.pacing.noteServed(l.b, q.waiting.Load())
			} else {
				q.waited.inVain++
			}
			return w, l, err
		}
		if len(w.Context.Tried) == 0 {
			break
		}
	}
	return nil, Lease{}, nil
}
