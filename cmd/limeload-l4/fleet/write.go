package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

const (
	// mostOps is how many keys one transaction writes; etcd allows 128 by default.
	mostOps = 100
	// mostBytes bounds the values of one transaction, unless it is only one; etcd allows 1.5 MiB by default.
	mostBytes = 512 << 10
	// gatherFor is how long the writer waits for further changes after the first one, so that one transaction has many.
	gatherFor = 5 * time.Millisecond
	// writePause is after a transaction that etcd has refused; it doubles up to maxWritePause.
	writePause    = 250 * time.Millisecond
	maxWritePause = 10 * time.Second
	// asideFor is how long a value that etcd has refused waits, so that it does not keep others from being written.
	asideFor = 5 * time.Second
	// writerTick is how often the writer looks for what is due by time.
	writerTick = 500 * time.Millisecond
)

// write writes what etcd does not have until ctx is done or etcd does not answer. The error says why.
func (f *Fleet) write(ctx context.Context, s *etcd.Session) error {
	w := &writer{fleet: f, session: s, most: mostOps, aside: make(map[string]time.Time)}
	tick := time.NewTicker(writerTick)
	defer tick.Stop()
	for ctx.Err() == nil {
		more, err := w.step(time.Now())
		switch {
		case isRefusal(err):
			f.setTrouble(f.inWords(ctx, s.Endpoint(), err))
			pause(ctx, min(maxWritePause, writePause<<min(w.refused, 10)))
			w.refused++
			continue
		case err != nil:
			return err
		case more:
			continue
		}
		if len(w.aside) == 0 {
			f.setTrouble(nil)
			w.refused = 0
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-f.wake:
			pause(ctx, gatherFor)
		}
	}
	return nil
}

// isRefusal reports whether an error is an answer of etcd to what was asked, so that another member will answer alike.
func isRefusal(err error) bool {
	var answer rpctypes.EtcdError
	if !errors.As(err, &answer) {
		return errors.Is(err, etcd.ErrTooMany)
	}
	switch answer.Code() {
	case codes.PermissionDenied, codes.ResourceExhausted, codes.InvalidArgument, codes.FailedPrecondition:
		return true
	}
	return false
}

// A writer writes for one session. It is not safe for concurrent use.
type writer struct {
	fleet   *Fleet
	session *etcd.Session
	most    int                  // operations of the next transaction; fewer after one that has failed
	refused int                  // transactions in a row
	aside   map[string]time.Time // keys that were refused: until when they wait
}

// step does one piece of work. It reports whether there may be more.
func (w *writer) step(now time.Time) (more bool, err error) {
	f := w.fleet
	f.mu.Lock()
	lease, owned := f.lease, f.ownedLocked()
	n := news{keys: f.endSparedLocked(now)}
	f.repairLocked(now, &n)
	f.mu.Unlock()
	if len(n.keys) > 0 {
		f.tell(n)
	}
	switch {
	case lease == 0:
		return true, f.grantLease(w.session)
	case !owned:
		return true, f.claimName(w.session)
	}
	maps.DeleteFunc(w.aside, func(_ string, until time.Time) bool { return !now.Before(until) })
	if said := f.unsaidOps(w.most, w.aside); len(said) > 0 {
		done, err := f.writeSaid(w.session, said)
		return true, w.adapt(said[0].key, len(said), done, err)
	}
	if records := f.recordOps(w.most, w.aside); len(records) > 0 {
		done, err := f.writeRecords(w.session, records)
		return true, w.adapt(records[0].key, len(records), done, err)
	}
	return false, f.clean(w.session, now)
}

// adapt chooses what is next by the outcome of the last transaction, which had a number of keys, one of them first.
func (w *writer) adapt(first string, keys int, done bool, err error) error {
	switch {
	case err != nil && keys > 1:
		w.most = 1 // to find the one that is refused
	case err != nil:
		w.aside[first] = time.Now().Add(asideFor)
	case done:
		w.most, w.refused = min(2*w.most, mostOps), 0
	default:
		w.most = max(1, w.most/2)
	}
	return err
}

// A saidOp is one value for etcd, or the end of one.
type saidOp struct {
	key   string
	value []byte // nil for the end
	lease int64
}

// op returns the operation of etcd. Only a value under the present lease is removed: another process may say it now.
func (o saidOp) op(prefix string) clientv3.Op {
	key := prefix + o.key
	if o.value != nil {
		return clientv3.OpPut(key, string(o.value), clientv3.WithLease(clientv3.LeaseID(o.lease)))
	}
	return clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(key), "=", o.lease)},
		[]clientv3.Op{clientv3.OpDelete(key)}, nil)
}

