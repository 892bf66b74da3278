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

// Pick chooses an eligible backend and returns a lease on it, to be released exactly once. The error is ErrNoBackend, or
// ErrBusy, after which the session may Wait.
//
// It may be called from any goroutine and takes no lock: it loads one pointer, asks the picker and adds to one counter
// (BenchmarkPick; that it allocates nothing is a test). A backend that was made ineligible before the call began is not
// returned, and never has a backend more leases than its limit.
func (p *Pool) Pick(pc PickContext) (Lease, error) {
	if p.queue.waiting.Load() > 0 {
		return Lease{}, ErrBusy
	}
	return p.pick(&pc)
}

// pick is Pick, also for those who wait.
func (p *Pool) pick(pc *PickContext) (Lease, error) {
	s := p.snap.Load()
	if s.slow != nil {
		s.slow.grow(p.o.Clock)
	}
	if len(s.trials) > 0 {
		if b := s.trial(pc); b != nil {
			return Lease{b: b, trial: true}, nil
		}
	}
	if p.sticky != nil && len(s.tiers) > 0 {
		return p.pickSticky(s, pc)
	}
	return p.pickAnew(s, pc)
}

// pickAnew asks the tiers, each after all that come before it.
func (p *Pool) pickAnew(s *snapshot, pc *PickContext) (Lease, error) {
	key := p.key(pc.Client)
	err := ErrNoBackend
	for _, t := range s.tiers {
		b, full := t.pick(p, key, pc)
		if b != nil {
			return Lease{b: b}, nil
		}
		if full {
			err = ErrBusy
		}
	}
	return Lease{}, err
}

// pickSticky returns the client to its backend, unless that is not eligible, full or tried already, or there is an eligible
// one of a better tier: who was sent to a stand-in goes home when that is possible again.
func (p *Pool) pickSticky(s *snapshot, pc *PickContext) (Lease, error) {
	client, now := algo.HashAddr(pc.Client.Addr()), p.o.Clock()
	b := p.sticky.backend(client, now)
	if b == nil || !b.inUse.Load() || b.group.tier > s.tiers[0].group.tier || slices.Contains(pc.Tried, b) || !b.load.TryAcquire() {
		l, err := p.pickAnew(s, pc)
		if err != nil {
			return l, err
		}
		b = l.b
	}
	p.sticky.remember(client, b, now)
	return Lease{b: b}, nil
}

// key is what the hashing algorithms go by.
func (p *Pool) key(client netip.AddrPort) uint64 {
	key := algo.HashAddr(client.Addr())
	if p.o.HashPort {
		key = algo.Mix(key ^ uint64(client.Port()))
	}
	return key
}

// acquireTries is how often a pick is repeated whose backend became full between the choice and the lease.
const acquireTries = 4

// pick returns a backend of the tier with a lease on it, or nil and whether one that was not tried is full.
func (t *tier) pick(p *Pool, key uint64, pc *PickContext) (b *Backend, full bool) {
	for range acquireTries {
		i := t.picker.Pick(key)
		if i < 0 {
			return nil, t.someUntried(pc.Tried)
		}
		b := t.backends[i]
		if len(pc.Tried) != 0 && slices.Contains(pc.Tried, b) {
			if b, full = t.untried(p, key, pc); b == nil {
				return nil, full
			}
		}
		if b.load.TryAcquire() {
			return b, false
		}
	}
	return nil, true
}

func (t *tier) someUntried(tried []*Backend) bool {
	return len(tried) == 0 || slices.ContainsFunc(t.backends, func(b *Backend) bool { return !slices.Contains(tried, b) })
}

// untried finds a backend with room that the session has not tried, or nil and whether there is one without room.
//
// It asks the picker twice more, which keeps to weights and loads. A picker may insist, though: to least_conn a backend
// that refuses every connection is always the one with the fewest leases. Then the client decides, evenly among all that
// are untried; to take the next one after a tried one would send all sessions of a dead backend to its neighbour. The
// client's port counts here, since all sessions may come from one address. Only where the order is the point, it is kept.
func (t *tier) untried(p *Pool, key uint64, pc *PickContext) (b *Backend, full bool) {
	const furtherAsks = 2
	for attempt := range uint64(furtherAsks) {
		i := t.picker.Pick(algo.Mix(key + attempt))
		if i >= 0 && !slices.Contains(pc.Tried, t.backends[i]) {
			return t.backends[i], false
		}
	}
	var left uint64
	for _, b := range t.backends {
		switch {
		case slices.Contains(pc.Tried, b):
		case b.load.Full():
			full = true
		default:
			left++
		}
	}
	if left == 0 {
		return nil, full
	}
	skip := algo.Mix(key+uint64(pc.Client.Port())) % left
	if p.ordered {
		skip = 0
	}
	for _, b := range t.backends {
		if slices.Contains(pc.Tried, b) || b.load.Full() {
			continue
		}
		if skip == 0 {
			return b, false
		}
		skip--
	}
	return nil, true // those with room filled up meanwhile
}
