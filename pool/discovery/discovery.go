// Package discovery finds out which backends a pool has, from DNS addresses, SRV records or a file, and keeps the pool
// in step: what is found is a Source's part, one file per kind; when to ask, what to do on errors and what to report is
// the Runner's.
//
// It does not log, judges no backend's health, and keeps nothing over a restart. It changes a pool only through
// Reconcile.
//
// A Runner belongs to the goroutine that calls Run. A Source is asked by one goroutine at a time.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// maxBackends is how many backends one answer may have: more than any pool is tested with, and a mistake or an attack
// long before that.
const maxBackends = 10_000

// minTTL is the shortest time between two questions for a record with a TTL. A TTL of 0 means that nobody may keep the
// answer (RFC 1035, 3.2.1); to take it by its word would be a loop without a pause.
const minTTL = time.Second

var (
	// ErrRan is returned by a second Run of one runner.
	ErrRan = errors.New("discovery: the runner ran already")
	// ErrTooMany is wrapped by the error of an answer with more than 10,000 backends, or 1,000 targets.
	ErrTooMany = errors.New("discovery: too many backends")
)

// A Source finds backends: DNS, SRV and File are those there are.
//
// Find asks once and returns what it found, complete, or an error that says why there is no complete answer; its text
// is the same when the cause is the same, since only another text is reported anew. Find must return soon after ctx
// ends. It need not be safe for concurrent use. What it returned is no longer its own.
type Source interface {
	Find(ctx context.Context) (Found, error)
}

// A watcher is a Source that can tell when to ask it again. Watch calls changed, once when it begins to watch and then
// after each change, until ctx is done or it can watch no longer.
type watcher interface {
	Watch(ctx context.Context, changed func()) error
}

// Found is a complete answer of a source.
type Found struct {
	Backends []pool.Spec
	TTL      time.Duration // how long the answer holds; 0: the source does not say
	Asked    int           // questions that it took over the network: after many the next attempt comes later
}

// checkNumber returns an error that wraps ErrTooMany if n backends are too many.
func checkNumber(n int) error {
	if n <= maxBackends {
		return nil
	}
	return fmt.Errorf("%w: more than %d", ErrTooMany, maxBackends)
}
