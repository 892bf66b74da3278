package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

var (
	// ErrNameTaken says that another process has joined the fleet under the name of this node.
	ErrNameTaken = errors.New("another node has this name")
	// ErrReplaced says that the process that takes over from this one has its name.
	ErrReplaced = errors.New("a new process has taken over the name of this node")
)

// An owner is what etcd has at the key of a node's name. Fleet.mu guards it.
type owner struct {
	claim
	revision int64 // of the key; 0 if etcd does not have it
	seen     int64 // the store's revision in which this was so
	lease    int64
}

// A claim is the value of that key. It is a plain value.
type claim struct {
	Instance string    `json:"instance"`
	After    string    `json:"after,omitempty"` // the instance that it takes over from
	Host     string    `json:"host"`
	Since    time.Time `json:"since"`
	process
}

// ownerKey returns the key of this node's name, without the fleet's prefix.
func (f *Fleet) ownerKey() string { return owners + Key(f.o.Node) }

// ownedLocked reports whether etcd says that this process has the name, under its present lease. Fleet.mu is held.
func (f *Fleet) ownedLocked() bool {
	return f.owner.revision > 0 && f.owner.Instance == f.o.Instance && f.owner.lease == f.lease && f.lease != 0
}

// setOwnerLocked takes up what etcd has at the key of the name; k.Value is nil if etcd does not have it. seen is the
// store's revision in which this was so. Fleet.mu is held.
func (f *Fleet) setOwnerLocked(k etcd.KeyChange, seen int64) {
	if seen < f.owner.seen {
		return
	}
	o := owner{revision: k.Revision, seen: seen, lease: k.Lease}
	if k.Value == nil {
		o.revision = 0
	} else if len(k.Value) > MaxValueBytes || json.Unmarshal(k.Value, &o.claim) != nil {
		o.claim = claim{} // nonsense owns nothing
	}
	f.owner = o
	if !f.ownedLocked() {
		f.poke()
	}
}

// taken returns why this node may not have its name; nil if it may.
func (f *Fleet) taken() error {
	f.mu.Lock()
	o := f.owner
	f.mu.Unlock()
	switch {
	case o.revision == 0 || o.Instance == "" || o.Instance == f.o.Instance || o.Instance == f.o.Before:
		return nil
	case o.isDead(f.process):
		return nil
	case o.After == f.o.Instance:
		return ErrReplaced
	}
	return fmt.Errorf("%w: %q, on host %q, since %s: give each node its own name with fleet.node",
		ErrNameTaken, f.o.Node, plain(o.Host), o.Since.UTC().Format(time.RFC3339))
}

// claimName makes this process the owner of the node's name.
func (f *Fleet) claimName(s *etcd.Session) error {
	host, _ := os.Hostname() // only people read it
	now := time.Now().UTC().Round(0)
	mine := claim{Instance: f.o.Instance, After: f.o.Before, Host: host, Since: now, process: f.process}
	value, err := json.Marshal(mine)
	if err != nil {
		return fmt.Errorf("claim the name: %w", err)
	}
	key := f.prefix + f.ownerKey()
	for {
		if err := f.taken(); err != nil {
			return err
		}
		f.mu.Lock()
		lease, known := f.lease, f.owner.revision
		f.mu.Unlock()
		r, err := f.commit(s,
			[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", known)},
			[]clientv3.Op{clientv3.OpPut(key, string(value), clientv3.WithLease(clientv3.LeaseID(lease)))},
			[]clientv3.Op{clientv3.OpGet(key)})
		if err != nil {
			return err
		}
		at := r.Header.Revision
		f.mu.Lock()
		if r.Succeeded {
			f.setOwnerLocked(etcd.KeyChange{Value: value, Revision: at, Lease: lease}, at)
		} else {
			f.setOwnerLocked(f.found(r)[f.ownerKey()], at)
		}
		done := r.Succeeded || f.ownedLocked()
		f.mu.Unlock()
		if done {
			return nil
		}
	}
}
