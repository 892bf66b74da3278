package pool

import (
	"net/netip"
	"slices"

	"github.com/limeload/limeload-l4/algo"
)

// A PickContext describes the session or flow that a backend is picked for. The zero value is usable: an unknown
// client's first try.
type PickContext struct {
	Client netip.AddrPort
	// Name is the NameKey of what the session has named itself, as Options.NamedBy says; 0 if it has no name. It counts
	// with Options.HashName and Options.StickyName only.
	Name uint32
	// Tried are the backends that this session has failed on; they are not picked again. Pick does not keep the slice.
	Tried []*Backend
}

// A NameKind is what a session's name is.
type NameKind uint8

// The kinds of names.
const (
	ServerName   NameKind = iota // the server name in the client's TLS ClientHello, in lower case
	MQTTClientID                 // the client identifier in the client's MQTT CONNECT
)

// NameKey returns the key of a name for a PickContext: a hash that is the same on every machine, and never 0. It may be
// called from any goroutine, and allocates nothing.
func NameKey(name []byte) uint32 { return algo.HashName(name) }

// Pick chooses an eligible backend and returns a lease on it, which must be released exactly once. The error is
// ErrNoBackend or ErrBusy; after ErrBusy the session may Wait.
//
// It may be called from any goroutine and takes no lock: it loads one pointer, asks the picker and adds to one counter
// (BenchmarkPick; a test holds that it allocates nothing). It never returns a backend that was made ineligible before
// the call began, and never exceeds a backend's limit or rate. A rate costs a reading of the clock and one more counter,
// and a lock when it is used up and when it allows a lease again.
func (p *Pool) Pick(pc PickContext) (Lease, error) {
	if p.queue.waiting.Load() > 0 {
		return Lease{}, p.counts.refused(p.snap.Load().behindWaiters(pc.Tried))
	}
	s := p.snap.Load()
	l, err := s.pick(&pc)
	if s.pacing != nil && p.queue.waiting.Load() > 0 {
		// A session that has come to wait meanwhile may have found a backend full only because of this pick, which then
		// gave the lease back; or this pick may have made a backend usable and not taken it.
		p.queue.serve()
	}
	if err != nil {
		return l, p.counts.refused(err)
	}
	return l, nil
}

// behindWaiters returns the error of a newcomer while others wait. It is ErrBusy, since they go first, or ErrNoBackend
// if the newcomer would wait in vain: no backend is eligible, or it has tried them all.
func (s *snapshot) behindWaiters(tried []*Backend) error {
	if len(s.tiers) == 0 && len(s.trials) == 0 || s.exhausted(tried) {
		return ErrNoBackend
	}
	return ErrBusy
}

// pick is Pick without regard for sessions that wait.
func (s *snapshot) pick(pc *PickContext) (Lease, error) {
	if s.moving {
		s.advance()
	}
	if s.settings.sticky != nil {
		return s.pickSticky(pc)
	}
	if len(s.trials) > 0 {
		l, _, err := s.decide(pc, nil)
		return l, err
	}
	return s.pickAnew(s.tiers, pc) // the same as decide would do, a nanosecond faster
}

// advance brings what depends on the time up to now: weights that grow, and backends that were over their rates.
func (s *snapshot) advance() {
	if s.slow != nil {
		s.slow.grow(s.settings.Clock)
	}
	if s.pacing != nil {
		s.pacing.advance()
	}
}

// pickSticky picks with regard to the backend that the client, or its name, last had, and remembers the one picked.
func (s *snapshot) pickSticky(pc *PickContext) (Lease, error) {
	t := s.settings.sticky
	key, now := s.settings.stickyKey(pc), s.settings.Clock()
	l, _, err := s.decide(pc, t.backend(key, now))
	if err == nil && l.trial == 0 {
		t.remember(key, l.b, now)
	}
	return l, err
}

