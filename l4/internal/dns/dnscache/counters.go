package dnscache

// Counters count what a Cache did since it was made, and what it holds. It is a plain value.
type Counters struct {
	Hit        uint64 // answered from a fresh entry
	Miss       uint64 // forwarded, with a client that waits
	Stale      uint64 // clients that got an expired answer
	Coalesced  uint64 // clients that waited for another client's question
	Refused    uint64 // dropped, since too many clients waited
	Passed     uint64 // queries that are not plain
	Prefetched uint64 // entries refreshed before they expired
	Rejected   uint64 // messages that were malformed or not the answer
	Stored     uint64 // entries stored, replacements included
	Evicted    uint64 // entries removed to make room
	Expired    uint64 // entries removed or replaced after they expired

	Entries int   // held now, including expired ones not removed yet
	Bytes   int64 // of these entries
	Waiting int   // clients that wait now
}

// Counters returns the sum over all Resolvers. Each number is correct by itself, but they are not read at one moment.
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
