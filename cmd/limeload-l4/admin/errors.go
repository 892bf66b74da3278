package admin

import (
	"errors"
	"fmt"
)

var (
	// ErrUnknownPool is wrapped by errors about a pool that does not exist.
	ErrUnknownPool = errors.New("there is no such pool")
	// ErrUnknownListener is wrapped by errors about a listener that does not exist.
	ErrUnknownListener = errors.New("there is no such listener")
	// ErrNoDNSCache is wrapped by errors about the cache of a listener that has none.
	ErrNoDNSCache = errors.New("it has no DNS cache; a [listener.*.cache] table gives it one")
	// ErrUnknownAccessRule is wrapped by errors about an access rule that does not exist.
	ErrUnknownAccessRule = errors.New("there is no such access rule")
	// ErrTooManyAccessRules is wrapped by the error of a rule that is one too many.
	ErrTooManyAccessRules = errors.New("there are too many access rules")
	// ErrNoFleet is returned by calls about the fleet of a node that has none.
	ErrNoFleet = errors.New("this node works alone; a [fleet] table in its configuration makes it a node of a fleet")
	// ErrUnreachable is wrapped by the Client's errors if no daemon answers at the admin address.
	ErrUnreachable = errors.New("the daemon cannot be reached")
	// ErrUpgrading is returned by calls that a daemon refuses while a new process takes over.
	ErrUpgrading = errors.New("an upgrade is under way; try again when it is over")
	// ErrEnding is returned by calls that a daemon refuses once it drains.
	ErrEnding = errors.New("the daemon is shutting down")
)

// A RequestError is an invalid value in a request.
type RequestError struct {
	Field string // as in JSON or the query
	Value string // as it was given
	Wrong string // in addition to Value and Want; may be empty
	Want  string // what is allowed; may be empty if Wrong is set
}

// Error returns the field, its value and what is allowed.
func (e *RequestError) Error() string {
	text := fmt.Sprintf("%s: found %q", e.Field, e.Value)
	if e.Wrong != "" {
		text += "; " + e.Wrong
	}
	if e.Want != "" {
		text += "; needs " + e.Want
	}
	return text
}

// A ConfigError is the error of a configuration that cannot be put in force. Nothing has changed.
type ConfigError struct {
	Err error // its text is the output of `limeload-l4 check`, one line for each mistake
}

// Error returns the mistakes, one per line.
func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// A NotSavedError says that a change is in force, but will not survive a restart.
type NotSavedError struct {
	Err error // why the state file could not be written
}

// Error returns the consequence and the cause.
func (e *NotSavedError) Error() string {
	return fmt.Sprintf("the change is in force but will not survive a restart: %v", e.Err)
}

// Unwrap returns the cause.
func (e *NotSavedError) Unwrap() error { return e.Err }
