package pool

import (
	"slices"
	"sync/atomic"
)

// A Subscription is one observer's queue of a pool's events, in the order in which the changes took effect. When the
// queue is full, further events are lost and counted; nobody is delayed. Its methods may be called from any goroutine;
// its zero value is of no use, see Pool.Subscribe.
type Subscription struct {
	// set once, then read-only
	pool   *Pool
	events chan Event // sent to and closed only with pool.mu held; its one closer is Close

	dropped atomic.Uint64
}

// Subscribe returns a queue of all events from now on, with room for buffer of them, at least one. An observer that
// also needs the current state subscribes first and then reads Backends; events may then repeat changes that it has
// seen. The subscription must be closed when it is no longer read.
func (p *Pool) Subscribe(buffer int) *Subscription {
	s := &Subscription{pool: p, events: make(chan Event, max(buffer, 1))}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subscriptions = append(p.subscriptions, s)
	return s
}

// C returns the queue. Close closes it; events queued before can still be read.
func (s *Subscription) C() <-chan Event { return s.events }

// Dropped returns how many events were lost because the queue was full.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription and closes its queue. Closing it again does nothing.
func (s *Subscription) Close() {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.subscriptions, s)
	if i < 0 {
		return
	}
	p.subscriptions = slices.Delete(p.subscriptions, i, i+1)
	close(s.events)
}

// publishLocked queues e for every observer whose queue has room. It is called after the snapshot was replaced, so that
// the change is in effect when an observer reads the event.
func (p *Pool) publishLocked(e Event) {
	for _, s := range p.subscriptions {
		select {
		case s.events <- e:
		default:
			s.dropped.Add(1)
		}
	}
}
