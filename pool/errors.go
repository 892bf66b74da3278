package pool

import (
	"errors"
	"fmt"
)

var (
	// ErrNoBackend is returned by Pick when no backend is eligible that the session has not tried yet.
	ErrNoBackend = errors.New("pool: no backend is eligible")
	// ErrBusy is returned by Pick when there are such backends and each is at its max_sessions or over its max_rate, or
	// other sessions wait already.
	ErrBusy = errors.New("pool: every eligible backend is at its limit of sessions")
	// ErrQueueFull is returned by Wait when the queue is full, or the pool has none.
	ErrQueueFull = errors.New("pool: the queue is full")
	// ErrHoldFull is returned by Hold and Rest when as many sessions wait as may while no backend is eligible, or the
	// pool has no hold; and by Wait during a ramp.
	ErrHoldFull = errors.New("pool: as many sessions wait for an eligible backend as may")
	// ErrDuplicateBackend is wrapped by the error of Add when the pool has a backend of that id.
	ErrDuplicateBackend = errors.New("pool: a backend of this id exists already")
	// ErrDuplicateAddress is wrapped by the error of Add when the pool has a backend of that address under another id.
	ErrDuplicateAddress = errors.New("pool: a backend of this address exists already")
	// ErrUnknownBackend is wrapped by the errors of all methods that name a backend which the pool does not have.
	ErrUnknownBackend = errors.New("pool: no backend of this id")
)

// An InvalidBackendError says which property of a backend was refused, and what is allowed.
type InvalidBackendError struct {
	// Field is "id", "addr", "weight", "max_sessions", "max_rate", "tier", "verdict", "mode" or "check". For an
	// Override it may also be "kind" or "source", and for a drain it is "deadline_seconds".
	Field string
	Value string // what was given
	Want  string // what is allowed
}

// Error names the field, the value found and what is allowed.
func (e *InvalidBackendError) Error() string {
	return fmt.Sprintf("invalid %s %q: want %s", e.Field, e.Value, e.Want)
}
