package dnscache

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// storedKey returns the key of a name of one label.
func storedKey(name string) []byte {
	return []byte(fmt.Sprintf("%c%s\x00\x00\x01\x01", len(name), name))
}

func newTestEntry(seed maphash.Seed, name string, bytes int, dead time.Duration) *entry {
	key := storedKey(name)
	data := make([]byte, max(bytes-entryBytes, len(key)))
	copy(data, key)
	return &entry{data: data, hash: maphash.Bytes(seed, key), keyLen: uint16(len(key)), nameLen: uint16(len(name) + 2),
		dead: dead, expires: dead}
}

// TestStoreHoldsItsBounds does random things with a store and checks its invariants: bounds, queues and table agree, a
// found entry has the key, nothing dead or removed returns.
func TestStoreHoldsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seed := maphash.MakeSeed()
		maxEntries := rapid.IntRange(1, 40).Draw(t, "entries")
		maxBytes := int64(rapid.IntRange(300, 20_000).Draw(t, "bytes"))
		s := newStore(maxEntries, maxBytes)
		newest := map[string]*entry{}
		var now time.Duration
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			name := rapid.StringMatching("[a-d]{1,3}").Draw(t, "name")
			key := storedKey(name)
			hash := maphash.Bytes(seed, key)
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				s.take(hash, key)
				delete(newest, name)
			case 1:
				n := 0
				if s.find(hash, key) != nil {
					n = 1
				}
				same := func(found []byte) bool { return string(found) == string(key[:len(name)+2]) }
				if removed := s.removeIf(same); removed != n {
					t.Fatalf("%d removed, expected %d", removed, n)
				}
				delete(newest, name)
			case 2:
				now += time.Duration(rapid.IntRange(0, 50).Draw(t, "seconds")) * time.Second
			case 3, 4, 5:
				if e := s.find(hash, key); e != nil {
					e.touch()
				}
			default:
				e := newTestEntry(seed, name, rapid.IntRange(0, 3000).Draw(t, "size"),
					now+time.Duration(rapid.IntRange(1, 100).Draw(t, "life"))*time.Second)
				if stored := s.put(e, now); stored != (e.bytes() <= maxBytes) {
					t.Fatalf("stored is %v for %d bytes of %d", stored, e.bytes(), maxBytes)
				} else if stored {
					newest[name] = e
					if s.find(hash, key) != e {
						t.Fatal("what was just stored is not there")
					}
				}
			}
			for name, e := range newest {
				if found := s.find(e.hash, storedKey(name)); found != nil && found != e {
					t.Fatalf("%s has an older entry", name)
				}
			}
			checkStore(t, s, maxEntries, maxBytes)
		}
	})
}

// checkStore checks that the table and the queues of a store agree.
func checkStore(t *rapid.T, s *store, maxEntries int, maxBytes int64) {
	entries, bytes := 0, int64(0)
	for i := range s.shards {
		sh := &s.shards[i]
		inTable := map[*entry]bool{}
		for slot := range sh.slots {
			for e := sh.slots[slot].Load(); e != nil; e = e.next.Load() {
				if inTable[e] || e.hash&sh.mask != uint64(slot) {
					t.Fatal("an entry stands twice or in the wrong slot")
				}
				inTable[e] = true
			}
		}
		queued := 0
		for _, q := range []*queue{&sh.small, &sh.main} {
			n, size := 0, int64(0)
			for e := q.newest; e != nil; e = e.older {
				if !inTable[e] || e.queue != q || e.older == nil && q.oldest != e {
					t.Fatal("a queue's entry is not in the table, or is linked wrongly")
				}
				n++
				size += e.bytes()
			}
			if n != q.entries || size != q.bytes {
				t.Fatalf("a queue of %d entries and %d bytes counts %d and %d", n, size, q.entries, q.bytes)
			}
			queued += n
			bytes += size
		}
		if queued != len(inTable) {
			t.Fatalf("%d entries in queues and %d in the table", queued, len(inTable))
		}
		entries += queued
	}
	if entries > maxEntries || bytes > maxBytes {
		t.Fatalf("%d entries and %d bytes, expected at most %d and %d", entries, bytes, maxEntries, maxBytes)
	}
}

