package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// A Decider says by which rule a client's backend was decided.
type Decider uint8

// The deciders.
const (
	ByNothing   Decider = iota // no backend can be picked
	ByAlgorithm                // the algorithm chose among the candidates of the tier
	BySticky                   // stickiness returns the client to its backend
	ByTrial                    // the client gets a trial of a half-open breaker
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

// An Obstacle is a reason why a backend cannot be picked.
type Obstacle uint8

// The obstacles. If several apply to a backend, the first in this order is reported.
const (
	InMaintenance   Obstacle = iota // its mode
	InDrain                         // its mode
	WithoutWeight                   // its weight is 0
	AgentForbids                    // the agent on its host says so: maint, drain, down or 0%
	NotHealthy                      // its verdict is Unhealthy
	NotJudged                       // its verdict is Unknown
	InWrongRole                     // its verdict
	IsLagging                       // its verdict
	InReserve                       // its verdict is Fallback, and a Healthy backend is eligible
	BreakerOpen                     // its breaker
	BreakerHalfOpen                 // its breaker is half-open and has no trial for this client
	WasTried                        // it failed this session already
	IsFull                          // it is at its limit of sessions
	IsOverRate                      // it has got as many sessions as its rate allows for the moment
	BehindWaiters                   // sessions that wait for a backend go first
	NotOnTrial                      // the client gets a trial of another backend
	NotSticky                       // stickiness returns the client to another backend
	InLaterTier                     // an earlier tier can serve
	InOtherZone                     // the zone that the pool prefers can serve
)

// String returns the obstacle as a lower-case word.
func (o Obstacle) String() string {
	words := [...]string{
		"maintenance", "drain", "weight_0", "agent", "unhealthy", "unknown", "wrong_role", "lagging", "fallback",
		"breaker_open", "breaker_half_open",
		"tried", "full", "over_rate", "behind_waiters", "not_on_trial", "not_sticky", "later_tier", "other_zone",
	}
	if int(o) < len(words) {
		return words[o]
	}
	return "obstacle(" + strconv.Itoa(int(o)) + ")"
}

// OfVerdict reports whether the obstacle is the backend's verdict.
func (o Obstacle) OfVerdict() bool {
	return o == NotHealthy || o == NotJudged || o == InWrongRole || o == IsLagging || o == InReserve
}

// A Candidate is a backend with the values that algorithms use. It is a plain value.
type Candidate struct {
	ID          string
	Addr        Address
	Weight      uint32
	Share       float64 // the part of its weight that is in force; below 1 during its slow start
	Leases      int64
	Agent       Agent      // what its agent says; Weight and MaxSessions are those in force
	MaxSessions int        // 0 is no limit
	MaxRate     rate.Limit // the zero value is no limit
	Tier        int
	Zone        string
}

// A PassedOver is a backend that cannot be picked, and why. It is a plain value.
type PassedOver struct {
	Candidate
	Why    Obstacle
	Reason string // in words
}

// An Explanation is the result that Pick would have at one moment, with the reasons. It is a plain value.
type Explanation struct {
	Client    netip.AddrPort
	Key       uint64 // the input of algorithms that hash
	Algorithm string
	TriesAll  bool // no backend is healthy, and so all that are enabled are tried
	FallsBack bool // no Healthy backend is eligible, and so those of the verdict Fallback are

	By      Decider
	Backend string  // the backend that would be picked; "" with Err
	Addr    Address // its address
	Tier    int     // its tier
	Err     error   // ErrNoBackend or ErrBusy; nil when a backend would be picked
	MayWait bool    // Err is ErrBusy and the queue has room, or ErrNoBackend and the session is held
	Waiting int     // sessions that stand in the line already
	Ramping bool    // they do so only because the slow start spreads them

	// Deterministic says that the next Pick for this client has this result if nothing changes before it. Otherwise the
	// algorithm draws at random, and this is one draw among the candidates.
	Deterministic bool

	Candidates []Candidate  // the backends that the decision was among; none with Err
	Others     []PassedOver // all other backends, in the pool's order
}

// Explain returns what Pick would do for the client at this moment, and why. It changes nothing: it takes no lease or
// trial, moves no position, remembers no client and counts no refusal. It copies all backends and is not for the data
// path.
func (p *Pool) Explain(pc PickContext) Explanation {
	s := p.snap.Load()
	e := &explaining{r: s.replica()}
	e.x = Explanation{
		Client: pc.Client, Key: s.settings.key(&pc), Algorithm: s.settings.Algorithm, TriesAll: s.tryAll,
		FallsBack: s.fallback,
		Waiting:   int(p.queue.waiting.Load()), Ramping: p.Ramping(),
	}
	e.pc = PickContext{Client: pc.Client, Name: pc.Name, Tried: e.r.backends(pc.Tried)}
	if e.r.slow != nil {
		e.r.slow.grow(s.settings.Clock)
	}
	e.look(s)
	lease, by, err := Lease{}, ByNothing, s.behindWaiters(pc.Tried)
	if e.x.Waiting == 0 {
		lease, by, err = e.r.decide(&e.pc, e.r.last(&e.pc))
	}
	e.decided(s, lease.b, by, err)
	switch waiting := p.Waiting(); err {
	case ErrBusy:
		e.x.MayWait = waiting < s.settings.QueueMax || e.x.Ramping && waiting < s.settings.HoldMax
	case ErrNoBackend:
		e.x.MayWait = s.settings.HoldTimeout > 0 && waiting < s.settings.HoldMax
	}
	return e.x
}

// explaining is the state of one call of Explain.
type explaining struct {
	r        *replica
	pc       PickContext
	x        Explanation
	standing []standing // of each member
}

// A standing is the state of one backend before the decision.
type standing struct {
	Candidate
	backend *Backend // the replica's
	tier    int      // its index among the snapshot's, -1 when it is not eligible
	out     bool     // it cannot be picked, whatever is decided
	why     Obstacle
	reason  string
}

// look records the standing of every backend.
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
			ID: b.id, Addr: b.addr, Weight: m.weightInForce(), Share: b.load.Share(), Leases: b.load.Leases(),
			MaxSessions: m.maxSessionsInForce(), MaxRate: m.maxRate, Agent: m.agent,
			Tier: b.tier, Zone: m.spec.Zone,
		}}
		if i, eligible := tiers[b]; eligible {
			st.tier = i
			switch {
			case slices.Contains(e.pc.Tried, b):
				st.out, st.why, st.reason = true, WasTried, "it failed this session already"
			case st.MaxSessions > 0 && st.Leases >= int64(st.MaxSessions):
				st.out, st.why, st.reason = true, IsFull, fmt.Sprintf("it has %d of %d sessions",
					st.Leases, st.MaxSessions)
			case e.x.Waiting > 0 && m.backend.pacing.ramping(m.backend): // others go first; see behind
			case b.load.Full():
				st.out, st.why, st.reason = true, IsOverRate, m.overRate(b)
			}
		} else {
			st.out = true
			st.why, st.reason = m.obstacle(s.fallback)
		}
		e.standing = append(e.standing, st)
	}
}

