package dnscache

import (
	"bytes"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxShards is how many parts a store has at most. Each has its own lock for writers. Readers need no lock, so few
	// parts suffice.
	maxShards = 64

	// minShardEntries is the least number of entries in a part. With fewer, some parts would by chance be full long
	// before others.
	minShardEntries = 512

	// minShardBytes is the least size of a part: some answers of the largest size that is stored.
	minShardBytes = 16 * maxKept

	// patience is how many entries eviction may spare for one new entry, so that a store full of popular entries stays
	// quick.
	patience = 128

	// swept is how many slots of the table are searched for dead entries with each new entry.
	swept = 2
)

// A store is a hash table of entries, bounded by their number and by their bytes. Any goroutine may use it.
//
// Reading takes no lock: slots and links are atomic pointers, and an entry that was removed is never linked again.
// Writers hold the shard's mutex. Names are spread by a seeded hash, so nobody can aim at one slot.
//
// S3-FIFO (Yang and others, SOSP 2023) decides which entry is evicted. An entry starts in the small queue. It moves to
// the main queue only if it is hit twice, or returns soon after its eviction, which the ghosts remember. So a flood of
// random names, the usual attack on DNS, passes through a tenth of the store and does not touch the rest.
type store struct {
	shards []shard
	shift  int // hash >> shift is the number of a shard
}

// A shard is one part of a store.
type shard struct {
	// set once, then read-only
	slots      []atomic.Pointer[entry]
	mask       uint64
	maxEntries int
	maxBytes   int64

	_ [64]byte // keeps readers and writers out of one cache line

	// mu guards the fields below, and the links of entries
	mu      sync.Mutex
	small   queue
	main    queue
	ghosts  []uint32 // fingerprints of evicted entries, by slot; a later one replaces an earlier one
	sweepAt uint64
	evicted uint64
	expired uint64
	stored  uint64

	_ [64]byte
}

// A queue is a first in, first out list of entries. Its zero value is empty.
type queue struct {
	newest, oldest *entry
	entries        int
	bytes          int64
}

func newStore(maxEntries int, maxBytes int64) *store {
	shards := 1
	for shards < maxShards && maxEntries/(2*shards) >= minShardEntries && maxBytes/int64(2*shards) >= minShardBytes {
		shards *= 2
	}
	s := &store{shards: make([]shard, shards), shift: 64 - bits.TrailingZeros(uint(shards))}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.maxEntries, sh.maxBytes = max(maxEntries/shards, 1), maxBytes/int64(shards)
		slots := 1 << bits.Len(uint(sh.maxEntries-1))
		sh.slots, sh.mask = make([]atomic.Pointer[entry], slots), uint64(slots-1)
		sh.ghosts = make([]uint32, slots)
	}
	return s
}

func (s *store) shard(hash uint64) *shard { return &s.shards[hash>>s.shift] }

// find returns the entry with this key, even a dead one, or nil.
func (s *store) find(hash uint64, key []byte) *entry { return s.shard(hash).find(hash, key) }

func (sh *shard) find(hash uint64, key []byte) *entry {
	for e := sh.slots[hash&sh.mask].Load(); e != nil; e = e.next.Load() {
		if e.hash == hash && bytes.Equal(e.key(), key) {
			return e
		}
	}
	return nil
}

