package pool

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// A Spec describes a backend to be added. It is a plain value; whoever takes one validates it. Two that are equal
// describe the same.
type Spec struct {
	ID     string         // unique in the pool, not empty
	Addr   netip.AddrPort // a unicast address and a port
	Weight uint32         // share relative to the pool's other backends, 1 to 256; 0 drains: it gets nothing new

	MaxSessions int    // leases at once; 0 = no limit
	Tier        int    // used when no backend of a lower tier is eligible; 0 to MaxTier
	Zone        string // where it stands; a pool may prefer its own
	Mode        Mode   // what the operator wants of it at first

	// Check is where its health is checked, a unicast address and a port; the zero value is at Addr.
	Check netip.AddrPort
}

// Fields of a Spec that can be changed without making it another backend, as the configuration calls them; all but the
// last at run time too.
const (
	fieldWeight      = "weight"
	fieldMaxSessions = "max_sessions"
	fieldMode        = "mode"
	fieldCheck       = "check"
)

// checked returns s with IPv4 addresses never in their form mapped into IPv6, or an *InvalidBackendError when it cannot
// be a backend.
func (s Spec) checked() (Spec, error) {
	addr, check := s.Addr, s.Check
	s.Addr = unmapped(addr)
	if check.IsValid() {
		s.Check = unmapped(check)
	}
	switch {
	case s.ID == "":
		return s, &InvalidBackendError{Field: "id", Value: s.ID, Want: "a name"}
	case !connectable(s.Addr):
		return s, &InvalidBackendError{Field: "addr", Value: addr.String(), Want: "a unicast address and a port"}
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
		CheckTier(s.Tier), CheckWeight(int(s.Weight)), CheckMaxSessions(s.MaxSessions), validateMode(s.Mode),
	} {
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// unmapped returns an address with IPv4 never in its form mapped into IPv6.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// connectable reports whether an address can be connected to.
func connectable(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast()
}

func validateVerdict(v Verdict) error {
	if v > Lagging {
		return &InvalidBackendError{Field: "verdict", Value: v.String(),
			Want: "unknown, healthy, unhealthy, wrong_role or lagging"}
	}
	return nil
}

// A Backend is one address that sessions and flows are sent to, with the counters of all it ever did.
// Its methods may be called from any goroutine; its zero value is of no use, see Pool.Add.
// It lives on after its removal from the pool for as long as someone holds a lease on it.
type Backend struct {
	// set once, then read-only
	id   string
	addr netip.AddrPort
	tier int
	pool *Pool
	// former are backends of its id before it, of which there may be leases: a drain of that id waits for them, too.
	former []*Backend

	group    atomic.Pointer[group] // which it competes in; stored with Pool.mu held
	load     algo.Load
	inUse    atomic.Bool                // it is eligible by the latest snapshot
	revoked  atomic.Bool                // it is not, and its leases are to be given back
	drains   atomic.Bool                // it is not, and only since the operator wants it so
	watchers watchers                   // woken when its last lease is released, and when its member changes
	record   record                     // what its traffic showed of late; the breaker goes by it
	outcomes [numOutcomes]atomic.Uint64 // leases released, by Outcome
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64

	openings atomic.Uint64 // of its breaker

	departures atomic.Uint64 // and returns from them: odd while it is removed or in maintenance

	// Pool.mu guards the fields below
	edition uint64 // the last snapshot it was eligible in
	counted *group // whose total its leases count in; nil is none
}

// ID returns the backend's name, unique in its pool.
func (b *Backend) ID() string { return b.id }

// Addr returns the address that sessions are sent to. An IPv4 address is never in its form mapped into IPv6.
func (b *Backend) Addr() netip.AddrPort { return b.addr }

// AddBytes counts bytes moved: in from client to backend, out from backend to client.
func (b *Backend) AddBytes(in, out uint64) {
	b.bytesIn.Add(in)
	b.bytesOut.Add(out)
}

// InUse reports whether the backend may get new sessions and flows, but for its limit. One that is only tried by its
// half-open breaker may not.
func (b *Backend) InUse() bool { return b.inUse.Load() }

// Revoked reports whether whoever has a lease on the backend is to give it back; see Pool.OnRevoke.
func (b *Backend) Revoked() bool { return b.revoked.Load() }

// A member is a backend with its settings in one snapshot. It is immutable; a change makes another one. Verdict, mode
// and breaker stay apart: what the checks say, what the operator wants and what the traffic says never overwrite each
// other.
type member struct {
	backend     *Backend
	source      string // who named it: "" for Add, else as given to Reconcile
	spec        Spec   // as its source described it last; what was changed at run time stands beside it
	weight      uint32
	maxSessions int
	verdict     Verdict
	reason      string    // of the verdict
	since       time.Time // of the verdict
	mode        Mode
	breaker     Breaker
	reopenings  int           // of the breaker, since it was closed last
	until       time.Duration // when an open breaker is half-open, on the pool's clock

	fresh     bool          // it was there from the pool's beginning and has not served yet: no slow start
	returned  time.Duration // when it became eligible, on the pool's clock; slow start counts from here
	returning bool          // it became so after the pool's beginning
}

// enabled reports whether the operator lets the backend have new sessions.
func (m *member) enabled() bool { return m.mode == Ready && m.weight > 0 }

// tryable reports whether the backend may have new sessions when none is healthy. Never the one of the wrong role: to
// write to a replica for want of a primary is what such a pool exists to prevent.
func (m *member) tryable() bool { return m.enabled() && m.verdict != WrongRole }

// wouldServe reports whether the backend may get new sessions, but for its breaker and its limit.
func (m *member) wouldServe() bool { return m.verdict == Healthy && m.enabled() }

// eligible reports whether the backend may get new sessions, but for its limit.
func (m *member) eligible() bool { return m.wouldServe() && m.breaker == Closed }

// onTrial reports whether the backend may have trials.
func (m *member) onTrial() bool { return m.wouldServe() && m.breaker == HalfOpen }

// info returns the settings of the snapshot with the counters of this moment.
func (m *member) info() BackendInfo {
	b := m.backend
	i := BackendInfo{
		ID: b.id, Addr: b.addr, Source: m.source, Weight: m.weight,
		MaxSessions: m.maxSessions, Tier: m.spec.Tier, Zone: m.spec.Zone,
		Verdict: m.verdict, Reason: m.reason, Since: m.since, Mode: m.mode, Breaker: m.breaker,
		Check: m.spec.Check, Given: m.spec, Eligible: b.inUse.Load(), Openings: b.openings.Load(),
		Leases: b.load.Leases(), BytesIn: b.bytesIn.Load(), BytesOut: b.bytesOut.Load(),
	}
	for _, f := range b.former {
		i.Former += f.load.Leases()
	}
	for o := range b.outcomes {
		i.Outcomes[o] = b.outcomes[o].Load()
	}
	return i
}

// A BackendInfo is a copy of all that is known of a backend at one moment. It is a plain value and never changes.
type BackendInfo struct {
	ID          string
	Addr        netip.AddrPort
	Source      string // who named it: "" for Add, else the source given to Reconcile
	Weight      uint32
	MaxSessions int
	Tier        int
	Zone        string
	Verdict     Verdict
	Reason      string    // why the verdict was given
	Since       time.Time // when the verdict was given
	Mode        Mode
	Breaker     Breaker
	Check       netip.AddrPort // where it is checked; the zero value is at Addr
	Given       Spec           // as its source describes it; where the fields above differ they were set at run time
	Eligible    bool           // it may get new sessions, but for its limit

	Openings uint64 // of its breaker
	Leases   int64  // held now
	// held now of backends of its id that it has replaced: at other addresses, or in other tiers or zones
	Former   int64
	Outcomes [numOutcomes]uint64 // leases released, indexed by Outcome
	BytesIn  uint64              // from clients to the backend
	BytesOut uint64              // from the backend to clients
}
