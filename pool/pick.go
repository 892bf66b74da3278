package pool

import (
	"net/netip"
	"slices"

	"github.com/limeload/limeload-l4/algo"
)

// A PickContext says for whom a backend is picked. The zero value is usable: an unknown client's first try.
type PickContext struct {
	Client netip.AddrPort
	// backends that failed this session already; they are not picked again. Pick does not keep the slice
	Tried []*Backend
}

// Pick chooses an eligible backend and returns a lease on it, to be released exactly once. The error is ErrNoBackend,
// or ErrBusy, after which the session may Wait.
//
// It may be called from any goroutine and takes no lock: it loads one pointer, asks the picker and adds to one counter
// (BenchmarkPick; that it allocates nothing is a test). A backend that was made ineligible before the call began is not
// returned, and never has a backend more leases than its limit.
func (p *Pool) Pick(pc PickContext) (Lease, error) {
	if p.queue.waiting.Load() > 0 {
		return Lease{}, p.counts.refused(p.snap.Load().behindWaiters(pc.Tried))
	}
	l, err := p.pick(&pc)
	if err != nil {
		return l, p.counts.refused(err)
	}
	return l, nil
}

// behindWaiters is why a newcomer gets no backend while others wait: they go first or, when none is eligible or it has
// tried all there are, it would wait in vain.
func (s *snapshot) behindWaiters(tried []*Backend) error {
	if len(s.tiers) == 0 && len(s.trials) == 0 || s.exhausted(tried) {
		return ErrNoBackend
	}
	return ErrBusy
}

// pick is Pick, also for those who wait.
func (p *Pool) pick(pc *PickContext) (Lease, error) {
	s := p.snap.Load()
	if s.slow != nil {
		s.slow.grow(s.settings.Clock)
	}
	if s.settings.sticky != nil {
		return s.pickSticky(pc)
	}
	if len(s.trials) > 0 {
		l, _, err := s.decide(pc, nil)
		return l, err
	}
	return s.pickAnew(s.tiers, pc) // which is what decide comes to, a nanosecond sooner
}

// pickSticky decides with what is remembered of the client, and remembers what came of it.
func (s *snapshot) pickSticky(pc *PickContext) (Lease, error) {
	t := s.settings.sticky
	client, now := algo.HashAddr(pc.Client.Addr()), s.settings.Clock()
	l, _, err := s.decide(pc, t.backend(client, now))
	if err == nil && l.trial == 0 {
		t.remember(client, l.b, now)
	}
	return l, err
}

// decide is the whole decision, also Explain's: a trial goes first, then the client's home, the backend that it is
// remembered to have had (nil is none), then the algorithm. It returns who decided.
func (s *snapshot) decide(pc *PickContext, home *Backend) (Lease, Decider, error) {
	if len(s.trials) > 0 {
		if b, grant := s.trial(pc); b != nil {
			return Lease{b: b, trial: grant}, ByTrial, nil
		}
	}
	if home != nil {
		if l, by := s.pickAgain(pc, home); by != ByNothing {
			return l, by, nil
		}
	}
	l, err := s.pickAnew(s.tiers, pc)
	if err != nil {
		return l, ByNothing, err
	}
	return l, ByAlgorithm, nil
}

// pickAnew asks the tiers, each after all that come before it.
func (s *snapshot) pickAnew(tiers []*tier, pc *PickContext) (Lease, error) {
	key := s.settings.key(pc.Client)
	err := ErrNoBackend
	for _, t := range tiers {
		b, full := t.pick(s.settings, key, pc)
		if b != nil {
			return Lease{b: b}, nil
		}
		if full {
			err = ErrBusy
		}
	}
	return Lease{}, err
}