// put stores e, replaces the entry with its key, and makes room. It returns false, and stores nothing, if e is larger
// than a shard may be.
func (s *store) put(e *entry, now time.Duration) bool {
	sh := s.shard(e.hash)
	if e.bytes() > sh.maxBytes {
		return false
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	old := sh.find(e.hash, e.key())
	slot := &sh.slots[e.hash&sh.mask]
	e.next.Store(slot.Load())
	slot.Store(e) // before the old one is removed, so that readers always find one
	switch {
	case old != nil:
		if !old.live(now) {
			sh.expired++
		}
		old.queue.push(e)
		sh.remove(old)
	case sh.ghosts[e.hash&sh.mask] == fingerprint(e.hash):
		sh.main.push(e)
	default:
		sh.small.push(e)
	}
	sh.stored++
	for spared := 0; sh.small.entries+sh.main.entries > sh.maxEntries || sh.small.bytes+sh.main.bytes > sh.maxBytes; {
		if !sh.evict(e, spared >= patience, now) {
			spared++
		}
	}
	sh.sweep(now)
	return true
}

// take removes the entry with this key, if there is one.
func (s *store) take(hash uint64, key []byte) {
	sh := s.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e := sh.find(hash, key); e != nil {
		sh.remove(e)
	}
}

// fingerprint returns the value that identifies a ghost. It is never 0, and uses other bits than the slot's number.
func fingerprint(hash uint64) uint32 { return uint32(hash>>24) | 1 }

// evict takes the oldest entry of the queue that is over its share, and reports whether it was removed. With force it
// is removed even if it was hit, unless it is the newcomer. mu is held, and the shard holds other entries.
func (sh *shard) evict(newcomer *entry, force bool, now time.Duration) bool {
	over := sh.small.entries > sh.maxEntries/10 || sh.small.bytes > sh.maxBytes/10
	others := sh.main.oldest != nil && (sh.main.entries > 1 || sh.main.oldest != newcomer) // in the main queue
	if e := sh.small.oldest; !others || over && e != newcomer {
		if e.live(now) && e.hits.Load() > 1 && !force {
			sh.small.unlink(e)
			e.hits.Store(0)
			sh.main.push(e)
			return false
		}
		if sh.drop(e, now) {
			sh.ghosts[e.hash&sh.mask] = fingerprint(e.hash)
		}
		return true
	}
	e := sh.main.oldest
	if hits := e.hits.Load(); e == newcomer || e.live(now) && hits > 0 && !force {
		sh.main.unlink(e)
		e.hits.Store(max(hits, 1) - 1)
		sh.main.push(e)
		return false
	}
	sh.drop(e, now)
	return true
}

// drop removes e to make room, and reports whether it was alive. mu is held.
func (sh *shard) drop(e *entry, now time.Duration) bool {
	sh.remove(e)
	if !e.live(now) {
		sh.expired++
		return false
	}
	sh.evicted++
	return true
}

// sweep removes dead entries from the next slots. The table has about as many slots as entries, so the sweep goes round
// while each entry is replaced once or less. Until then, dead entries count against the bounds like all others. mu is
// held.
func (sh *shard) sweep(now time.Duration) {
	for range swept {
		for e := sh.slots[sh.sweepAt&sh.mask].Load(); e != nil; e = e.next.Load() {
			if !e.live(now) {
				sh.remove(e)
				sh.expired++
			}
		}
		sh.sweepAt++
	}
}

// remove takes e out of its slot and its queue. Concurrent readers of e may continue. mu is held.
func (sh *shard) remove(e *entry) {
	at := &sh.slots[e.hash&sh.mask]
	for at.Load() != e {
		at = &at.Load().next
	}
	at.Store(e.next.Load())
	e.queue.unlink(e)
	e.queue = nil
}

// removeIf removes all entries whose name (in lower case) matches, and returns how many they were.
func (s *store) removeIf(which func(name []byte) bool) int {
	removed := 0
	for i := range s.shards {
		sh := &s.shards[i]
		for slot := 0; slot < len(sh.slots); slot += purgeStep {
			sh.mu.Lock()
			for j := slot; j < min(slot+purgeStep, len(sh.slots)); j++ {
				for e := sh.slots[j].Load(); e != nil; e = e.next.Load() {
					if which(e.key()[:e.nameLen]) {
						sh.remove(e)
						removed++
					}
				}
			}
			sh.mu.Unlock()
		}
	}
	return removed
}

// push adds e as the newest entry.
func (q *queue) push(e *entry) {
	e.queue, e.newer, e.older = q, nil, q.newest
	if q.newest != nil {
		q.newest.newer = e
	} else {
		q.oldest = e
	}
	q.newest = e
	q.entries++
	q.bytes += e.bytes()
}

// unlink removes e.
func (q *queue) unlink(e *entry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		q.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		q.oldest = e.newer
	}
	e.newer, e.older = nil, nil
	q.entries--
	q.bytes -= e.bytes()
}
