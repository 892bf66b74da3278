package l4

import (
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
