package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

const (
	// leaseTime is how long the keys of a node outlive it. A member of etcd that hangs is left after 6 s, so that a node
	// that looks for another one does not vanish.
	leaseTime = 12 * time.Second
	// renewEvery is how often the lease is renewed.
	renewEvery = leaseTime / 4
	// retryPause is between two attempts to connect to all members in turn, longer by up to as much, so that a fleet
	// does not come back at once.
	retryPause = 500 * time.Millisecond
	// maxKeys bounds the keys of a fleet: 10,000 backends with two verdicts and two changes each, and as much again.
	maxKeys = 100_000
	// batchKeys is how many keys one transaction writes; etcd allows 128 by default.
	batchKeys = 100
	// leaveTimeout bounds how long Leave takes.
	leaveTimeout = 2 * time.Second
)

// ErrNameTaken says that another process has joined the fleet under the name of this node.
var ErrNameTaken = errors.New("another node has this name")

// Run keeps the connection until ctx is done. Then this node's keys stay until Leave, or until its lease ends.
func (f *Fleet) Run(ctx context.Context) {
	next := 0
	for ctx.Err() == nil {
		endpoint := f.o.Endpoints[next%len(f.o.Endpoints)]
		next++
		err := f.serve(ctx, endpoint)
		if ctx.Err() != nil {
			return
		}
		f.setLink(Link{Endpoint: endpoint, Err: f.explain(ctx, endpoint, err)})
		if next%len(f.o.Endpoints) == 0 {
			pause(ctx, retryPause+rand.N(retryPause))
		}
	}
}

// explain returns the error of a member of etcd in words that say what to do about it.
func (f *Fleet) explain(ctx context.Context, endpoint string, err error) error {
	if errors.Is(err, ErrNameTaken) {
		return err
	}
	return f.o.Login.Explain(ctx, endpoint, etcd.Needs{Prefix: f.prefix, Write: true}, err)
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
	defer s.Close()
	revision, err := f.look(s)
	if err != nil {
		return err
	}
	if err := f.join(s); err != nil {
		return err
	}
	f.setLink(Link{Up: true, Endpoint: endpoint})
	f.tell(nil)
	f.poke()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var working sync.WaitGroup
	defer working.Wait()
	defer cancel()
	working.Go(func() { f.write(ctx, s) })
	working.Go(func() { f.renew(ctx, s) })
	for {
		err := s.Follow(ctx, f.prefix, f.prefix+Nodes+Key(f.o.Node), revision, f.apply)
		if !errors.Is(err, etcd.ErrCompacted) {
			return err
		}
		if revision, err = f.look(s); err != nil {
			return err
		}
		f.tell(nil)
	}
}

// look reads all keys.
func (f *Fleet) look(s *etcd.Session) (revision int64, err error) {
	keys, revision, err := s.Read(f.prefix, maxKeys)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.there)
	seen := make(map[string]bool)
	for _, k := range keys {
		if seen[k.Key] = true; IsRecord(k.Key) {
			_, _ = f.takeLocked(k.Key, k.Value, k.Revision)
		} else {
			f.there[k.Key] = k
		}
	}
	for key := range f.records {
		if !seen[key] {
			_, _ = f.takeLocked(key, nil, 0)
		}
	}
	return revision, nil
}

// apply takes up changes that etcd has delivered.
func (f *Fleet) apply(changes []etcd.KeyChange) {
	var keys []string
	overruled := make(map[string]Record)
	f.mu.Lock()
	f.stats.Changes += uint64(len(changes))
	for _, k := range changes {
		if IsRecord(k.Key) {
			changed, by := f.takeLocked(k.Key, k.Value, k.Revision)
			if changed {
				keys = append(keys, k.Key)
			}
			if by != nil {
				overruled[k.Key] = *by
			}
			continue
		}
		if k.Value == nil {
			delete(f.there, k.Key)
		} else {
			f.there[k.Key] = k
		}
		if said := f.said[k.Key]; said != nil && said.value != nil && string(said.value) != string(k.Value) {
			f.poke()
		}
		keys = append(keys, k.Key)
	}
	close(f.settled)
	f.settled = make(chan struct{})
	f.mu.Unlock()
	if len(keys) > 0 {
		f.tell(keys)
	}
	if f.o.Overruled != nil {
		for key, by := range overruled {
			f.o.Overruled(key, by)
		}
	}
}

// join makes sure that no other process has the name of this node, and that there is a lease.
func (f *Fleet) join(s *etcd.Session) error {
	key := Nodes + Key(f.o.Node)
	var n Node
	if value := f.HeardOf(key); value != nil && json.Unmarshal(value, &n) == nil &&
		n.Instance != f.o.Instance && n.Instance != f.o.Before {
		return fmt.Errorf("%w: %q, on host %q, since %s", ErrNameTaken, f.o.Node, n.Host, n.Started.UTC().Format(time.RFC3339))
	}
	return f.keepLease(s)
}

