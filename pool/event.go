package pool

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// An Event is one change of a pool: Added, Removed, VerdictChanged, ModeChanged, WeightChanged, LimitChanged,
// RateChanged, CheckChanged, RoleChanged, AgentChanged, BreakerChanged, Suspected, Overruled or Discovered, no other.
// Events are plain values that never change; all subscribers may share one.
type Event interface {
	sealed()
}

// A Change is the common part of all events: which backend of which pool changed, and when.
type Change struct {
	Pool    string
	Backend BackendInfo // after all changes of the same call; a removed backend as it was before
	At      time.Time
}

func (Change) sealed() {}

// Added says that a backend came into the pool.
type Added struct{ Change }

// Removed says that a backend left the pool. Leases on it may still be held.
type Removed struct{ Change }

// VerdictChanged says that a backend has another verdict.
type VerdictChanged struct {
	Change
	From, To Verdict
	Reason   string
}

// ModeChanged says that a backend has another mode.
type ModeChanged struct {
	Change
	From, To Mode
}

// WeightChanged says that a backend has another weight.
type WeightChanged struct {
	Change
	From, To uint32
}

// LimitChanged says that a backend has another limit of concurrent sessions; 0 is no limit.
type LimitChanged struct {
	Change
	From, To int
}

// RateChanged says that a backend has another limit of new sessions in a time; the zero value is no limit.
type RateChanged struct {
	Change
	From, To rate.Limit
}

// CheckChanged says that a backend is checked at another address; the zero value means its own.
type CheckChanged struct {
	Change
	From, To netip.AddrPort
}

// RoleChanged says that the source of a backend gives it another role.
type RoleChanged struct {
	Change
	From, To Role
}

// AgentChanged says that the agent on a backend's host says something else about it.
type AgentChanged struct {
	Change
	From, To Agent
}

// BreakerChanged says that a backend's breaker is in another state.
type BreakerChanged struct {
	Change
	From, To Breaker
	Reason   string
	For      time.Duration // how long an open breaker stays open
}

// Suspected says that a backend may be in trouble: a session or flow has failed on it, ICMP said that it cannot be
// reached, or a question had no answer. That is no proof, but a good reason to check the backend now. There is at most
// one a second for each backend.
type Suspected struct{ Change }

// Overruled says that a source ended a run-time change. It comes after the events of the changes that follow from it.
// If the backend is gone, Change has its id and address only.
type Overruled struct {
	Change
	Dropped Unapplied
}

// Discovered says that the answer of a source of backends is in effect, or why the source gave none. Its Change has the
// pool and the time, but no backend.
type Discovered struct {
	Change
	Source  string     // as in the configuration: "dns", "patroni", ...
	Found   int        // backends in the answer
	Changed Reconciled // what became of them
	Err     error      // why the source gave no answer; with Found above 0, what part of its answer is of no use
}