// TestStoreKeepsWhatIsUsed checks that names in use survive a flood of names that are asked for once.
func TestStoreKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	const room, used = 10_000, 4000
	seed := maphash.MakeSeed()
	s := newStore(room, room*entryShare)
	use := func() (found int) {
		for i := range used {
			name := fmt.Sprintf("used%d", i)
			key := storedKey(name)
			if e := s.find(maphash.Bytes(seed, key), key); e != nil {
				e.touch()
				found++
				continue
			}
			s.put(newTestEntry(seed, name, 300, time.Hour), 0)
		}
		return found
	}
	for range 4 {
		use()
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 20 {
		for range room {
			s.put(newTestEntry(seed, fmt.Sprintf("x%d", random.Uint64()), 300, time.Hour), 0)
		}
		if found := use(); found < used*98/100 {
			t.Fatalf("round %d: %d of %d names in use are still there", round, found, used)
		}
	}
}

// TestStoreSweeps checks that new entries make the store remove dead ones, even if there is room.
func TestStoreSweeps(t *testing.T) {
	t.Parallel()
	seed := maphash.MakeSeed()
	s := newStore(1000, 1000*entryShare)
	for i := range 400 {
		s.put(newTestEntry(seed, fmt.Sprintf("old%d", i), 300, time.Minute), 0)
	}
	for i := range 520 { // at two slots each, 1024 slots
		s.put(newTestEntry(seed, fmt.Sprintf("new%d", i), 300, time.Hour), 2*time.Minute)
	}
	sh := &s.shards[0]
	if n := sh.small.entries + sh.main.entries; n != 520 || sh.expired != 400 || sh.evicted != 0 {
		t.Errorf("%d entries, %d expired, %d evicted, expected 520, 400 and none", n, sh.expired, sh.evicted)
	}
}

func TestStoreShards(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		entries int
		bytes   int64
		want    int
	}{
		{1, 1024, 1}, {1023, 1 << 30, 1}, {1024, 1 << 30, 2}, {100_000, 100_000 * entryShare, 64},
		{10_000_000, 1 << 34, 64}, {100_000, 4 * minShardBytes, 4},
	} {
		s := newStore(c.entries, c.bytes)
		entries, bytes := 0, int64(0)
		for i := range s.shards {
			entries += s.shards[i].maxEntries
			bytes += s.shards[i].maxBytes
		}
		if len(s.shards) != c.want || entries > c.entries || bytes > c.bytes {
			t.Errorf("%+v: %d shards for %d entries and %d bytes", c, len(s.shards), entries, bytes)
		}
		if s.shard(0) != &s.shards[0] || s.shard(^uint64(0)) != &s.shards[c.want-1] {
			t.Errorf("%+v: hashes do not reach all shards", c)
		}
	}
}

// TestStoreMakesRoomForTheLarge checks that a large entry that returns to the main queue gets the room of entries in
// the small queue, although these are within their share.
func TestStoreMakesRoomForTheLarge(t *testing.T) {
	t.Parallel()
	seed := maphash.MakeSeed()
	s := newStore(100, 100*300)
	large := func() *entry { return newTestEntry(seed, "large", 100*300, time.Hour) }
	s.put(large(), 0)
	s.put(newTestEntry(seed, "small", 300, time.Hour), 0) // evicts it; its ghost stays
	s.put(large(), 0)
	sh := &s.shards[0]
	if sh.main.entries != 1 || sh.small.entries != 0 || sh.evicted != 2 {
		t.Errorf("%d and %d entries, %d evicted, expected the large one alone, in the main queue", sh.main.entries,
			sh.small.entries, sh.evicted)
	}
}
