package pool

import (
	"net/netip"
	"time"
)

// An Event is one change of a pool: Added, Removed, VerdictChanged, ModeChanged, WeightChanged, LimitChanged,
// CheckChanged, BreakerChanged, Suspected, Overruled or Discovered, no other.
// Events are plain values that never change; all subscribers may share one.
type Event interface {
	sealed()
}

// A Change is what every event says: which backend of which pool changed, and when.
type Change struct {
	Pool    string
	Backend BackendInfo // just after the change and those made in the same call; of a removed backend, as it was last
	At      time.Time
}

func (Change) sealed() {}

// Added says that a backend came into the pool.
type Added struct{ Change }

// Removed says that a backend left the pool. Leases on it may still be held.
type Removed struct{ Change }

// VerdictChanged says that the checks judge a backend anew.
type VerdictChanged struct {
	Change
	From, To Verdict
	Reason   string
}

// ModeChanged says that the operator wants something else of a backend.
type ModeChanged struct {
	Change
	From, To Mode
}

// WeightChanged says that a backend's share is another one.
type WeightChanged struct {
	Change
	From, To uint32
}

// LimitChanged says that a backend may have another number of sessions at once; 0 is without a limit.
type LimitChanged struct {
	Change
	From, To int
}

// CheckChanged says that a backend is to be checked at another address; the zero value is its own.
type CheckChanged struct {
	Change
	From, To netip.AddrPort
}

// BreakerChanged says that the traffic judges a backend anew.
type BreakerChanged struct {
	Change
	From, To Breaker
	Reason   string
	For      time.Duration // how long an open breaker stays so
}

// Suspected says that something hints at trouble with a backend, which proves nothing: ICMP said that it cannot be
// reached, or a question had no answer. Whoever checks backends does well to check it now. There is one a second at
// most for each backend.
type Suspected struct{ Change }

// Overruled says that something that was set at run time does not hold any more, because of what a source says. It
// comes after the changes that were made of that. Of a backend that is gone its Change has the id and the address
// alone.
type Overruled struct {
	Change
	Dropped Unapplied
}

// Discovered says that a source of backends was asked and its answer is in effect, or why there was none. Its Change
// names the pool and the time, and no backend.
type Discovered struct {
	Change
	Source  string     // as in the configuration: "dns", "srv" or "file"
	Found   int        // backends in the answer
	Changed Reconciled // what became of them
	Err     error      // why the source gave no answer; the pool is then as its settings for that case say
}
