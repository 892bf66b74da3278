package fleet

import (
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

const (
	// repairEvery is how often this node looks for records that etcd has lost, and that it should write.
	repairEvery = 500 * time.Millisecond
	// repairStep is how long each node leaves a lost record to the one before it in the order of duty: the first one
	// writes it at once.
	repairStep = 3 * time.Second
	// cleanEvery is how often a node looks for records that nobody needs any more.
	cleanEvery = time.Minute
	// cleanMost bounds the records that it removes then; the rest follow at once.
	cleanMost = mostOps
)

// repairLocked finds the lost records that it is this node's turn to write, and forgets those that nobody needs.
// Fleet.mu is held.
func (f *Fleet) repairLocked(now time.Time, n *news) {
	if len(f.lost) == 0 || now.Before(f.repairAt) {
		return
	}
	f.repairAt = now.Add(repairEvery)
	names := f.namesLocked()
	for key, k := range f.lost {
		switch turn := time.Duration(rank(names, f.o.Node, key)) * repairStep; {
		case k.record.forgotten(now):
			f.forgetLocked(k)
			n.keys = append(n.keys, key)
		case now.Sub(k.lostAt) >= turn:
			f.unwritten[key] = k
		}
	}
	for key := range f.unwritten {
		delete(f.lost, key)
	}
}

// namesLocked returns the names of the nodes. Fleet.mu is held.
func (f *Fleet) namesLocked() []string {
	nodes := f.nodesLocked()
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	return names
}

// clean removes records that nobody needs any more from etcd, if it is this node's duty and time.
func (f *Fleet) clean(s *etcd.Session, now time.Time) error {
	outdated := f.outdated(now)
	if len(outdated) == 0 {
		return nil
	}
	var cmps []clientv3.Cmp
	var then, otherwise []clientv3.Op
	for _, o := range outdated {
		key := f.prefix + o.key
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(key), "=", o.revision))
		then = append(then, clientv3.OpDelete(key))
		otherwise = append(otherwise, clientv3.OpGet(key))
	}
	r, err := f.commit(s, cmps, then, otherwise)
	if err != nil {
		return err
	}
	there := f.found(r)
	var n news
	f.mu.Lock()
	for _, o := range outdated {
		k := there[o.key]
		k.Key = o.key
		f.takeInto(&n, k, r.Header.Revision, now)
	}
	f.mu.Unlock()
	f.tell(n)
	return nil
}

// outdated returns records of etcd that nobody needs any more, and that this node has to remove.
func (f *Fleet) outdated(now time.Time) (all []recordOp) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Before(f.cleanAt) {
		return nil
	}
	names := f.namesLocked()
	for key, k := range f.records.under("") {
		if len(all) == cleanMost {
			return all // cleanAt stays: the rest follows
		}
		there := k.state == settled && k.revision > 0
		if there && k.record.forgotten(now.Add(-forgetAfter)) && rank(names, f.o.Node, key) == 0 {
			all = append(all, recordOp{key: key, revision: k.revision})
		}
	}
	f.cleanAt = now.Add(cleanEvery)
	return all
}
