package pool

import "github.com/limeload/limeload-l4/algo"

// A replica is a copy of a snapshot with its own backends, loads and pickers: a pick from it changes nothing in the
// pool.
type replica struct {
	*snapshot
	of map[*Backend]*Backend // from the pool's backends to their copies
}

// replica returns a copy of the snapshot as it is at this moment.
func (s *snapshot) replica() *replica {
	r := &replica{
		snapshot: &snapshot{settings: s.settings, eligible: s.eligible, tryAll: s.tryAll, fallback: s.fallback},
		of:       make(map[*Backend]*Backend, len(s.members)),
	}
	for _, m := range s.members {
		r.of[m.backend] = m.backend.replica(m.maxSessionsInForce())
	}
	for _, t := range s.tiers {
		r.tiers = append(r.tiers, r.tier(t))
	}
	r.trials = r.backends(s.trials)
	if s.slow != nil {
		r.slow = &slowStarts{length: s.slow.length}
		for _, g := range s.slow.growing {
			r.slow.growing = append(r.slow.growing, growing{r.of[g.backend], g.since, g.weight})
		}
		r.slow.next.Store(s.slow.next.Load())
	}
	return r
}

// replica returns a copy with the state that a pick uses, without the counters. It is usable if its rate allows a lease
// now, even if no pick has noticed that yet.
func (b *Backend) replica(maxSessions int) *Backend {
	r := &Backend{id: b.id, addr: b.addr, tier: b.tier, pool: b.pool}
	r.group.Store(b.group.Load())
	r.load.CopyFrom(&b.load)
	r.bucket.CopyFrom(&b.bucket)
	if l := b.rate.Load(); l != nil {
		r.rate.Store(l)
		if r.bucket.Wait(*l, b.pool.clock()) == 0 {
			r.load.SetLimit(int64(maxSessions))
		}
	}
	r.inUse.Store(b.inUse.Load())
	r.record.trials.places.Store(b.record.trials.places.Load())
	return r
}

func (r *replica) tier(t *tier) *tier {
	c := &tier{
		group: &group{tier: t.group.tier, other: t.group.other}, backends: r.backends(t.backends), weights: t.weights,
	}
	c.group.state.CopyFrom(&t.group.state)
	loads := make([]*algo.Load, len(c.backends))
	for i, b := range c.backends {
		loads[i] = &b.load
		c.group.total.Join(loads[i])
	}
	c.picker = algo.Replica(t.picker, loads, algo.Options{State: &c.group.state, Total: &c.group.total})
	return c
}

// backends returns the copies of these backends, without those that the pool no longer has.
func (r *replica) backends(of []*Backend) []*Backend {
	var copies []*Backend
	for _, b := range of {
		if c := r.of[b]; c != nil {
			copies = append(copies, c)
		}
	}
	return copies
}

// last returns the copy of the backend that is remembered for the session, or nil.
func (r *replica) last(pc *PickContext) *Backend {
	t := r.settings.sticky
	if t == nil {
		return nil
	}
	return r.of[t.backend(r.settings.stickyKey(pc), r.settings.Clock())]
}
