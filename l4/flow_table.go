package l4

import (
	"hash/maphash"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A flowID is what tells the flows of a door apart: who sent the datagram, and which address of ours it was sent to. IPv4
// addresses are in their form mapped into IPv6: 192.0.2.1 is one client whatever socket its datagrams come by.
type flowID struct {
	client, local [16]byte
	scope         uint32 // the interface of a link-local client
	port          uint32
}

func idOf(peer *sock.Peer, local *sock.Local) flowID {
	addr, scope := peer.Addr16()
	return flowID{client: addr, local: local.Addr16(), scope: scope, port: uint32(peer.Port())}
}

// A flowTable finds flows by their id: open addressing with linear probing, at most three quarters full. It is used onLoop only; its zero
// value is empty and ready.
//
// A Go map of ids to pointers takes 2.2 times as long for a lookup among 10,000 (BenchmarkFlowTable), as it hashes and compares
// 40 bytes where this one compares 32 bits of the hash first, and it lets entries be larger than a cache line.
type flowTable struct {
	seed    maphash.Seed // of its own: nobody outside can choose addresses that collide
	entries []flowEntry  // a power of two of them
	used    int
}

// A flowEntry is a flow with its hash; without a flow it is free.
type flowEntry struct {
	flow *flow
	hash uint32
}

const leastEntries = 64

// hash is the hash that the methods want of an id.
func (t *flowTable) hash(id *flowID) uint32 {
	if t.entries == nil {
		t.seed, t.entries = maphash.MakeSeed(), make([]flowEntry, leastEntries)
	}
	return uint32(maphash.Comparable(t.seed, *id))
}

// find returns the flow of an id, the first if several have it (ByPacket), nil if none has.
func (t *flowTable) find(id *flowID, hash uint32) *flow {
	mask := uint32(len(t.entries) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := &t.entries[i]
		if e.flow == nil {
			return nil
		}
		if e.hash == hash && e.flow.id == *id {
			return e.flow
		}
	}
}

// insert puts a flow in whose id no other in the table has.
func (t *flowTable) insert(f *flow) {
	if t.used >= len(t.entries)/4*3 {
		t.grow()
	}
	t.used++
	t.place(flowEntry{f, f.hash})
}

func (t *flowTable) place(e flowEntry) {
	mask := uint32(len(t.entries) - 1)
	i := e.hash & mask
	for t.entries[i].flow != nil {
		i = (i + 1) & mask
	}
	t.entries[i] = e
}

func (t *flowTable) grow() {
	old := t.entries
	t.entries = make([]flowEntry, 2*len(old))
	for _, e := range old {
		if e.flow != nil {
			t.place(e)
		}
	}
}

// replace puts a flow where another of the same id is.
func (t *flowTable) replace(old, f *flow) { t.entries[t.at(old)].flow = f }

// remove takes a flow out that is in.
func (t *flowTable) remove(f *flow) {
	t.used--
	mask := uint32(len(t.entries) - 1)
	hole := t.at(f)
	// What stands behind the hole and would not be found across it moves up.
	for i := (hole + 1) & mask; t.entries[i].flow != nil; i = (i + 1) & mask {
		home := t.entries[i].hash & mask
		if (i-home)&mask >= (i-hole)&mask {
			t.entries[hole] = t.entries[i]
			hole = i
		}
	}
	t.entries[hole] = flowEntry{}
}

// at is where a flow that is in the table stands.
func (t *flowTable) at(f *flow) uint32 {
	mask := uint32(len(t.entries) - 1)
	i := f.hash & mask
	for t.entries[i].flow != f {
		i = (i + 1) & mask
	}
	return i
}

// flowChunk is how many flows are allocated at once.
const flowChunk = 128

// A flowStore is the memory of a loop's flows, found by the index that an event carries. Flows never move; a slot's generation tells its
// users apart. It is used onLoop only; its zero value is ready.
type flowStore struct {
	chunks []*[flowChunk]flow
	free   *flow
}

// take returns a slot in its zero state but for index, generation and the capacity of header.
func (s *flowStore) take() *flow {
	if s.free == nil {
		chunk := new([flowChunk]flow)
		base := uint32(len(s.chunks) * flowChunk)
		s.chunks = append(s.chunks, chunk)
		for i := flowChunk - 1; i >= 0; i-- {
			f := &chunk[i]
			f.index, f.next = base+uint32(i), s.free
			s.free = f
		}
	}
	f := s.free
	s.free, f.next = f.next, nil
	return f
}

// give takes a slot back; its generation ends here.
func (s *flowStore) give(f *flow) {
	*f = flow{index: f.index, generation: f.generation + 1, header: f.header[:0], next: s.free}
	s.free = f
}

// at returns the slot of an index that take has given out.
func (s *flowStore) at(index uint32) *flow { return &s.chunks[index/flowChunk][index%flowChunk] }

// some does for flows what table.some does for sessions.
func (s *flowStore) some(from int, f func(*flow)) int {
	to := min(from+sliceChunks, len(s.chunks))
	for _, chunk := range s.chunks[min(from, to):to] {
		for i := range chunk {
			if chunk[i].door != nil {
				f(&chunk[i])
			}
		}
	}
	if to == len(s.chunks) {
		return -1
	}
	return to
}

// all calls f for every flow there is. f may end the flow it is given.
func (s *flowStore) all(f func(*flow)) {
	for next := 0; next >= 0; {
		next = s.some(next, f)
	}
}
