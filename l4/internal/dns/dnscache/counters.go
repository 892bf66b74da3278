package dnscache

// Counters are what a Cache has done since it was made, and what it holds. It is a plain value.
type Counters struct {
	Hit        uint64 // answered from a fresh entry
	Miss       uint64 // forwarded, a client waiting for it
	Stale      uint64 // clients that got an expired answer
	Coalesced  uint64 // clients that waited for another one's question
	Refused    uint64 // dropped, since too many waited
	Passed     uint64 // not plain
	Prefetched uint64 // asked again before they expired
	Rejected   uint64 // messages that were not the answer, or malformed
	Stored     uint64 // entries put in, those in place of older ones too
	Evicted    uint64 // entries driven out for want of room
	Expired    uint64 // entries removed, or replaced, after their time

	Entries int   // held now, expired ones that were not removed yet too
	Bytes   int64 // of these
	Waiting int   // clients that wait now
}

// Counters returns the sum over all Resolvers. Each number is true by itself, not all of them at one moment.
func (c *Cache[W]) Counters() Counters {
	n := Counters{Waiting: int(c.crowd.waiting.Load())}
	c.mu.Lock()
	for _, r := range c.resolvers {
		t := &r.tally
		n.Hit += t.hit.Load()
		n.Miss += t.miss.Load()
		n.Stale += t.stale.Load()
		n.Coalesced += t.coalesced.Load()
		n.Refused += t.refused.Load()
		n.Passed += t.passed.Load()
		n.Prefetched += t.prefetched.Load()
		n.Rejected += t.rejected.Load()
	}
	c.mu.Unlock()
	for i := range c.store.shards {
		sh := &c.store.shards[i]
		sh.mu.Lock()
		n.Stored += sh.stored
		n.Evicted += sh.evicted
		n.Expired += sh.expired
		n.Entries += sh.small.entries + sh.main.entries
		n.Bytes += sh.small.bytes + sh.main.bytes
		sh.mu.Unlock()
	}
	return n
}
