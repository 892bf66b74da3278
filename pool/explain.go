package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// A Decider is what decides which backend a client gets.
type Decider uint8

// The deciders.
const (
	ByNothing   Decider = iota // no backend can be picked
	ByAlgorithm                // the algorithm chose, among the candidates of the tier
	BySticky                   // the client returns to the backend that it had
	ByTrial                    // a half-open breaker lets the client try
)

// String returns the decider as a lower-case word.
func (d Decider) String() string {
	switch d {
	case ByNothing:
		return "nothing"
	case ByAlgorithm:
		return "algorithm"
	case BySticky:
		return "sticky"
	case ByTrial:
		return "trial"
	}
	return "decider(" + strconv.Itoa(int(d)) + ")"
}

// An Obstacle is why a backend cannot be picked.
type Obstacle uint8

// The obstacles. Of several that a backend has, the first of these counts.
const (
	InMaintenance   Obstacle = iota // its mode
	InDrain                         // its mode
	WithoutWeight                   // its weight is 0
	NotHealthy                      // its verdict is Unhealthy
	NotJudged                       // its verdict is Unknown
	InWrongRole                     // its verdict
	IsLagging                       // its verdict
	BreakerOpen                     // its breaker
	BreakerHalfOpen                 // its breaker, and it has no trial for this client
	WasTried                        // it failed this session already
	IsFull                          // it has as many sessions as it may
	BehindWaiters                   // those who wait for a backend go first
	NotOnTrial                      // the client goes to a trial of another one
	NotSticky                       // the client returns to another one
	InLaterTier                     // an earlier tier can serve
	InOtherZone                     // the zone that the pool prefers can serve
)

// String returns the obstacle as a lower-case word.
func (o Obstacle) String() string {
	words := [...]string{
		"maintenance", "drain", "weight_0", "unhealthy", "unknown", "wrong_role", "lagging", "breaker_open",
		"breaker_half_open",
		"tried", "full", "behind_waiters", "not_on_trial", "not_sticky", "later_tier", "other_zone",
	}
	if int(o) < len(words) {
		return words[o]
	}
	return "obstacle(" + strconv.Itoa(int(o)) + ")"
}

// OfVerdict reports whether it is the verdict that stands against the backend.
func (o Obstacle) OfVerdict() bool {
	return o == NotHealthy || o == NotJudged || o == InWrongRole || o == IsLagging
}

// A Candidate is a backend with what an algorithm goes by. It is a plain value.
type Candidate struct {
	ID          string
	Addr        netip.AddrPort
	Weight      uint32
	Share       float64 // the part of its weight that it has now, up to 1; less than 1 while it starts slowly
	Leases      int64
	MaxSessions int // 0 is without a limit
	Tier        int
	Zone        string
}

// A PassedOver is a backend that cannot be picked, and why. It is a plain value.
type PassedOver struct {
	Candidate
	Why    Obstacle
	Reason string // in words
}

// An Explanation is what a Pick would do at one moment, and the whole reason. It is a plain value.
type Explanation struct {
	Client    netip.AddrPort
	Key       uint64 // what algorithms that hash go by
	Algorithm string
	TriesAll  bool // no backend is healthy, and so all that are enabled are tried

	By        Decider
	Backend   string         // who would be picked; "" when nobody can be
	Addr      netip.AddrPort // its address
	Tier      int            // its tier
	Preferred bool           // it stands in the zone that the pool prefers, or the pool prefers none
	Err       error          // ErrNoBackend or ErrBusy; nil when somebody would be picked
	MayWait   bool           // after ErrBusy, and the queue has room
	Waiting   int            // who wait already

	// Deterministic is that the next Pick for this client does this, if nothing changes before it; else the algorithm
	// draws, and this is one draw among the candidates.
	Deterministic bool

	Candidates []Candidate  // among whom was decided; none with Err
	Others     []PassedOver // all other backends, in the pool's order
}

// Explain returns what Pick would do for the client at this moment, and why. It leaves no trace: no lease, no position
// moved on, no client remembered, no trial used, no refusal counted. It costs a copy of all backends and is not for the
// data path.
func (p *Pool) Explain(pc PickContext) Explanation {
	s := p.snap.Load()
	e := &explaining{r: s.replica()}
	e.x = Explanation{
		Client: pc.Client, Key: s.settings.key(pc.Client), Algorithm: s.settings.Algorithm, TriesAll: s.tryAll,
		Waiting: p.Waiting(),
	}
	e.pc = PickContext{Client: pc.Client, Tried: e.r.backends(pc.Tried)}
	if e.r.slow != nil {
		e.r.slow.grow(s.settings.Clock)
	}
	e.look(s)
	lease, by, err := Lease{}, ByNothing, s.behindWaiters(pc.Tried)
	if e.x.Waiting == 0 {
		lease, by, err = e.r.decide(&e.pc, e.r.home(&e.pc))
	}
	e.decided(s, lease.b, by, err)
	e.x.MayWait = err == ErrBusy && e.x.Waiting < s.settings.QueueMax
	return e.x
}

