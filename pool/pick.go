package pool

import (
	"net/netip"
	"slices"

	"github.com/limeload/limeload-l4/algo"
)

// A PickContext says for whom a backend is picked. The zero value is usable: an unknown client's first try.
type PickContext struct {
	Client netip.AddrPort
	Tried  []*Backend // backends that failed this session already; they are not picked again. Pick does not keep the slice
}

// Pick chooses an eligible backend and returns a lease on it, to be released exactly once, or ErrNoBackend.
// It may be called from any goroutine and takes no lock: it loads one pointer, asks the picker and adds to one counter
// (BenchmarkPick; that it allocates nothing is a test).
func (p *Pool) Pick(pc PickContext) (Lease, error) {
	s := p.snap.Load()
	if len(s.eligible) == 0 {
		return Lease{}, ErrNoBackend
	}
	key := algo.HashAddr(pc.Client.Addr())
	b := s.eligible[s.picker.Pick(key)]
	if len(pc.Tried) != 0 && slices.Contains(pc.Tried, b) {
		if b = s.untried(key, pc); b == nil {
			return Lease{}, ErrNoBackend
		}
	}
	b.load.Acquire()
	return Lease{b: b}, nil
}

// untried finds a backend the session has not tried, or nil.
//
// It asks the picker twice more, which keeps to weights and loads. A picker may insist, though: to least_conn a backend
// that refuses every connection is always the one with the fewest leases. Then the client decides, evenly among all that
// are untried; to take the next one after a tried one would send all sessions of a dead backend to its neighbour. The
// client's port counts here, since all sessions may come from one address.
func (s *snapshot) untried(key uint64, pc PickContext) *Backend {
	const furtherAsks = 2
	for attempt := range uint64(furtherAsks) {
		b := s.eligible[s.picker.Pick(algo.Mix(key+attempt))]
		if !slices.Contains(pc.Tried, b) {
			return b
		}
	}
	var left uint64
	for _, b := range s.eligible {
		if !slices.Contains(pc.Tried, b) {
			left++
		}
	}
	if left == 0 {
		return nil
	}
	skip := algo.Mix(key+uint64(pc.Client.Port())) % left
	for _, b := range s.eligible {
		if slices.Contains(pc.Tried, b) {
			continue
		}
		if skip == 0 {
			return b
		}
		skip--
	}
	panic("pool: an untried backend was counted and not found")
}
