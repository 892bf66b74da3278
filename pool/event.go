package pool

import "time"

// An Event is one change of a pool: Added, Removed, VerdictChanged, ModeChanged or WeightChanged, no other.
// Events are plain values that never change; all subscribers may share one.
type Event interface {
	sealed()
}

// A Change is what every event says: which backend of which pool changed, and when.
type Change struct {
	Pool    string
	Backend BackendInfo // just after the change; of a removed backend, as it was last
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
