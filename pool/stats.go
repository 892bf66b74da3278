package pool

import "sync/atomic"

// Stats are counters of a pool since it was made, and current numbers. It is a plain value.
type Stats struct {
	Waiting     int    // sessions that wait for a backend now
	Waited      uint64 // sessions that have begun to wait
	Served      uint64 // waiters that got a backend
	InVain      uint64 // waiters that got ErrNoBackend; see Waiter.Serve
	Left        uint64 // waiters that left the queue: their time was over, or their client had gone
	QueueFull   uint64 // sessions that found no room in the queue
	HoldFull    uint64 // sessions that found no room to wait for an eligible backend
	NoBackend   uint64 // picks refused with ErrNoBackend
	Busy        uint64 // picks refused with ErrBusy; with a queue most of these sessions then waited
	Remembered  int    // clients whose backend is remembered
	Openings    uint64 // openings of breakers, including those of removed backends
	Revocations uint64 // how often all leases on a backend were revoked
}

// Stats returns the pool's numbers. It reads the whole sticky table to count the remembered clients. It may be called
// at any time; numbers that change meanwhile may be of different moments.
//
// Hits in that table are not counted: each pick would have to write to the same place.
func (p *Pool) Stats() Stats {
	s := Stats{
		NoBackend: p.counts.noBackend.Load(), Busy: p.counts.busy.Load(),
		Openings: p.counts.openings.Load(), Revocations: p.counts.revocations.Load(),
	}
	q := &p.queue
	q.mu.Lock()
	w := q.waited
	s.Waiting = q.sizeLocked()
	q.mu.Unlock()
	s.Waited, s.Served, s.InVain, s.Left, s.QueueFull = w.all, w.served, w.inVain, w.left, w.turnedAway
	s.HoldFull = w.notHeld
	if t := p.settings().sticky; t != nil {
		s.Remembered = t.len(p.clock())
	}
	return s
}

// waited counts the sessions that have waited by result; those without a result still wait. queue.mu guards it.
type waited struct {
	all, served, inVain, left uint64
	turnedAway, notHeld       uint64 // sessions that found no room; not included in all
}

// counts counts refused picks and other rare events. It is safe for concurrent use.
type counts struct {
	_                     [64]byte // keeps these writes off the cache line before, which picks read
	noBackend, busy       atomic.Uint64
	openings, revocations atomic.Uint64
}

// refused counts a pick refused with err, and returns err.
func (c *counts) refused(err error) error {
	if err == ErrBusy {
		c.busy.Add(1)
	} else {
		c.noBackend.Add(1)
	}
	return err
}