// explaining is an Explain under way.
type explaining struct {
	r        *replica
	pc       PickContext
	x        Explanation
	standing []standing // of each member
}

// A standing is how a backend stands before the decision.
type standing struct {
	Candidate
	backend *Backend // the replica's
	tier    int      // its index among the snapshot's, -1 when it is not eligible
	out     bool     // it cannot be picked, whatever is decided
	why     Obstacle
	reason  string
}

// look takes down how every backend stands.
func (e *explaining) look(s *snapshot) {
	tiers := make(map[*Backend]int, s.eligible)
	for i, t := range e.r.tiers {
		for _, b := range t.backends {
			tiers[b] = i
		}
	}
	for _, m := range s.members {
		b := e.r.of[m.backend]
		st := standing{backend: b, tier: -1, Candidate: Candidate{
			ID: b.id, Addr: b.addr, Weight: m.weight, Share: b.load.Share(), Leases: b.load.Leases(),
			MaxSessions: m.maxSessions,
			Tier:        b.tier, Zone: m.spec.Zone,
		}}
		if i, eligible := tiers[b]; eligible {
			st.tier = i
			switch {
			case slices.Contains(e.pc.Tried, b):
				st.out, st.why, st.reason = true, WasTried, "it failed this session already"
			case b.load.Full():
				st.out, st.why, st.reason = true, IsFull, fmt.Sprintf("it has %d of %d sessions",
					st.Leases, b.load.Limit())
			}
		} else {
			st.out = true
			st.why, st.reason = m.obstacle()
		}
		e.standing = append(e.standing, st)
	}
}

// obstacle is why a backend is not eligible.
func (m *member) obstacle() (Obstacle, string) {
	switch {
	case m.mode == Maintenance:
		return InMaintenance, "it is in maintenance"
	case m.mode == Drain:
		return InDrain, "it is drained"
	case m.weight == 0:
		return WithoutWeight, "its weight is 0"
	}
	switch m.verdict {
	case Unhealthy:
		return NotHealthy, m.reason
	case Unknown:
		return NotJudged, m.reason
	case WrongRole:
		return InWrongRole, m.reason
	case Lagging:
		return IsLagging, m.reason
	}
	if m.breaker == HalfOpen {
		return BreakerHalfOpen, "its trials are under way, or not for this client"
	}
	return BreakerOpen, "its sessions failed"
}

// decided takes down the decision, and why it was not for the others.
func (e *explaining) decided(s *snapshot, b *Backend, by Decider, err error) {
	x := &e.x
	x.By, x.Err = by, err
	at := len(s.tiers) // the index of the tier that serves
	if b != nil {
		x.Backend, x.Addr, x.Tier = b.id, b.addr, b.tier
		x.Preferred = true
		if g := b.group.Load(); g != nil {
			x.Preferred = !g.other
		}
		for _, st := range e.standing {
			if st.backend == b && st.tier >= 0 {
				at = st.tier
			}
		}
	}
	for _, st := range e.standing {
		if st.backend == b || !st.out && by == ByAlgorithm && st.tier == at {
			x.Candidates = append(x.Candidates, st.Candidate)
			continue
		}
		if !st.out {
			st.why, st.reason = e.behind(st, at)
		}
		x.Others = append(x.Others, PassedOver{st.Candidate, st.why, st.reason})
	}
	x.Deterministic = !s.settings.drawn || by != ByAlgorithm || len(x.Candidates) == 1
}

// behind is why a backend that could serve does not.
func (e *explaining) behind(st standing, at int) (Obstacle, string) {
	x := &e.x
	switch {
	case x.By == ByNothing:
		return BehindWaiters, fmt.Sprintf("%d sessions wait already", x.Waiting)
	case x.By == ByTrial:
		return NotOnTrial, fmt.Sprintf("the client is to try %q", x.Backend)
	case x.By == BySticky:
		return NotSticky, fmt.Sprintf("the client returns to %q", x.Backend)
	case st.Tier > x.Tier:
		return InLaterTier, fmt.Sprintf("tier %d can serve", x.Tier)
	}
	return InOtherZone, fmt.Sprintf("zone %q can serve", e.r.settings.Zone)
}
