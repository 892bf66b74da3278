package etcd

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Follow calls apply with the changes below a prefix after a revision, in their order, until the session ends or ctx
// does. The error says why; it is that of ctx if that has ended, and never nil. After ErrCompacted and ErrFlood the
// session goes on.
//
// probed is a key below the prefix that changes often: if a read finds it newer than what the watch has delivered, the
// watch is of no use any more, and the session ends with ErrBehind. If nothing changes often, probed is "". Then a read
// only shows that the member answers and has a majority, and a watch that delivers nothing is not noticed: the caller
// has to read all keys again from time to time.
//
// What is delivered at once has at most MaxBytes.
func (s *Session) Follow(
	ctx context.Context, prefix, probed string, revision int64, apply func([]KeyChange),
) error {
	callers := ctx
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	var seen atomic.Int64 // the last revision that the watch has delivered
	seen.Store(revision)
	var probing sync.WaitGroup
	defer probing.Wait()
	defer cancel()
	probing.Go(func() { s.probe(ctx, prefix, probed, &seen) })
	watched := s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	for r := range watched {
		switch err := r.Err(); {
		case r.CompactRevision > 0 || errors.Is(err, rpctypes.ErrCompacted):
			return ErrCompacted
		case isOversized(err):
			return ErrFlood
		case err != nil && callers.Err() != nil:
			return callers.Err()
		case err != nil:
			return s.Failure(err)
		}
		changes, last := changesOf(prefix, r.Events)
		if len(changes) > 0 {
			apply(changes)
			// not the revision of the answer, which may be that of changes still to come
			seen.Store(max(seen.Load(), last))
		}
	}
	if err := callers.Err(); err != nil {
		return err
	}
	return s.Failure(ErrLost)
}

// changesOf returns the changes of events, and the last revision.
func changesOf(prefix string, events []*clientv3.Event) (changes []KeyChange, last int64) {
	for _, e := range events {
		last = max(last, e.Kv.ModRevision)
		c := KeyChange{Key: strings.TrimPrefix(string(e.Kv.Key), prefix), Revision: e.Kv.ModRevision, Lease: e.Kv.Lease}
		if e.Type == clientv3.EventTypePut {
			c.Value = append([]byte{}, e.Kv.Value...) // an empty value is no nil
		}
		changes = append(changes, c)
	}
	return changes, last
}

// probe ends the session when a read that needs a majority fails, or when the watch has delivered nothing since the
// read before, although that found the probed key newer. Without a key it reads whichever is the first below the
// prefix. It returns when ctx is done, which requires a leader.
func (s *Session) probe(ctx context.Context, prefix, probed string, seen *atomic.Int64) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	key, options := probed, []clientv3.OpOption{clientv3.WithKeysOnly()}
	if probed == "" {
		key, options = prefix, append(options, clientv3.WithPrefix(), clientv3.WithLimit(1))
	}
	var known, reached int64 // at the last read: the revision of the key, and what the watch had delivered
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// A watch that is late, but delivers, stays: its successor would begin by reading everything, and so a fleet on slow
		// machines would never get over its start.
		at := seen.Load()
		if known > at && at == reached {
			s.end(ErrBehind)
			return
		}
		reached = at
		request, cancel := context.WithTimeout(ctx, Timeout) // ctx ends with the session, too
		r, err := s.client.Get(request, key, options...)
		cancel()
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil:
			s.end(s.Failure(err))
			return
		case probed != "" && len(r.Kvs) > 0:
			known = r.Kvs[0].ModRevision
		}
	}
}
