package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

const (
	// retryPause is between two attempts to connect to all members in turn, longer by up to as much, so that a fleet
	// does not come back at once.
	retryPause = 500 * time.Millisecond
	// mostDoublings is how often retryPause doubles while etcd does not answer in time: a large fleet that comes back must
	// not keep etcd so busy with its attempts that none of them succeeds. In the simulation, 100 nodes did so for ever.
	mostDoublings = 4
	// refusedPause is such a pause after an answer that another attempt will not change soon.
	refusedPause = 2 * time.Second
	// fullPause is such a pause if there are too many keys: each attempt may read 64 MiB of them.
	fullPause = 10 * time.Second
)

// Run keeps the connection until ctx is done. Then this node's keys stay until Leave, or until its lease ends.
//
// If a new process takes over this node's name, this one says and writes nothing more. It goes on if the new one does
// not stay: an upgrade may still fail then.
func (f *Fleet) Run(ctx context.Context) {
	// Each node begins with another member, so that they share the work.
	endpoints := f.endpointsFrom(f.o.Endpoints[rand.N(len(f.o.Endpoints))])
	slow := 0 // attempts in a row that etcd was too slow for
	for next := 0; ctx.Err() == nil; next++ {
		endpoint := endpoints[next%len(endpoints)]
		err := f.serve(ctx, endpoint)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, ErrReplaced) {
			f.replaced(endpoint, err)
			pause(ctx, refusedPause)
			continue
		}
		f.linkDown(endpoint, f.inWords(ctx, endpoint, err))
		if slow++; !errors.Is(err, context.DeadlineExceeded) {
			slow = 0
		}
		switch {
		case errors.Is(err, etcd.ErrTooMany):
			pause(ctx, fullPause+rand.N(fullPause))
		case errors.Is(err, ErrNameTaken) || isRefusal(err):
			pause(ctx, refusedPause+rand.N(retryPause))
		case (next+1)%len(endpoints) == 0:
			between := retryPause << min(slow, mostDoublings)
			pause(ctx, between+rand.N(between))
		}
	}
}

// inWords returns the error of a member of etcd in words that say what to do about it.
func (f *Fleet) inWords(ctx context.Context, endpoint string, err error) error {
	if errors.Is(err, ErrNameTaken) {
		return err
	}
	return f.o.Login.Explain(ctx, endpoint, etcd.Needs{Prefix: f.prefix, Write: true}, err)
}

// endpointsFrom returns the endpoints in turn, from one of them on.
func (f *Fleet) endpointsFrom(first string) []string {
	i := max(0, slices.Index(f.o.Endpoints, first))
	return slices.Concat(f.o.Endpoints[i:], f.o.Endpoints[:i])
}

// replaced records that a new process has this node's name. What this one has said stays until the new one says it, or
// until the lease ends.
func (f *Fleet) replaced(endpoint string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lease = 0
	f.loseLinkLocked(endpoint, err)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// serve connects to one member and stays with it until it fails. The error says why.
func (f *Fleet) serve(ctx context.Context, endpoint string) error {
	s, err := f.o.Login.Open(ctx, endpoint)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	var working sync.WaitGroup
	defer func() {
		end(nil)
		s.Close()
		working.Wait()
	}()
	work := func(do func(context.Context, *etcd.Session) error) {
		if err := do(ctx, s); err != nil {
			end(err)
		}
	}
	working.Go(func() { work(f.renew) }) // the first look may take longer than the lease, if etcd is slow
	revision, err := f.look(s)
	if err != nil {
		return err
	}
	if err := f.taken(); err != nil {
		return err
	}
	f.linkUp(endpoint)
	working.Go(func() { work(f.write) })
	err = s.Follow(ctx, f.prefix, f.prefix+Nodes+Key(f.o.Node), revision, func(changes []etcd.KeyChange) {
		if err := f.apply(changes); err != nil {
			end(err)
		}
	})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// look reads all keys.
func (f *Fleet) look(s *etcd.Session) (revision int64, err error) {
	keys, revision, err := s.Read(f.prefix, maxKeys)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	f.mu.Lock()
	f.owner = owner{}
	var values, records []etcd.KeyChange
	for _, k := range keys {
		switch {
		case k.Key == f.ownerKey():
			f.setOwnerLocked(k, revision)
		case IsRecord(k.Key) && ours(k.Key):
			records = append(records, k)
		case ours(k.Key):
			values = append(values, k)
		}
	}
	var away time.Duration
	if !f.contact.IsZero() {
		away = now.Sub(f.contact)
	}
	f.hearAllLocked(values, now)
	n := f.takeAllLocked(records, revision, away, now)
	f.mu.Unlock()
	f.tell(n)
	return revision, nil
}

// apply takes up changes that etcd has delivered. An error says why this node cannot go on.
func (f *Fleet) apply(changes []etcd.KeyChange) error {
	var n news
	now := time.Now()
	f.mu.Lock()
	f.stats.Changes += uint64(len(changes))
	wipes := f.wipesLocked(changes)
	for _, k := range changes {
		switch {
		case k.Key == f.ownerKey():
			f.setOwnerLocked(k, k.Revision)
		case !ours(k.Key):
			f.stats.Ignored++
		case IsRecord(k.Key):
			f.takeInto(&n, k, k.Revision, now)
		case f.hearLocked(k, wipes[k.Revision], now):
			n.keys = append(n.keys, k.Key)
		}
	}
	err := f.weighLocked(changes)
	f.mu.Unlock()
	f.tell(n)
	return err
}

// weighLocked returns an error if this node keeps too much after changes. Fleet.mu is held.
func (f *Fleet) weighLocked(changes []etcd.KeyChange) error {
	if f.heard.size+f.records.size > maxKeys {
		return fmt.Errorf("%w: more than %d", etcd.ErrTooMany, maxKeys)
	}
	for _, k := range changes {
		f.unweighed += len(k.Key) + len(k.Value)
	}
	if f.unweighed < weighEvery {
		return nil
	}
	f.unweighed = 0
	bytes := 0
	for key, h := range f.heard.under("") {
		bytes += len(key) + len(h.value)
	}
	for key, k := range f.records.under("") {
		bytes += len(key) + len(k.record.Value)
	}
	if bytes > maxBytes {
		return fmt.Errorf("%w: more than %d MiB", etcd.ErrTooMany, maxBytes>>20)
	}
	return nil
}

// takeInto is takeLocked, with the outcome added to n.
func (f *Fleet) takeInto(n *news, k etcd.KeyChange, seen int64, now time.Time) {
	different, by := f.takeLocked(k, seen, now)
	if different {
		n.keys = append(n.keys, k.Key)
	}
	if by != nil {
		n.overrule(k.Key, *by)
	}
}
