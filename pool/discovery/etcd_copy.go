package discovery

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

const (
	// etcdMistakePause is how long a watch waits after an error that only people can end.
	etcdMistakePause = 5 * time.Second
	// etcdQuickEnd is the life of a connection below which a watch waits for so long before the next one: a member of
	// etcd that answers reads and refuses to watch must not cause a loop without a pause.
	etcdQuickEnd = 500 * time.Millisecond
)

// An etcdCopy keeps the keys below a prefix in etcd for a source: read once or, while watch runs, always up to date.
// Members of etcd are asked in turn, and only an answer that a majority of etcd confirms counts.
//
// ready may run beside watch. The zero value is of no use: the source fills the fields.
type etcdCopy struct {
	// set once, then read-only
	login     etcd.Login
	endpoints []string      // URLs, at least one
	prefix    string        // with a slash at the end
	probed    string        // see etcd.Session.Follow
	most      int           // keys
	again     time.Duration // all keys are read again after so long; 0: only if it has to be
	noEtcd    string        // what to do if an endpoint is something else than etcd; may be empty
	keeper    etcdKeeper

	mu sync.Mutex
	// mu guards the fields below, and the keys
	watched bool
	err     error         // why the keys are not known now
	settled chan struct{} // closed once the keys or err are set since watch began
	next    int           // the endpoint to try first
}

// An etcdKeeper keeps the keys of an etcdCopy, in the form that it needs. The methods on locked keys are called with
// etcdCopy.mu held, and return whether a key that matters has changed.
type etcdKeeper interface {
	// accept looks at an answer before it replaces the keys: an error means that this answer is of no use.
	accept(s *etcd.Session, keys []etcd.KeyChange) error
	replaceLocked(keys []etcd.KeyChange) (changed bool)
	// applyLocked takes up changes. After an error the keys are not known.
	applyLocked(changes []etcd.KeyChange) (changed bool, err error)
}