// unsaidOps returns what this node says and etcd does not have, up to a number and without some keys.
func (f *Fleet) unsaidOps(most int, without map[string]time.Time) (ops []saidOp) {
	f.mu.Lock()
	defer f.mu.Unlock()
	bytes := 0
	for key := range f.unsaid {
		if _, is := without[key]; is {
			continue
		}
		s := f.said[key]
		if bytes += len(key) + len(s.value); len(ops) > 0 && (len(ops) == most || bytes > mostBytes) {
			break
		}
		ops = append(ops, saidOp{key, s.value, f.lease})
	}
	return ops
}

// writeSaid writes values in one transaction. It reports false if another process has the name of this node, or the
// lease has ended, and nothing was written.
func (f *Fleet) writeSaid(s *etcd.Session, said []saidOp) (bool, error) {
	lease := said[0].lease
	ops := make([]clientv3.Op, len(said))
	for i, o := range said {
		ops[i] = o.op(f.prefix)
	}
	name := f.prefix + f.ownerKey()
	r, err := f.commit(s, []clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(name), "=", lease)}, ops,
		[]clientv3.Op{clientv3.OpGet(name)})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		f.dropLease(clientv3.LeaseID(lease))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !r.Succeeded {
		f.setOwnerLocked(f.found(r)[f.ownerKey()], r.Header.Revision)
		return false, nil
	}
	for _, o := range said {
		f.writtenLocked(o, r.Header.Revision)
	}
	return true, nil
}

// writtenLocked records that etcd has got a value. Fleet.mu is held.
func (f *Fleet) writtenLocked(o saidOp, revision int64) {
	s := f.said[o.key]
	if s == nil || revision < s.revision { // it is known what etcd has since
		return
	}
	s.revision = revision
	switch {
	case (s.value == nil) != (o.value == nil) || string(s.value) != string(o.value) || f.lease != o.lease:
		return // something else is said by now
	case o.value == nil:
		delete(f.said, o.key)
	}
	delete(f.unsaid, o.key)
}

// A recordOp is one record for etcd.
type recordOp struct {
	key      string
	text     []byte
	revision int64 // that the key must have
	repair   bool  // etcd had lost it
}

// recordOps returns records that this node must write, up to a number and without some keys.
func (f *Fleet) recordOps(most int, without map[string]time.Time) (ops []recordOp) {
	f.mu.Lock()
	defer f.mu.Unlock()
	bytes := 0
	for key, k := range f.unwritten {
		if _, is := without[key]; is {
			continue
		}
		text := k.record.text()
		if bytes += len(key) + len(text); len(ops) > 0 && (len(ops) == most || bytes > mostBytes) {
			break
		}
		ops = append(ops, recordOp{key, text, k.revision, k.state == lost})
	}
	return ops
}

// writeRecords writes records in one transaction. It reports false if another node has changed one of them meanwhile:
// then nothing was written, and this node knows the changes.
func (f *Fleet) writeRecords(s *etcd.Session, records []recordOp) (bool, error) {
	var cmps []clientv3.Cmp
	var then, otherwise []clientv3.Op
	for _, o := range records {
		key := f.prefix + o.key
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(key), "=", o.revision))
		then = append(then, clientv3.OpPut(key, string(o.text)))
		otherwise = append(otherwise, clientv3.OpGet(key))
	}
	r, err := f.commit(s, cmps, then, otherwise)
	if err != nil {
		return false, err
	}
	at, now := r.Header.Revision, time.Now()
	there := f.found(r)
	var n news
	f.mu.Lock()
	for _, o := range records {
		k := there[o.key] // no value: etcd does not have the key
		k.Key = o.key
		if r.Succeeded {
			k.Value, k.Revision = o.text, at
			if o.repair {
				f.stats.Repairs++
			}
		}
		f.takeInto(&n, k, at, now)
	}
	f.mu.Unlock()
	f.tell(n)
	return r.Succeeded, nil
}

// commit asks for a transaction.
func (f *Fleet) commit(
	s *etcd.Session, cmps []clientv3.Cmp, then, otherwise []clientv3.Op,
) (*clientv3.TxnResponse, error) {
	ctx, cancel := s.Request()
	defer cancel()
	r, err := s.Client().Txn(ctx).If(cmps...).Then(then...).Else(otherwise...).Commit()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Writes++
	if err != nil {
		f.stats.WriteFailures++
		return nil, s.Failure(err)
	}
	return r, nil
}

// found returns what the answer to a transaction has, by key. Keys that etcd does not have are not there.
func (f *Fleet) found(r *clientv3.TxnResponse) map[string]etcd.KeyChange {
	all := make(map[string]etcd.KeyChange)
	for _, answer := range r.Responses {
		for _, kv := range answer.GetResponseRange().GetKvs() {
			key := strings.TrimPrefix(string(kv.Key), f.prefix)
			value := slices.Concat([]byte{}, kv.Value)
			all[key] = etcd.KeyChange{Key: key, Value: value, Revision: kv.ModRevision, Lease: kv.Lease}
		}
	}
	return all
}
