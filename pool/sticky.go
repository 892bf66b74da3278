package pool

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// stickyWays is how many entries a set has. A client has its place in one set only, two cache lines of keys, and
// competes with the other clients there.
const stickyWays = 16

// A stickyTable remembers the backend of each client, by a hash of the client's address or of its session's name. It is
// bounded, takes no lock and needs no goroutine to clear it. Two clients with the same hash share an entry and so a
// backend: one pair in 2^64, of names one in 2^32.
//
// It is not emptied when the pool changes: an entry whose backend is not eligible is ignored and overwritten.
type stickyTable struct {
	ttl  time.Duration
	sets []stickySet
}

// A stickySet has entries that are read without a lock. A writer first takes an entry by setting its key to taken. A
// reader that finds the same key before and after has read values that belong together.
type stickySet struct {
	keys     [stickyWays]atomic.Uint64 // free, taken or a client's
	backends [stickyWays]atomic.Pointer[Backend]
	seen     [stickyWays]atomic.Int64 // when the client last came, on the pool's clock
}

// Special keys; those of clients are above them.
const (
	stickyFree uint64 = iota
	stickyTaken
	stickyReserved
)

// resized returns a table with this ttl and number of entries that has the clients of t, or t itself if it fits. If
// there is not room for all, the most recently seen clients remain.
func (t *stickyTable) resized(ttl time.Duration, entries int, now time.Duration) *stickyTable {
	if stickySets(entries) == len(t.sets) {
		if ttl == t.ttl {
			return t
		}
		return &stickyTable{ttl: ttl, sets: t.sets}
	}
	r := newStickyTable(ttl, entries)
	r.takeOver(t, now)
	return r
}

// takeOver adds the clients of other, as far as there is room. Both tables may be in use.
func (t *stickyTable) takeOver(other *stickyTable, now time.Duration) {
	if len(t.sets) == len(other.sets) && &t.sets[0] == &other.sets[0] {
		return
	}
	for i := range other.sets {
		s := &other.sets[i]
		for way := range s.keys {
			key := s.keys[way].Load()
			b, seen := s.backends[way].Load(), s.seen[way].Load()
			if key >= stickyReserved && s.keys[way].Load() == key {
				t.adopt(key, b, seen, now)
			}
		}
	}
}

// adopt adds the client of an entry of another table, unless this table has the client already or needs the room for
// clients that came later.
func (t *stickyTable) adopt(key uint64, b *Backend, seen int64, now time.Duration) {
	expired := now - t.ttl
	if time.Duration(seen) <= expired {
		return
	}
	s, key := t.set(key)
	way, was := s.way(key, expired)
	if was == key || was >= stickyReserved && s.seen[way].Load() >= seen {
		return
	}
	s.write(way, was, key, b, seen)
}

// len returns how many clients are remembered at now.
func (t *stickyTable) len(now time.Duration) (n int) {
	for i := range t.sets {
		s := &t.sets[i]
		for way := range s.keys {
			if s.keys[way].Load() >= stickyReserved && now-time.Duration(s.seen[way].Load()) < t.ttl {
				n++
			}
		}
	}
	return n
}

func newStickyTable(ttl time.Duration, entries int) *stickyTable {
	return &stickyTable{ttl: ttl, sets: make([]stickySet, stickySets(entries))}
}

// stickySets returns how many sets are needed for that many entries.
func stickySets(entries int) int { return (entries + stickyWays - 1) / stickyWays }

// set returns the set of a client and its key there.
func (t *stickyTable) set(client uint64) (*stickySet, uint64) {
	at, _ := bits.Mul64(algo.Mix(client), uint64(len(t.sets)))
	if client < stickyReserved {
		client += stickyReserved
	}
	return &t.sets[at], client
}

// backend returns the client's backend, or nil if it has none or its entry has expired.
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

// remember records b as the client's backend. It does nothing while another thread writes the entry.
func (t *stickyTable) remember(client uint64, b *Backend, now time.Duration) {
	s, key := t.set(client)
	way, was := s.way(key, now-t.ttl)
	if was == key && s.backends[way].Load() == b {
		s.seen[way].Store(int64(now))
		return
	}
	s.write(way, was, key, b, int64(now))
}

// write replaces an entry, unless another thread writes it.
func (s *stickySet) write(way int, was, key uint64, b *Backend, seen int64) {
	if was == stickyTaken || !s.keys[way].CompareAndSwap(was, stickyTaken) {
		return
	}
	s.backends[way].Store(b)
	s.seen[way].Store(seen)
	s.keys[way].Store(key)
}

// way returns the index of the client's entry. If it has none, that of a free or expired entry, or else of the least
// recently seen one.
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
			seen -= 1 << 62 // older than all that have not expired
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
