package pool

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/pool/rate"
)

// A Spec describes a backend to be added. It is a plain value. The functions that take one validate it. Equal values
// describe the same backend.
type Spec struct {
	ID     string  // unique in the pool, not empty
	Addr   Address // a unicast address, with a port or for each client's port, or a Unix socket
	Weight uint32  // share relative to the pool's other backends, 1 to 256; 0: no new sessions or flows

	MaxSessions int        // concurrent leases; 0 = no limit
	MaxRate     rate.Limit // of new leases; the zero value is no limit
	Tier        int        // used when no backend of a lower tier is eligible; 0 to MaxTier
	Zone        string     // where it stands; a pool may prefer its own
	Mode        Mode       // its first mode

	// Check is the address that its health is checked at, a unicast address and a port. The zero value means Addr.
	Check netip.AddrPort

	Role Role // what its source says it is in its cluster; RoleUnknown for most sources
}

// The fields of a Spec that may change while the backend stays the same one, by their names in the configuration. All
// but the last two may change at run time too.
const (
	fieldWeight      = "weight"
	fieldMaxSessions = "max_sessions"
	fieldMaxRate     = "max_rate"
	fieldMode        = "mode"
	fieldCheck       = "check"
	fieldRole        = "role"
)

// checked returns s with its IPv4-mapped IPv6 addresses as IPv4, or an *InvalidBackendError when s describes no valid
// backend.
func (s Spec) checked() (Spec, error) {
	addr, check := s.Addr, s.Check
	s.Addr = addr.unmapped()
	if check.IsValid() {
		s.Check = unmapped(check)
	}
	switch {
	case s.ID == "":
		return s, &InvalidBackendError{Field: "id", Value: s.ID, Want: "a name"}
	case !s.Addr.connectable():
		return s, &InvalidBackendError{Field: "addr", Value: addr.String(),
			Want: "a unicast address, with or without a port, or the path of a Unix socket"}
	case s.Check != netip.AddrPort{} && !connectable(s.Check):
		return s, &InvalidBackendError{Field: fieldCheck, Value: check.String(),
			Want: "a unicast address and a port, or none"}
	case s.Addr.Addr().Zone() != "" && !ValidZone(s.Addr.Addr().Zone()):
		return s, &InvalidBackendError{Field: "addr", Value: addr.String(), Want: "the name of an interface as zone"}
	case s.Check.Addr().Zone() != "" && !ValidZone(s.Check.Addr().Zone()):
		return s, &InvalidBackendError{Field: fieldCheck, Value: check.String(),
			Want: "the name of an interface as zone"}
	}
	for _, err := range []error{
		CheckTier(s.Tier), CheckWeight(int(s.Weight)), CheckMaxSessions(s.MaxSessions), CheckMaxRate(s.MaxRate),
		validateMode(s.Mode), validateRole(s.Role),
	} {
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// unmapped returns the address, an IPv4-mapped IPv6 address as IPv4.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// connectable reports whether an address can be connected to.
func connectable(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && isUnicast(a.Addr())
}

func isUnicast(ip netip.Addr) bool { return !ip.IsUnspecified() && !ip.IsMulticast() }

func validateVerdict(v Verdict) error {
	if v > Fallback {
		return &InvalidBackendError{Field: "verdict", Value: v.String(),
			Want: "unknown, healthy, unhealthy, wrong_role, lagging or fallback"}
	}
	return nil
}

// A Backend is one address that sessions and flows are sent to, with its counters since it was added. Its methods may
// be called from any goroutine; its zero value is of no use, see Pool.Add. It outlives its removal from the pool while
// somebody holds a lease on it.
type Backend struct {
	// set once, then read-only
	id   string
	addr Address
	tier int
	pool *Pool
	// former are the earlier backends of the same id that may still have leases. A drain of that id waits for them too.
	former []*Backend

	watch    atomic.Pointer[stopwatch]  // nil until a time is counted, since most of many backends may rest
	group    atomic.Pointer[group]      // the group that it belongs to; stored with Pool.mu held
	rate     atomic.Pointer[rate.Limit] // of new leases; nil: none. Beside load, which each lease touches too
	load     algo.Load
	inUse    atomic.Bool                // it is eligible by the latest snapshot
	revoked  atomic.Bool                // it is not eligible, and its leases must be given back
	drains   atomic.Bool                // it is not eligible, and the operator is the only reason
	leaving  atomic.Bool                // its sessions are to leave it
	leaves   atomic.Int64               // how many sessions may leave it, so that others have a share
	moved    atomic.Uint64              // how many have left it so
	watchers watchers                   // woken when its last lease is released, and when its member changes
	record   record                     // recent outcomes, which its breaker acts on
	outcomes [numOutcomes]atomic.Uint64 // leases released, by Outcome
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64

	openings atomic.Uint64 // how often its breaker opened

	departures atomic.Uint64 // counts departures and returns: odd while it is removed or in maintenance

	turns atomic.Uint32 // counts connects from a source address

	bucket rate.Bucket // the state of its rate
	pacing *pacing     // its pool's; nil in a replica
	// rateReached counts how often its rate was used up. It is written with pacing.mu held.
	rateReached atomic.Uint64
	// pacing.mu guards the fields below
	sessions int           // its max_sessions
	usable   time.Duration // when its rate and its ramp allow the next lease, on the pool's clock; while it is in pacing.over
	place    int           // in pacing.over, from 1; 0: it is not there
	ramp     backendRamp
	gone     bool // it was removed from the pool

	// Pool.mu guards the fields below
	generation uint64 // the number of the last snapshot that it was eligible in
	counted    *group // the group whose total counts its leases; nil: none
}

// ID returns the backend's name, unique in its pool.
func (b *Backend) ID() string { return b.id }

// Addr returns the address that sessions are sent to. It is never an IPv4-mapped IPv6 address. See Address.IsPortless.
func (b *Backend) Addr() Address { return b.addr }

// Turn counts the calls: 0, 1, 2, ... Connections to the backend take the pool's sources in turn by it.
func (b *Backend) Turn() uint32 { return b.turns.Add(1) - 1 }

// AddBytes counts bytes moved: in from client to backend, out from backend to client.
func (b *Backend) AddBytes(in, out uint64) {
	b.bytesIn.Add(in)
	b.bytesOut.Add(out)
}

// InUse reports whether the backend may get new sessions and flows, apart from its limit. A backend whose breaker is
// half-open is not in use.
func (b *Backend) InUse() bool { return b.inUse.Load() }

// Revoked reports whether the holders of leases on the backend must give them back; see Pool.OnRevoke.
func (b *Backend) Revoked() bool { return b.revoked.Load() }

// A member is a backend with its settings in one snapshot. It is immutable; a change makes a new one. Verdict, mode,
// agent and breaker are separate fields, and none ever overwrites another.
type member struct {
	backend     *Backend
	source      string // the source that named it: "" for Add, else as given to Reconcile
	spec        Spec   // the last description by its source; run-time changes are in the fields below
	weight      uint32
	maxSessions int
	maxRate     rate.Limit
	verdict     Verdict
	reason      string    // of the verdict
	since       time.Time // of the verdict
	mode        Mode
	agent       Agent // what the agent on its host says
	breaker     Breaker
	reopenings  int           // how often the breaker has reopened since it was last closed
	until       time.Duration // when an open breaker is half-open, on the pool's clock

	fresh     bool          // it was added with the first backends and has not served yet: no slow start
	returned  time.Duration // when it became eligible, on the pool's clock; slow start counts from here
	returning bool          // it became eligible after the pool's first backends did
}

// enabled reports whether the operator and the backend's agent let the backend have new sessions.
func (m *member) enabled() bool { return m.modeInForce() == Ready && m.weightInForce() > 0 }

// tryable reports whether the backend may have new sessions when none is healthy. One of the wrong role never may: a
// pool of primaries must not send writes to a replica.
func (m *member) tryable() bool { return m.enabled() && m.verdict != WrongRole }

// wouldServe reports whether the backend may get new sessions, apart from its breaker and its limit. For one of the
// verdict Fallback that is so while no other backend is eligible.
func (m *member) wouldServe() bool {
	return (m.verdict == Healthy || m.verdict == Fallback) && !m.agent.Down && m.enabled()
}

// eligible reports whether the backend may get new sessions, apart from its limit.
func (m *member) eligible() bool {
	return m.verdict == Healthy && m.wouldServe() && m.breaker == Closed
}

// standsIn reports whether the backend may get new sessions while no backend is eligible.
func (m *member) standsIn() bool {
	return m.verdict == Fallback && m.wouldServe() && m.breaker == Closed
}

// onTrial reports whether the backend gets trial sessions: its breaker is half-open.
func (m *member) onTrial() bool { return m.wouldServe() && m.breaker == HalfOpen }

// info returns the settings of the member with the current counters of its backend.
func (m *member) info() BackendInfo {
	b := m.backend
	i := BackendInfo{
		ID: b.id, Addr: b.addr, Source: m.source, Weight: m.weight,
		MaxSessions: m.maxSessions, MaxRate: m.maxRate, RateReached: b.rateReached.Load(),
		Tier: m.spec.Tier, Zone: m.spec.Zone,
		Verdict: m.verdict, Reason: m.reason, Since: m.since, Mode: m.mode, Agent: m.agent, Breaker: m.breaker,
		Check: m.spec.Check, Role: m.spec.Role, Given: m.spec, Eligible: b.inUse.Load(), Openings: b.openings.Load(),
		Moved:  b.moved.Load(),
		Leases: b.load.Leases(), BytesIn: b.bytesIn.Load(), BytesOut: b.bytesOut.Load(),
	}
	watch := b.watch.Load()
	i.ConnectTimes, i.FirstByteTimes = watch.times(connectTimes), watch.times(firstByteTimes)
	for _, f := range b.former {
		i.Former += f.load.Leases()
	}
	for o := range b.outcomes {
		i.Outcomes[o] = b.outcomes[o].Load()
	}
	return i
}

// A BackendInfo is a copy of a backend's settings, state and counters at one moment. It is a plain value and never
// changes.
type BackendInfo struct {
	ID          string
	Addr        Address
	Source      string // the source that named it: "" for Add, else as given to Reconcile
	Weight      uint32
	MaxSessions int
	MaxRate     rate.Limit
	Tier        int
	Zone        string
	Verdict     Verdict
	Reason      string    // why the verdict was given
	Since       time.Time // when the verdict was given
	Mode        Mode
	Agent       Agent // what the agent on its host says; Weight, MaxSessions and Mode are those without it
	Breaker     Breaker
	Check       netip.AddrPort // the address that it is checked at; zero: Addr
	Role        Role           // what its source says it is
	Given       Spec           // the description by its source; fields above that differ were set at run time
	Eligible    bool           // it may get new sessions, apart from its limit

	Openings    uint64 // how often its breaker opened
	Moved       uint64 // how many sessions have left it so that others have a share; see Rebalance
	RateReached uint64 // how often it had as many leases as its MaxRate allows, and so got no more for a moment
	Leases      int64  // held now
	// Former counts the current leases on the backends of its id that it replaced, those with another address, tier
	// or zone.
	Former   int64
	Outcomes [numOutcomes]uint64 // leases released, indexed by Outcome
	BytesIn  uint64              // from clients to the backend
	BytesOut uint64              // from the backend to clients

	ConnectTimes   Times // of connects that succeeded
	FirstByteTimes Times // from when it had something to answer; only of leases that had an answer
}