// keepLease renews the lease, or gets another one.
func (f *Fleet) keepLease(s *etcd.Session) error {
	f.mu.Lock()
	lease := f.lease
	f.mu.Unlock()
	ctx, cancel := s.Request()
	defer cancel()
	if lease != 0 {
		_, err := s.Client().KeepAliveOnce(ctx, clientv3.LeaseID(lease))
		if err == nil {
			return nil
		}
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return s.Failure(err)
		}
	}
	r, err := s.Client().Grant(ctx, int64(leaseTime/time.Second))
	if err != nil {
		return s.Failure(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lease = int64(r.ID)
	f.poke()
	return nil
}

// renew renews the lease until the session ends.
func (f *Fleet) renew(ctx context.Context, s *etcd.Session) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if f.keepLease(s) != nil {
			s.Close()
			return
		}
	}
}

// Leave ends this node's lease, and with it all that it says. It takes up to 2 s. Run must have returned.
func (f *Fleet) Leave(ctx context.Context) {
	f.mu.Lock()
	lease, endpoint := f.lease, f.link.Endpoint
	f.lease = 0
	f.mu.Unlock()
	if lease == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	s, err := f.o.Login.Open(ctx, endpoint)
	if err != nil {
		return
	}
	defer s.Close()
	_, _ = s.Client().Revoke(ctx, clientv3.LeaseID(lease))
}

// unwritten returns what this node says and etcd does not have, and records that it does not have.
func (f *Fleet) unwritten() (ops []write) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, said := range f.said {
		there, is := f.there[key]
		switch {
		case said.value == nil && !is:
			delete(f.said, key)
		case said.value == nil && there.Lease == f.lease:
			ops = append(ops, write{key: key, op: clientv3.OpDelete(f.prefix + key)})
		case said.value == nil: // another process says it now
			delete(f.said, key)
		case !is || string(there.Value) != string(said.value) || there.Lease != f.lease:
			ops = append(ops, write{key: key, value: said.value,
				op: clientv3.OpPut(f.prefix+key, string(said.value), clientv3.WithLease(clientv3.LeaseID(f.lease)))})
		}
	}
	for key, k := range f.records {
		if !k.pending {
			continue
		}
		text, err := json.Marshal(k.record)
		if err != nil {
			continue // a bug: its value is no JSON
		}
		ops = append(ops, write{key: key, value: text, record: true,
			op:  clientv3.OpPut(f.prefix+key, string(text)),
			cmp: clientv3.Compare(clientv3.ModRevision(f.prefix+key), "=", k.revision)})
	}
	return ops
}

// A write is a change that etcd has to get.
type write struct {
	key    string
	value  []byte // nil to delete the key
	record bool
	op     clientv3.Op
	cmp    clientv3.Cmp // of a record
}

// write writes what etcd does not have, whenever there is something, until ctx is done.
func (f *Fleet) write(ctx context.Context, s *etcd.Session) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		}
		ops := f.unwritten()
		for len(ops) > 0 {
			n := min(len(ops), batchKeys)
			if !f.writeAll(s, ops[:n]) {
				s.Close()
				return
			}
			ops = ops[n:]
		}
	}
}

// writeAll writes some changes in one transaction or, if one of the records was changed by another node, each by
// itself. It reports false if etcd does not answer.
func (f *Fleet) writeAll(s *etcd.Session, ops []write) bool {
	done, err := f.commit(s, ops)
	if err != nil {
		return false
	}
	if done || len(ops) == 1 {
		return true
	}
	for i := range ops {
		if _, err := f.commit(s, ops[i:i+1]); err != nil {
			return false
		}
	}
	return true
}

// commit writes changes in one transaction. It reports whether none of the records was changed by another node.
func (f *Fleet) commit(s *etcd.Session, ops []write) (bool, error) {
	ctx, cancel := s.Request()
	defer cancel()
	var cmps []clientv3.Cmp
	var then, otherwise []clientv3.Op
	for _, w := range ops {
		then = append(then, w.op)
		if w.record {
			cmps = append(cmps, w.cmp)
			otherwise = append(otherwise, clientv3.OpGet(f.prefix+w.key))
		}
	}
	r, err := s.Client().Txn(ctx).If(cmps...).Then(then...).Else(otherwise...).Commit()
	f.mu.Lock()
	f.stats.Writes++
	if err != nil {
		f.stats.WriteFailures++
	}
	f.mu.Unlock()
	if err != nil {
		return false, s.Failure(err)
	}
	var changes []etcd.KeyChange
	if r.Succeeded {
		for _, w := range ops {
			k := etcd.KeyChange{Key: w.key, Value: w.value, Revision: r.Header.Revision}
			if !w.record {
				f.mu.Lock()
				k.Lease = f.lease
				f.mu.Unlock()
			}
			changes = append(changes, k)
		}
	} else {
		for _, answer := range r.Responses {
			for _, kv := range answer.GetResponseRange().Kvs {
				changes = append(changes, etcd.KeyChange{
					Key: strings.TrimPrefix(string(kv.Key), f.prefix), Value: kv.Value, Revision: kv.ModRevision,
				})
			}
		}
	}
	f.apply(changes)
	return r.Succeeded, nil
}