// overRate says in words that the backend's replica b is over its rate.
func (m *member) overRate(b *Backend) string {
	limit, of := m.maxRate, ""
	if share := b.pool.RateShare(); share < 1 {
		limit, of = limit.Share(share), fmt.Sprintf(" of which this node has %.0f%%,", 100*share)
	}
	return fmt.Sprintf("it is at its rate, %v,%s for another %v",
		m.maxRate, of, b.bucket.Wait(limit, b.pool.clock()).Round(time.Microsecond))
}

// obstacle returns why a backend is not eligible, as a value and in words. fallback says that backends of the verdict
// Fallback serve.
func (m *member) obstacle(fallback bool) (Obstacle, string) {
	switch {
	case m.mode == Maintenance:
		return InMaintenance, "it is in maintenance"
	case m.mode == Drain:
		return InDrain, "it is drained"
	case m.weight == 0:
		return WithoutWeight, "its weight is 0"
	case m.agent.Down || !m.enabled():
		return AgentForbids, fmt.Sprintf("its agent says %q", m.agent)
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
	case Fallback:
		if !fallback {
			return InReserve, m.reason
		}
	}
	if m.breaker == HalfOpen {
		return BreakerHalfOpen, "its trials are under way, or not for this client"
	}
	return BreakerOpen, "its sessions failed"
}

// decided records the decision, and why the other backends were passed over.
func (e *explaining) decided(s *snapshot, b *Backend, by Decider, err error) {
	x := &e.x
	x.By, x.Err = by, err
	at := len(s.tiers) // the index of the tier that serves
	if b != nil {
		x.Backend, x.Addr, x.Tier = b.id, b.addr, b.tier
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

// behind returns why an eligible backend with room was not picked.
func (e *explaining) behind(st standing, at int) (Obstacle, string) {
	x := &e.x
	switch {
	case x.By == ByNothing && x.Ramping:
		return BehindWaiters, fmt.Sprintf("%d sessions wait already, and slow_start spreads them", x.Waiting)
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