// decide is the whole decision of Pick and Explain: first a trial, then last, the backend that the client had (nil:
// none is remembered), then the algorithm. It returns which of them decided.
func (s *snapshot) decide(pc *PickContext, last *Backend) (Lease, Decider, error) {
	if len(s.trials) > 0 {
		if b, grant := s.trial(pc); b != nil {
			return Lease{b: b, trial: grant}, ByTrial, nil
		}
	}
	if last != nil {
		if l, by := s.pickAgain(pc, last); by != ByNothing {
			return l, by, nil
		}
	}
	l, err := s.pickAnew(s.tiers, pc)
	if err != nil {
		return l, ByNothing, err
	}
	return l, ByAlgorithm, nil
}

// pickAnew asks the tiers in order until one has a backend.
func (s *snapshot) pickAnew(tiers []*tier, pc *PickContext) (Lease, error) {
	key := s.settings.key(pc)
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

// pickAgain returns the client to last, the backend that it had, unless that is not eligible, full, over its rate or
// tried already, or a better tier can serve. So a client stays with a stand-in only until a better tier serves again.
// ByNothing says that the client needs a new pick.
func (s *snapshot) pickAgain(pc *PickContext, last *Backend) (Lease, Decider) {
	if !last.inUse.Load() || slices.Contains(pc.Tried, last) {
		return Lease{}, ByNothing
	}
	better := 0
	for better < len(s.tiers) && s.tiers[better].group.tier < last.tier {
		better++
	}
	if better > 0 {
		if l, err := s.pickAnew(s.tiers[:better], pc); err == nil {
			return l, ByAlgorithm
		}
	}
	if !last.load.TryAcquire() || !last.withinRate() {
		return Lease{}, ByNothing
	}
	return Lease{b: last}, BySticky
}

// stickyKey returns the hash under which the sticky table has the session's backend, of its name or the client.
func (s *settings) stickyKey(pc *PickContext) uint64 {
	if s.StickyName && pc.Name != 0 {
		return algo.Mix(uint64(pc.Name))
	}
	return algo.HashAddr(pc.Client.Addr())
}

// key returns the hash that the hashing algorithms use, of the session's name or the client.
func (s *settings) key(pc *PickContext) uint64 {
	if s.HashName && pc.Name != 0 {
		return algo.Mix(uint64(pc.Name))
	}
	key := algo.HashAddr(pc.Client.Addr())
	if s.HashPort {
		key = algo.Mix(key ^ uint64(pc.Client.Port()))
	}
	return key
}

// acquireTries bounds how often a pick is repeated because its backend became full between the choice and the lease.
const acquireTries = 4

// pick returns a backend of the tier with a lease on it, or nil and whether an untried one is full.
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
		if b.load.TryAcquire() && b.withinRate() {
			return b, false
		}
	}
	return t.leftOver(s, key, pc.Tried)
}

// leftOver takes a lease on any untried backend that still has room, or returns nil and whether there is one without
// room. It serves a pick that has lost the race for a place several times: first and least_conn send all concurrent
// picks to the same backend. Without it, one pick of first in 160 found all full, with eight threads and a fifth of the
// places free. It begins at an index that the key selects, unless the algorithm goes by the order of backends.
func (t *tier) leftOver(s *settings, key uint64, tried []*Backend) (b *Backend, full bool) {
	n := len(t.backends)
	at := int(key % uint64(n))
	if s.ordered {
		at = 0
	}
	for range n {
		if b := t.backends[at]; !slices.Contains(tried, b) {
			if b.load.TryAcquire() && b.withinRate() {
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
// It asks the picker twice more, since that respects weights and loads. But a picker may insist: for least_conn, a
// backend that refuses every connection always has the fewest leases. Then a hash of the client chooses, evenly among
// all untried backends; taking the next one in order would send all sessions of a dead backend to its neighbour. The
// hash includes the client's port, since all sessions may come from one address. If the algorithm goes by the order of
// backends, the order is kept.
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
	return nil // the backends with room have filled up meanwhile
}