// ready returns when the keys are known: at once or soon if watch runs, and otherwise by reading them. The error is a
// *ClusterError, or several.
func (c *etcdCopy) ready(ctx context.Context) (watched bool, err error) {
	c.mu.Lock()
	watched, settled := c.watched, c.settled
	c.mu.Unlock()
	if !watched {
		s, _, err := c.connect(ctx)
		if err == nil {
			s.Close()
		}
		return false, err
	}
	select {
	case <-settled:
	case <-ctx.Done():
		return true, &ClusterError{What: "etcd", Endpoints: c.endpoints, Kind: ErrNoAnswer, Detail: "timed out"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return true, c.err
}

// watch keeps the keys up to date, and calls changed whenever they or the error have changed, until ctx is done. It
// returns when no member of etcd answers.
func (c *etcdCopy) watch(ctx context.Context, changed func()) error {
	c.mu.Lock()
	c.watched = true
	c.mu.Unlock()
	for ctx.Err() == nil {
		s, revision, err := c.connect(ctx)
		changed()
		began := time.Now()
		if err == nil {
			if err = c.follow(ctx, s, revision, changed); err != nil {
				c.fail(err)
				changed()
			}
			s.Close()
		}
		if err != nil {
			if isOperators(err) {
				pauseFor(ctx, etcdMistakePause)
			}
			return err
		}
		if time.Since(began) < etcdQuickEnd {
			pauseFor(ctx, etcdQuickEnd)
		}
	}
	return nil
}

// follow takes up changes after a revision until the session fails or ctx is done. The error says that the keys are of
// no use; a failed session is none, since the next one tells.
func (c *etcdCopy) follow(ctx context.Context, s *etcd.Session, revision int64, changed func()) error {
	for {
		err := c.followOnce(ctx, s, revision, changed)
		if _, refused := errors.AsType[*ClusterError](err); refused {
			return err
		}
		if ctx.Err() != nil ||
			!errors.Is(err, etcd.ErrCompacted) && !errors.Is(err, etcd.ErrFlood) && !errors.Is(err, errReadAgain) {
			return nil
		}
		var keys []etcd.KeyChange
		keys, revision, err = s.Read(c.prefix, c.most)
		if errors.Is(err, etcd.ErrTooMany) {
			return c.explain(ctx, s.Endpoint(), err)
		}
		if err != nil {
			return nil
		}
		if c.take(keys) {
			changed()
		}
	}
}

// errReadAgain says that it is time to read all keys again.
var errReadAgain = errors.New("it is time to read again")

// followOnce follows a watch until it fails, or until it is time to read all keys again.
func (c *etcdCopy) followOnce(ctx context.Context, s *etcd.Session, revision int64, changed func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if c.again > 0 {
		timer := time.AfterFunc(c.again, func() { cancel(errReadAgain) })
		defer timer.Stop()
	}
	err := s.Follow(ctx, c.prefix, c.probed, revision, func(changes []etcd.KeyChange) {
		c.mu.Lock()
		did, err := c.keeper.applyLocked(changes)
		c.mu.Unlock()
		switch {
		case err != nil:
			cancel(err)
		case did:
			changed()
		}
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// isOperators reports whether an error stays until somebody changes a configuration or the keys. A login is expensive
// for etcd, and so is not tried often; and neither is a large answer that is then refused.
func isOperators(err error) bool {
	return errors.Is(err, ErrLogin) || errors.Is(err, ErrTLS) || errors.Is(err, ErrNoScope) ||
		errors.Is(err, ErrTooMuchData)
}

// pauseFor waits, at the longest until ctx is done.
func pauseFor(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// connect connects to the first member of etcd that answers, beginning behind the one that was used last, and takes the
// keys from its answer. If none answers, the keys are unknown from then on. The caller closes the session.
func (c *etcdCopy) connect(ctx context.Context) (s *etcd.Session, revision int64, err error) {
	var failures []*ClusterError
	n := len(c.endpoints)
	c.mu.Lock()
	first := c.next
	c.mu.Unlock()
	for i := range n {
		at := (first + i) % n
		s, revision, failure := c.try(ctx, c.endpoints[at])
		if failure == nil {
			c.mu.Lock()
			c.next = (at + 1) % n
			c.mu.Unlock()
			return s, revision, nil
		}
		failures = append(failures, failure)
		if ctx.Err() != nil {
			break
		}
	}
	err = joinClusterErrors(c.endpoints, failures)
	c.fail(err)
	return nil, 0, err
}

// try connects to one member of etcd and takes the keys from its answer.
func (c *etcdCopy) try(ctx context.Context, endpoint string) (*etcd.Session, int64, *ClusterError) {
	s, err := c.login.Open(ctx, endpoint)
	if err != nil {
		return nil, 0, c.explain(ctx, endpoint, err)
	}
	keys, revision, err := s.Read(c.prefix, c.most)
	if err == nil {
		err = c.keeper.accept(s, keys)
	}
	if err != nil {
		s.Close()
		return nil, 0, c.explain(ctx, endpoint, err)
	}
	c.take(keys)
	return s, revision, nil
}

// explain returns the error of one member of etcd in words that say what to do about it.
func (c *etcdCopy) explain(ctx context.Context, endpoint string, err error) *ClusterError {
	if own, is := errors.AsType[*ClusterError](err); is {
		own.What, own.Endpoints = "etcd", []string{endpoint}
		return own
	}
	m := c.login.Explain(ctx, endpoint, etcd.Needs{Prefix: c.prefix}, err)
	e := etcdError(m)
	if m.Kind == etcd.NotEtcd && c.noEtcd != "" {
		e.Detail += ": " + c.noEtcd
	}
	return e
}

// take replaces the keys by those of an answer, and reports whether that changes anything.
func (c *etcdCopy) take(keys []etcd.KeyChange) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := c.keeper.replaceLocked(keys)
	return c.settleLocked(nil) || changed
}

// fail sets why the keys are not known.
func (c *etcdCopy) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked(err)
}

// settleLocked sets why the keys are not known, or nil if they are, and reports whether that was otherwise before.
func (c *etcdCopy) settleLocked(err error) (changed bool) {
	changed = (c.err == nil) != (err == nil)
	c.err = err
	select {
	case <-c.settled:
	default:
		close(c.settled)
	}
	return changed
}
