package pool

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// stickyWays is how many entries share a set: a client is looked for in one set only, two cache lines of keys, and
// there competes with these.
const stickyWays = 16

// A stickyTable remembers which backend a client had, by a hash of its address: bounded, without a lock and without a
// goroutine that clears it. Two clients of one hash, one pair in 2^64, share an entry, and so a backend.
//
// It is not emptied when the pool changes: an entry whose backend is not eligible is passed over and written anew.
type stickyTable struct {
	ttl  time.Duration
	sets []stickySet
}

// A stickySet is entries that are read without a lock. Who writes one first takes it, by setting its key to taken; a
// reader who finds the same key before and after has read what belongs together.
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

// resized returns a table of another time and number of entries with what t remembers, or t itself when it is one. Of
// clients that compete for too few entries those seen last remain.
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

// takeOver remembers what other does, as far as there is room. Both tables may be in use.
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

// adopt notes what another table knows of the client with that key there, unless this one knows it, or needs the room
// for clients that came later.
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

// stickySets is how many sets have room for so many entries.
func stickySets(entries int) int { return (entries + stickyWays - 1) / stickyWays }

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
	s.write(way, was, key, b, int64(now))
}

// write makes an entry another one, unless another thread has it in hand.
func (s *stickySet) write(way int, was, key uint64, b *Backend, seen int64) {
	if was == stickyTaken || !s.keys[way].CompareAndSwap(was, stickyTaken) {
		return
	}
	s.backends[way].Store(b)
	s.seen[way].Store(seen)
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
