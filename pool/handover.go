package pool

import "sync/atomic"

// Adopt returns a lease on the backend of that id and address, whatever its verdict, its mode and its limits: another
// process has had the lease, and hands its session over. It is no pick, and counts as none. It reports false if there
// is no such backend. It may be called from any goroutine.
func (p *Pool) Adopt(id string, at Address) (Lease, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.byID[id]
	if m == nil || m.backend.addr != at {
		return Lease{}, false
	}
	m.backend.load.Acquire()
	return Lease{b: m.backend}, true
}

// HandOver ends a lease that another process goes on with, see Adopt: it has no outcome here. A trial of a half-open
// breaker gives its place back. It must be the only release of the lease.
func (l Lease) HandOver() {
	if l.b.load.Release() == 0 {
		l.b.watchers.wake()
	}
	p := l.b.pool
	if l.trial != 0 {
		p.judge(p.settings(), &l, Neutral)
	}
	p.queue.serve()
}

// Counts are what was counted, by name. They may be written as JSON, added to and subtracted from each other.
type Counts = map[string]uint64

// each calls visit with each counter of the backend and its name.
func (b *Backend) each(visit func(name string, n *atomic.Uint64)) {
	for o := range b.outcomes {
		visit("outcome."+Outcome(o).String(), &b.outcomes[o])
	}
	visit("bytes_in", &b.bytesIn)
	visit("bytes_out", &b.bytesOut)
	visit("openings", &b.openings)
	visit("moved", &b.moved)
	visit("rate_reached", &b.rateReached)
}

// each calls visit with each counter of the pool and its name, but for those of its queue.
func (c *counts) each(visit func(name string, n *atomic.Uint64)) {
	visit("no_backend", &c.noBackend)
	visit("busy", &c.busy)
	visit("openings", &c.openings)
	visit("revocations", &c.revocations)
}

// each calls visit with each counter and its name.
func (w *waited) each(visit func(name string, n *uint64)) {
	visit("waited", &w.all)
	visit("served", &w.served)
	visit("in_vain", &w.inVain)
	visit("left", &w.left)
	visit("queue_full", &w.turnedAway)
	visit("hold_full", &w.notHeld)
}

// Counts returns what the pool has counted, and what each of its backends has by its id. Counters that are zero are
// left out. It may be called from any goroutine.
func (p *Pool) Counts() (of Counts, backends map[string]Counts) {
	of, backends = make(Counts), make(map[string]Counts)
	into := func(c Counts) func(string, *atomic.Uint64) {
		return func(name string, n *atomic.Uint64) {
			if v := n.Load(); v > 0 {
				c[name] = v
			}
		}
	}
	p.counts.each(into(of))
	q := &p.queue
	q.mu.Lock()
	q.waited.each(func(name string, n *uint64) {
		if *n > 0 {
			of[name] = *n
		}
	})
	q.mu.Unlock()
	for _, m := range p.snap.Load().members {
		c := make(Counts)
		m.backend.each(into(c))
		m.backend.watch.Load().countTimes(c)
		backends[m.backend.id] = c
	}
	return of, backends
}

// AddCounts adds what another process has counted. Names and backends that are not known are ignored. It may be called
// from any goroutine.
func (p *Pool) AddCounts(of Counts, backends map[string]Counts) {
	add := func(c Counts) func(string, *atomic.Uint64) {
		return func(name string, n *atomic.Uint64) {
			if v := c[name]; v > 0 {
				n.Add(v)
			}
		}
	}
	p.counts.each(add(of))
	q := &p.queue
	q.mu.Lock()
	q.waited.each(func(name string, n *uint64) { *n += of[name] })
	q.mu.Unlock()
	for _, m := range p.snap.Load().members {
		if c := backends[m.backend.id]; c != nil {
			m.backend.each(add(c))
			m.backend.addTimes(c)
		}
	}
}
