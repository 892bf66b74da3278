package pool

import (
	"context"
	"errors"
	"sync/atomic"
)

// ErrNotDraining is wrapped by the error of WaitDrained when the backend is in another mode than Drain.
var ErrNotDraining = errors.New("pool: the backend is not in drain")

// WaitDrained waits until nobody holds a lease on a backend in Drain, and then returns nil. Leases on earlier backends
// of the same id (see BackendInfo.Former) count too.
//
// The error is that of ctx, or it wraps ErrUnknownBackend or ErrNotDraining, also when the backend is removed or gets
// another mode during the wait.
func (p *Pool) WaitDrained(ctx context.Context, id string) error {
	for {
		m, changed := p.watched(id)
		switch {
		case m == nil:
			return p.failed("drain", id, ErrUnknownBackend)
		case m.mode != Drain:
			return p.failed("drain", id, ErrNotDraining)
		}
		released, busy := m.backend.lastRelease()
		if !busy {
			return nil
		}
		select {
		case <-changed:
		case <-released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watched returns the current member of that id, or nil, and a channel that is closed when the member changes.
func (p *Pool) watched(id string) (*member, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.byID[id]
	if m == nil {
		return nil, nil
	}
	return m, m.backend.watchers.wait()
}

// lastRelease returns a channel that is closed when the last lease on the backend, or on a former one of its id, is
// released. It returns false when there is no such lease.
func (b *Backend) lastRelease() (<-chan struct{}, bool) {
	for _, of := range append([]*Backend{b}, b.former...) {
		released := of.watchers.wait() // before the leases are read, so that no release is missed
		if of.load.Leases() > 0 {
			return released, true
		}
	}
	return nil, false
}

// watchers wakes the goroutines that wait for a backend to change. It may wake them without a change, so they look
// again. The zero value is ready to use; it is safe for concurrent use.
type watchers struct {
	waiting atomic.Pointer[chan struct{}] // nil while nobody waits
}

// wait returns a channel that the next wake closes.
func (w *watchers) wait() <-chan struct{} {
	for {
		if c := w.waiting.Load(); c != nil {
			return *c
		}
		c := make(chan struct{})
		if w.waiting.CompareAndSwap(nil, &c) {
			return c
		}
	}
}

// wake wakes all who wait. While nobody waits it costs one atomic load.
func (w *watchers) wake() {
	if w.waiting.Load() == nil {
		return
	}
	if c := w.waiting.Swap(nil); c != nil {
		close(*c)
	}
}
