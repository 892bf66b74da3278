package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

// A kept record is one that this node knows. Fleet.mu guards it.
type kept struct {
	key      string
	record   Record
	state    keptState
	revision int64     // of etcd's key, for the next write; 0 if etcd does not have it
	seen     int64     // the store's revision in which this was so; 0 if it is not known on this connection
	lostAt   time.Time // if lost
}

// A keptState says what etcd has of a record.
type keptState uint8

const (
	settled     keptState = iota // the same, or it is not known yet
	lost                         // nothing, or something that the record holds over: some node must write it
	changed                      // not yet: this node has changed it
	changedAway                  // not yet: this node has changed it, and later changes may have been made meanwhile
)

// Change makes a new record of a key, from now on for this node, and soon for all. Only its By, Until, Undone and Value
// are used. It returns the record. If CanChange says that it cannot, nothing happens, and the record is the zero value.
func (f *Fleet) Change(key string, r Record) Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.canChangeLocked(key, r); err != nil {
		f.stats.Refused++
		return Record{}
	}
	k := f.records.get(key)
	if k == nil {
		k = &kept{key: key}
		f.records.set(key, k)
	}
	r.Serial, r.At = k.record.after(time.Now())
	r.Node = f.o.Node
	if r, err := r.normal(); err == nil {
		k.record = r
	}
	state := changed
	if !f.link.Up {
		state = changedAway
	}
	f.setStateLocked(k, state)
	return k.record
}

// CanChange returns why Change would change nothing; nil if it does. It says so of a value that is no JSON or is too
// large, of a key that is not one of records, and of one record too many.
func (f *Fleet) CanChange(key string, r Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.canChangeLocked(key, r)
}

func (f *Fleet) canChangeLocked(key string, r Record) error {
	if !IsRecord(key) {
		return fmt.Errorf("%q: %w", shortened(key), ErrBadKey)
	}
	r.Node, r.At, r.Serial = f.o.Node, time.Now(), 1
	r, err := r.normal()
	if err != nil {
		return fmt.Errorf("the value of %q: %w", shortened(key), err)
	}
	if f.records.get(key) == nil && f.records.size >= maxKeys/2 {
		return fmt.Errorf("%d records: %w", f.records.size+1, ErrTooLarge)
	}
	return Allowed(key, r.Value)
}

// Records returns the records whose keys begin with prefix, also those that etcd does not have yet, and those that are
// undone.
func (f *Fleet) Records(prefix string) map[string]Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string]Record)
	for key, k := range f.records.under(prefix) {
		all[key] = k.record
	}
	return all
}

