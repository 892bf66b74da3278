package pool

import "sync/atomic"

// Stats are numbers of a pool since it was made, and at this moment. They are a plain value.
type Stats struct {
	Waiting     int    // sessions that wait for a backend now
	Waited      uint64 // that had to wait, ever
	Served      uint64 // of these, that were given a backend
	InVain      uint64 // that were told that there is nothing left to wait for; see Waiter.Serve
	Left        uint64 // that left the queue: their time was over, or their clients went
	QueueFull   uint64 // that found no room in the queue
	NoBackend   uint64 // picks refused with ErrNoBackend
	Busy        uint64 // picks refused with ErrBusy; with a queue most of them waited
	Remembered  int    // clients that return to their backend, if they come in time
	Openings    uint64 // of breakers, those of removed backends included
	Revocations uint64 // of all leases on a backend: how often a backend's were
}

// Stats returns the pool's numbers. To count the remembered clients it goes through their table. It may be called at
// any time; numbers that change while it does may be of different moments.
//
// How many clients were found in that table is not counted: it would be a write to one place at each pick.
func (p *Pool) Stats() Stats {
	s := Stats{
		NoBackend: p.counts.noBackend.Load(), Busy: p.counts.busy.Load(),
		Openings: p.counts.openings.Load(), Revocations: p.counts.revocations.Load(),
	}
	q := &p.queue
	q.mu.Lock()
	w := q.waited
	s.Waiting = int(q.waiting.Load())
	q.mu.Unlock()
	s.Waited, s.Served, s.InVain, s.Left, s.QueueFull = w.all, w.served, w.inVain, w.left, w.turnedAway
	if t := p.settings().sticky; t != nil {
		s.Remembered = t.len(p.clock())
	}
	return s
}

// waited is what became of those who waited; who is in none of the others waits still. queue.mu guards it.
type waited struct {
	all, served, inVain, left uint64
	turnedAway                uint64 // not among all
}

// counts are what happens besides served picks. They are safe for concurrent use.
type counts struct {
	_                     [64]byte // picks read what stands before
	noBackend, busy       atomic.Uint64
	openings, revocations atomic.Uint64
}

// refused counts a refused pick, and returns why it was.
func (c *counts) refused(err error) error {
	if err == ErrBusy {
		c.busy.Add(1)
	} else {
		c.noBackend.Add(1)
	}
	return err
}
