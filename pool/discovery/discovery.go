// Package discovery finds the backends of a pool in DNS addresses, SRV records, a file or keys of etcd, or asks what
// runs a cluster of databases (Patroni, Redis Sentinels) for its members and their roles. It keeps the pool up to date. A Source finds
// backends, one file per kind. A Runner decides when to ask it, what to do on errors and what to report.
//
// It does not log, does not check health, and keeps nothing over a restart. It changes a pool only through Reconcile.
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

// maxBackends bounds the backends of one answer. No pool is tested with more, and a much smaller answer would already
// be a mistake or an attack.
const maxBackends = 10_000

// minTTL is the shortest time between two questions for a record with a TTL. A TTL of 0 forbids keeping the answer (RFC
// 1035, 3.2.1); obeying it literally would be a loop without a pause.
const minTTL = time.Second

var (
	// ErrRan is returned by a second Run of one runner.
	ErrRan = errors.New("discovery: the runner ran already")
	// ErrTooMany is wrapped by the error of an answer with more than 10,000 backends, or 1,000 targets.
	ErrTooMany = errors.New("discovery: too many backends")
)

// A Source finds backends: a DNS, an SRV, a File, a *Patroni, a *PatroniREST, a *Sentinel or an *Etcd.
//
// Find asks once and returns the complete answer, or an error that says why there is none. Errors of the same cause
// have the same text, since only a changed text is reported again. Find must return soon after ctx ends. It need not be
// safe for concurrent use. The caller owns the result.
type Source interface {
	Find(ctx context.Context) (Found, error)
}

// A watcher is a Source that notices changes. Watch calls changed once when it begins to watch and then after each
// change, until ctx is done or it can watch no longer.
type watcher interface {
	Watch(ctx context.Context, changed func()) error
}

// Found is a complete answer of a source.
type Found struct {
	Backends []pool.Spec
	TTL      time.Duration // how long the answer is valid; 0: the source does not say
	Asked    int           // questions sent over the network; after many, the next attempt is later
	// Unusable says what else the source names and why that is of no use; nil: nothing. Backends are complete otherwise.
	// Without backends it wraps ErrNoBackend, and may say what is wrong with the question.
	Unusable error
}

// checkNumber returns an error that wraps ErrTooMany if n backends are too many.
func checkNumber(n int) error {
	if n <= maxBackends {
		return nil
	}
	return fmt.Errorf("%w: more than %d", ErrTooMany, maxBackends)
}
