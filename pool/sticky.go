package pool

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// stickyWays is how many entries share a set: a client is looked for in one set only, two cache lines of keys, and there
// competes with these.
const stickyWays = 16

// A stickyTable remembers which backend a client had, by a hash of its address: bounded, without a lock and without a
// goroutine that clears it. Two clients of one hash, one pair in 2^64, share an entry, and so a backend.
//
// It is not emptied when the pool changes: an entry whose backend is not eligible is passed over and written anew.
type stickyTable struct {
	ttl  time.Duration
	sets []stickySet
}

// A stickySet is entries that are read without a lock. Who writes one first takes it, by setting its key to taken; a reader
// who finds the same key before and after has read what belongs together.
type stickySet struct {
	keys     [stickyWays]atomic.Uint64 // free, taken or a client's
	backends [stickyWays]atomic.Pointer[Backend]
	seen     [stickyWays]atomic.Int64 // when the client came last, on the pool's clock
}

// Keys below the first client's.
const (
	stickyFree uint64 = iota
	stickyTaken
	stickyReserved
)

func newStickyTable(ttl time.Duration, entries int) *stickyTable {
	return &stickyTable{ttl: ttl, sets: make([]stickySet, (entries+stickyWays-1)/stickyWays)}
}

// set returns the set of a client and its key there.
func (t *stickyTable) set(client uint64) (*stickySet, uint64) {
	at, _ := bits.Mul64(algo.Mix(client), uint64(len(t.sets)))
	if client < stickyReserved {
		client += stickyReserved
	}
	return &t.sets[at], client
}

// backend returns the client's backend, or nil when it has none or has not come for too long.
func (t *stickyTable) backend(client uint64, now time.Duration) *Backend {
	s, key := t.set(client)
	for i := range s.keys {
		if s.keys[i].Load() != key {
			continue
		}
		b, seen := s.backends[i].Load(), time.Duration(s.seen[i].Load())
		if s.keys[i].Load() == key && now-seen < t.ttl {
			return b
		}
		return nil
	}
	return nil
}

// remember notes that the client has this backend now. When another thread has the entry in hand, it is left.
func (t *stickyTable) remember(client uint64, b *Backend, now time.Duration) {
	s, key := t.set(client)
	way, was := s.way(key, now-t.ttl)
	if was == key && s.backends[way].Load() == b {
		s.seen[way].Store(int64(now))
		return
	}
	if was == stickyTaken || !s.keys[way].CompareAndSwap(was, stickyTaken) {
		return
	}
	s.backends[way].Store(b)
	s.seen[way].Store(int64(now))
	s.keys[way].Store(key)
}

// way returns the client's entry; if it has none a free or expired one, or else the one not seen for longest.
func (s *stickySet) way(key uint64, expired time.Duration) (way int, was uint64) {
	oldest := int64(1<<63 - 1)
	for i := range s.keys {
		k, seen := s.keys[i].Load(), s.seen[i].Load()
		switch {
		case k == key:
			return i, k
		case k == stickyTaken:
			continue
		case k == stickyFree:
			seen = -1 << 63
		case time.Duration(seen) <= expired:
			seen -= 1 << 62 // before all that are still good
		}
		if seen < oldest {
			way, was, oldest = i, k, seen
		}
	}
	if oldest == 1<<63-1 {
		return 0, stickyTaken
	}
	return way, was
}