// pickAgain returns the client to its home, unless that is not eligible, full or tried already, or a better tier can
// serve: who was sent to a stand-in goes home when that is possible again, and until then stays with it. ByNothing is
// that it has to be picked anew.
func (s *snapshot) pickAgain(pc *PickContext, home *Backend) (Lease, Decider) {
	if !home.inUse.Load() || slices.Contains(pc.Tried, home) {
		return Lease{}, ByNothing
	}
	better := 0
	for better < len(s.tiers) && s.tiers[better].group.tier < home.tier {
		better++
	}
	if better > 0 {
		if l, err := s.pickAnew(s.tiers[:better], pc); err == nil {
			return l, ByAlgorithm
		}
	}
	if !home.load.TryAcquire() {
		return Lease{}, ByNothing
	}
	return Lease{b: home}, BySticky
}

// key is what the hashing algorithms go by.
func (s *settings) key(client netip.AddrPort) uint64 {
	key := algo.HashAddr(client.Addr())
	if s.HashPort {
		key = algo.Mix(key ^ uint64(client.Port()))
	}
	return key
}

// acquireTries is how often a pick is repeated whose backend became full between the choice and the lease.
const acquireTries = 4

// pick returns a backend of the tier with a lease on it, or nil and whether one that was not tried is full.
func (t *tier) pick(s *settings, key uint64, pc *PickContext) (b *Backend, full bool) {
	for range acquireTries {
		i := t.picker.Pick(key)
		if i < 0 {
			return nil, t.someUntried(pc.Tried)
		}
		b := t.backends[i]
		if len(pc.Tried) != 0 && slices.Contains(pc.Tried, b) {
			if b = t.untried(s, key, pc); b == nil {
				break
			}
		}
		if b.load.TryAcquire() {
			return b, false
		}
	}
	return t.leftOver(s, key, pc.Tried)
}

// leftOver takes a lease on any untried backend that still has room, or returns nil and whether there is one without.
// It is for a pick that others forestalled again and again: first and least_conn send all who ask at once to the same
// backend, and without it one pick of first in 160 was told that all are full, with eight threads and a fifth of the
// places free. It begins where the key says, unless the order is the point.
func (t *tier) leftOver(s *settings, key uint64, tried []*Backend) (b *Backend, full bool) {
	n := len(t.backends)
	at := int(key % uint64(n))
	if s.ordered {
		at = 0
	}
	for range n {
		if b := t.backends[at]; !slices.Contains(tried, b) {
			if b.load.TryAcquire() {
				return b, false
			}
			full = true
		}
		if at++; at == n {
			at = 0
		}
	}
	return nil, full
}

func (t *tier) someUntried(tried []*Backend) bool {
	return len(tried) == 0 || slices.ContainsFunc(t.backends, func(b *Backend) bool {
		return !slices.Contains(tried, b)
	})
}

// untried finds a backend with room that the session has not tried, or nil.
//
// It asks the picker twice more, which keeps to weights and loads. A picker may insist, though: to least_conn a backend
// that refuses every connection is always the one with the fewest leases. Then the client decides, evenly among all
// that are untried; to take the next one after a tried one would send all sessions of a dead backend to its neighbour.
// The client's port counts here, since all sessions may come from one address. Only where the order is the point, it is
// kept.
func (t *tier) untried(s *settings, key uint64, pc *PickContext) *Backend {
	const furtherAsks = 2
	for attempt := range uint64(furtherAsks) {
		i := t.picker.Pick(algo.Mix(key + attempt))
		if i >= 0 && !slices.Contains(pc.Tried, t.backends[i]) {
			return t.backends[i]
		}
	}
	var left uint64
	for _, b := range t.backends {
		if !slices.Contains(pc.Tried, b) && !b.load.Full() {
			left++
		}
	}
	if left == 0 {
		return nil
	}
	skip := algo.Mix(key+uint64(pc.Client.Port())) % left
	if s.ordered {
		skip = 0
	}
	for _, b := range t.backends {
		if slices.Contains(pc.Tried, b) || b.load.Full() {
			continue
		}
		if skip == 0 {
			return b
		}
		skip--
	}
	return nil // those with room filled up meanwhile
}
