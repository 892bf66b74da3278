package pool

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Waiter is a session that waits until a backend has room for it. Context and Serve are set before Wait and belong to
// the queue until Serve is called or Leave has returned true. A Waiter may be used again after that.
type Waiter struct {
	Context PickContext

	// Serve is told what became of the wait: a lease, which is the session's from then on, or ErrNoBackend when there
	// is nothing left to wait for: the pool was closed, or the session has tried every backend that the pool has. It is
	// called once at most, from any goroutine, and must neither block nor call the pool.
	Serve func(Lease, error)

	// queue.mu guards the fields below
	next, prev *Waiter
	queued     bool
}

// A queue is the sessions that wait for a backend, first come, first served. Whoever gives back a lease serves it, and
// so does who changes the pool: a waiting session costs no goroutine.
//
// Waiters go before newcomers, who are told ErrBusy while anybody waits; so a lease given back is the first waiter's.
//
// Whoever waits goes on waiting while no backend is eligible: a drain, a weight of 0, a failed check or a reload may
// end a moment later, and the wait has an end of its own. Newcomers are refused meanwhile.
type queue struct {
	// set once, then read-only
	pool *Pool

	waiting atomic.Int64 // changed with mu held; read without by those who give leases back

	mu sync.Mutex
	// mu guards the fields below
	first, last *Waiter
	waited      waited
}

// QueueMax returns how many sessions may wait; 0 is a pool without a queue.
func (p *Pool) QueueMax() int { return p.settings().QueueMax }

// QueueTimeout returns how long a session may wait. Whoever called Wait keeps that time, and calls Leave at its end.
func (p *Pool) QueueTimeout() time.Duration { return p.settings().QueueTimeout }

// Waiting returns how many sessions wait for a backend now.
func (p *Pool) Waiting() int { return int(p.queue.waiting.Load()) }

// Wait puts a session into the queue after Pick has returned ErrBusy. It may be served before Wait returns. The error
// is ErrQueueFull: w was not queued.
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
	// A lease given back since Pick failed has found nobody waiting.
	q.serve()
	return nil
}

// Leave takes a session out of the queue. It reports false when it is not there any more: Serve was or is being called.
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
		q.serve() // who stood behind it may have been able to go where it could not
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

// serve gives backends to those who wait, as far as there is room. With nobody waiting it is one atomic load.
func (q *queue) serve() {
	for q.waiting.Load() > 0 {
		w, l, err := q.take()
		if w == nil {
			return
		}
		w.Serve(l, err)
	}
}

// Close says that the pool will not have a backend again: whoever waits is told ErrNoBackend now, and whoever comes to
// wait then.
func (p *Pool) Close() {
	p.closed.Store(true)
	p.queue.serve()
}

// exhausted reports whether a session has tried every backend that there is, eligible or not: it would wait in vain.
func (s *snapshot) exhausted(tried []*Backend) bool {
	return len(tried) > 0 && len(s.members) > 0 &&
		!slices.ContainsFunc(s.members, func(m *member) bool { return !slices.Contains(tried, m.backend) })
}

// take takes the first waiter out of the queue that can be told something, or returns nil. One that has tried some
// backends in vain does not hold up those behind it, who may go there.
func (q *queue) take() (*Waiter, Lease, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := q.first; w != nil; w = w.next {
		l, err := q.pool.pick(&w.Context)
		if err != nil && q.pool.closed.Load() {
			err = ErrNoBackend
		} else if err == ErrNoBackend && !q.pool.snap.Load().exhausted(w.Context.Tried) {
			err = ErrBusy // it may not last
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
