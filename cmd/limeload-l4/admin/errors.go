package admin

import (
	"errors"
	"fmt"
)

var (
	// ErrUnknownPool is wrapped where a pool is named that there is not.
	ErrUnknownPool = errors.New("there is no such pool")
	// ErrUnknownListener is wrapped where a listener is named that there is not.
	ErrUnknownListener = errors.New("there is no such listener")
	// ErrNoDNSCache is wrapped where the cache of a listener is meant that has none.
	ErrNoDNSCache = errors.New("it has no DNS cache; a [listener.*.cache] table gives it one")
	// ErrUnreachable is wrapped by the Client's errors when no daemon answers at the admin address.
	ErrUnreachable = errors.New("the daemon cannot be reached")
	// ErrEnding is returned for what a daemon does not begin any more once it drains.
	ErrEnding = errors.New("the daemon is shutting down")
)

// A RequestError is a request that makes no sense: which of its values, and what is allowed.
type RequestError struct {
	Field string // as in JSON or the query
	Value string // as it was given
	Wrong string // what is wrong with it, where Value and Want do not say it all
	Want  string // what is allowed; may be empty beside Wrong
}

// Error names the field, the value found and what is allowed.
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

// A ConfigError is a configuration that cannot be taken up. Nothing has changed.
type ConfigError struct {
	Err error // its text is that of `limeload-l4 check`, a line for each mistake
}

// Error returns the mistakes, one per line.
func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// A NotSavedError says that a change is in force, and will not survive a restart.
type NotSavedError struct {
	Err error // why the state file could not be written
}

// Error says what that means, and the cause.
func (e *NotSavedError) Error() string {
	return fmt.Sprintf("the change is in force but will not survive a restart: %v", e.Err)
}

// Unwrap returns the cause.
func (e *NotSavedError) Unwrap() error { return e.Err }
