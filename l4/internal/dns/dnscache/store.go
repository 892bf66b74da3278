package dnscache

import (
	"bytes"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxShards is how many parts a store has at most, each with its own lock for writers. Readers need none, so it is few.
	maxShards = 64

	// minShardEntries is how many entries a part is worth having for: fewer, and chance would fill some long before others.
	minShardEntries = 512

	// minShardBytes is the same in bytes: some answers of the largest size that is kept.
	minShardBytes = 16 * maxKept

	// patience is how many entries eviction may spare for one that comes, so that a store of popular entries stays quick.
	patience = 128

	// swept is how many slots of the table are looked at for dead entries with each entry that comes.
	swept = 2
)

// A store is a hash table of entries, bounded by their number and by their bytes. Any goroutine may use it.
//
// Reading takes no lock: slots and links are atomic pointers, and an entry is never linked again once it was taken out.
// Who writes holds the shard's mutex. Names are spread by a seeded hash, so nobody can aim at one slot.
//
// What goes when there is no room is decided by S3-FIFO (Yang and others, SOSP 2023): an entry starts in the small queue, and only
// moves to the main one when it is hit twice, or comes back soon after it was driven out, which the ghosts remember. So a flood of
// random names, the usual attack on DNS, passes through a tenth of the store and leaves the rest alone.
type store struct {
	shards []shard
	shift  int // of a hash, to the number of its shard
}

// A shard is one part of a store.
type shard struct {
	// set once, then read-only
	slots      []atomic.Pointer[entry]
	mask       uint64
	maxEntries int
	maxBytes   int64

	_ [64]byte // who reads shares no cache line with who writes

	// mu guards the fields below, and the links of entries
	mu      sync.Mutex
	small   queue
	main    queue
	ghosts  []uint32 // fingerprints of what was driven out, by slot; a later one takes the place of an earlier one
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

// find returns the entry with this key, be it dead, or nil.
func (s *store) find(hash uint64, key []byte) *entry { return s.shard(hash).find(hash, key) }

func (sh *shard) find(hash uint64, key []byte) *entry {
	for e := sh.slots[hash&sh.mask].Load(); e != nil; e = e.next.Load() {
		if e.hash == hash && bytes.Equal(e.key(), key) {
			return e
		}
	}
	return nil
}

// put stores e instead of what has its key, and makes room for it. It reports false, and stores nothing, when e is larger than a shard
// may be.
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
	slot.Store(e) // before the old one goes, so that there always is one
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

// fingerprint is what a ghost is known by. It is never 0, and has other bits than the slot has.
func fingerprint(hash uint64) uint32 { return uint32(hash>>24) | 1 }

// evict looks at the oldest entry of the queue that is over its share, and reports whether it went. By force it goes, unless it is the one that
// has just come. mu is held, and the shard holds others.
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

// drop removes e for want of room, and reports whether it was alive. mu is held.
func (sh *shard) drop(e *entry, now time.Duration) bool {
	sh.remove(e)
	if !e.live(now) {
		sh.expired++
		return false
	}
	sh.evicted++
	return true
}

// sweep removes what is dead from the next slots. With a table of about as many slots as entries it goes round while each is replaced
// once or less; what is left until then is bounded like all the rest. mu is held.
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

// remove takes e out of its slot and its queue. Who reads it just now may go on. mu is held.
func (sh *shard) remove(e *entry) {
	at := &sh.slots[e.hash&sh.mask]
	for at.Load() != e {
		at = &at.Load().next
	}
	at.Store(e.next.Load())
	e.queue.unlink(e)
	e.queue = nil
}

// removeIf removes all entries whose name, in lower case, which accepts, and returns how many they were.
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

// push makes e the newest.
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

// unlink takes e out.
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
