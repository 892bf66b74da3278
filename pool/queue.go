package pool

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Waiter is a session that waits for a backend with room, and below its rate. The caller sets Context and Serve
// before Wait, and must not touch them until Serve is called or Leave has returned true. After that the Waiter may be
// used again.
type Waiter struct {
	Context PickContext

	// Serve is called with the result of the wait. That is a lease, which the session then owns, or ErrNoBackend when
	// waiting has become useless: the pool was closed, or the session has tried every backend of the pool. Serve is
	// called at most once, from any goroutine, and must neither block nor call the pool.
	Serve func(Lease, error)

	// queue.mu guards the fields below
	next, prev *Waiter
	queued     bool
}

// A queue has the sessions that wait for a backend; first come, first served. Each release of a lease and each change
// of the pool serves it, and so does Run when a backend's rate allows the next lease. A waiting session costs no
// goroutine.
//
// Waiters go before newcomers, which get ErrBusy while anybody waits. So the first waiter gets the place of a released
// lease.
//
// Waiters keep waiting while no backend is eligible: a drain, a weight of 0, a failed check or a reload may end a
// moment later, and the wait is limited anyway. Newcomers are refused meanwhile.
type queue struct {
	// set once, then read-only
	pool *Pool

	waiting atomic.Int64 // written with mu held; each release of a lease reads it without

	mu sync.Mutex
	// mu guards the fields below
	first, last *Waiter
	waited      waited
}

// QueueMax returns how many sessions may wait; 0: the pool has no queue.
func (p *Pool) QueueMax() int { return p.settings().QueueMax }

// QueueTimeout returns how long a session may wait. The session keeps the value from its call of Wait, and calls Leave
// when the time is over.
func (p *Pool) QueueTimeout() time.Duration { return p.settings().QueueTimeout }

// Waiting returns how many sessions wait for a backend now.
func (p *Pool) Waiting() int { return int(p.queue.waiting.Load()) }

// Wait puts a session into the queue after Pick has returned ErrBusy. Serve may be called before Wait returns. With an
// error, which is ErrQueueFull, w was not queued.
func (p *Pool) Wait(w *Waiter) error {
	q := &p.queue
	q.mu.Lock()
	if q.waiting.Load() >= int64(p.QueueMax()) {
		q.waited.turnedAway++
		q.mu.Unlock()
		return ErrQueueFull
	}
	w.queued, w.prev, w.next = true, q.last, nil
	if q.last != nil {
		q.last.next = w
	} else {
		q.first = w
	}
	q.last = w
	q.waiting.Add(1)
	q.waited.all++
	q.mu.Unlock()
	// A lease that was released since Pick failed did not find w in the queue.
	q.serve()
	return nil
}

// Leave takes a session out of the queue. It returns false if w is not there any more: Serve was called, or is being
// called.
func (p *Pool) Leave(w *Waiter) bool {
	q := &p.queue
	q.mu.Lock()
	left := w.queued
	if left {
		q.removeLocked(w)
		q.waited.left++
	}
	q.mu.Unlock()
	if left {
		q.serve() // those behind w may take backends that w has tried
	}
	return left
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
	q.waiting.Add(-1)
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
	return time.Duration(next), next != never && p.Waiting() > 0
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