// Settle waits until etcd has the present record of a key, or one that overrules it. The error is that of ctx.
func (f *Fleet) Settle(ctx context.Context, key string) error {
	for {
		f.mu.Lock()
		k, settling := f.records.get(key), f.settled
		done := k == nil || k.state == settled
		f.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-settling:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setStateLocked sets the state of a record, and what must be done for it. Fleet.mu is held.
func (f *Fleet) setStateLocked(k *kept, state keptState) {
	delete(f.lost, k.key)
	delete(f.unwritten, k.key)
	if k.state != settled && state == settled {
		close(f.settled)
		f.settled = make(chan struct{})
	}
	k.state = state
	switch state {
	case lost:
		f.lost[k.key] = k
	case changed, changedAway:
		f.unwritten[k.key] = k
	case settled:
		return
	}
	f.poke()
}

// forgetLocked removes a record. Fleet.mu is held.
func (f *Fleet) forgetLocked(k *kept) {
	f.setStateLocked(k, settled)
	f.records.remove(k.key)
}

// takeLocked compares what etcd has for a key with what this node knows; k.Value is nil if etcd does not have it. seen
// is the store's revision in which this was so. It reports whether the node's record has changed and, if a change that
// this node has made yields, the record that overrules it. Fleet.mu is held.
func (f *Fleet) takeLocked(e etcd.KeyChange, seen int64, now time.Time) (different bool, overruled *Record) {
	r, is := parseRecord(e.Value)
	if !is && e.Value != nil {
		f.stats.Ignored++
	}
	k := f.records.get(e.Key)
	switch {
	case k == nil && is:
		f.records.set(e.Key, &kept{key: e.Key, record: r, revision: e.Revision, seen: seen})
		return true, nil
	case k == nil || seen < k.seen: // the watch is behind what a write of this node has found
		return false, nil
	}
	k.seen, k.revision = seen, e.Revision
	if e.Value == nil {
		k.revision = 0
	}
	own := k.state == changed || k.state == changedAway
	switch {
	case is && r.same(k.record):
		f.setStateLocked(k, settled)
		return false, nil
	case is && k.yieldsTo(r):
		if own {
			overruled = &r
		}
		k.record = r
		f.setStateLocked(k, settled)
		return true, overruled
	case own:
		if is {
			serial, _ := r.after(now)
			k.record.Serial = max(k.record.Serial, serial)
		}
		f.poke()
		return false, nil
	case k.record.forgotten(now):
		f.forgetLocked(k)
		return true, nil
	}
	if k.state != lost { // deletion is no change, nor is nonsense or a record of before
		k.lostAt = now
		f.setStateLocked(k, lost)
	}
	return false, nil
}

// yieldsTo reports whether another record, which etcd has, holds over this one.
func (k *kept) yieldsTo(r Record) bool {
	switch k.state {
	case changed: // what reaches etcd last holds
		return false
	case changedAway: // the later change holds
		return r.later(k.record)
	case settled, lost:
	}
	return r.newer(k.record)
}

// takeAllLocked takes up all records that etcd has, in a revision of the store. Revisions of before mean nothing, since
// the store may be another one. away is how long this node had no connection. Fleet.mu is held.
func (f *Fleet) takeAllLocked(all []etcd.KeyChange, revision int64, away time.Duration, now time.Time) (n news) {
	for _, k := range f.records.under("") {
		k.seen, k.revision = 0, 0
		if k.state == lost { // the nodes take turns again
			k.lostAt = now
			f.setStateLocked(k, lost)
		}
	}
	for _, k := range all {
		if _, by := f.takeLocked(k, revision, now); by != nil {
			n.overrule(k.Key, *by)
		}
	}
	var gone []*kept
	for _, k := range f.records.under("") {
		if k.seen == 0 {
			gone = append(gone, k)
		}
	}
	for _, k := range gone {
		// Somebody may have undone it meanwhile, and all may have forgotten that. But if the store is empty, it is a new one.
		if away > undoneKept && len(all) > 0 && (k.state == settled || k.state == lost) {
			f.forgetLocked(k)
			continue
		}
		_, _ = f.takeLocked(etcd.KeyChange{Key: k.key}, revision, now)
	}
	n.all = true
	return n
}

// overrule notes that a change of this node yields.
func (n *news) overrule(key string, by Record) {
	if n.overruled == nil {
		n.overruled = make(map[string]Record)
	}
	n.overruled[key] = by
}

// A Saved record is one that outlives the process. It is a plain value.
type Saved struct {
	Record
	Pending bool      `json:"pending,omitempty"` // this node has changed it, and etcd does not have it yet
	Seen    time.Time `json:"seen,omitzero"`     // when this node had a connection to etcd last
}

// Saved returns all records, for Restore of the next process.
func (f *Fleet) Saved() map[string]Saved {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.contact
	if f.link.Up {
		seen = time.Now()
	}
	seen = seen.UTC().Round(time.Second)
	all := make(map[string]Saved, f.records.size)
	for key, k := range f.records.under("") {
		all[key] = Saved{k.record, k.state == changed || k.state == changedAway, seen}
	}
	return all
}

// Restore takes up the records of an earlier process of this node. Those that can be none are left out. It must be
// called before Run.
func (f *Fleet) Restore(records map[string]Saved) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, saved := range records {
		r, err := saved.normal()
		if err != nil || r.Serial == 0 || !IsRecord(key) || Allowed(key, r.Value) != nil || f.records.size >= maxKeys {
			f.stats.Refused++
			continue
		}
		k := &kept{key: key, record: r}
		f.records.set(key, k)
		if saved.Pending {
			f.setStateLocked(k, changedAway)
		}
		if saved.Seen.After(f.contact) {
			f.contact = saved.Seen
		}
	}
}
