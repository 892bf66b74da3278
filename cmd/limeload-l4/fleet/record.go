package fleet

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// A Record is a value that all nodes share and that stays. It is a plain value.
type Record struct {
	Serial uint64          `json:"serial"`           // counts the changes of its key; the higher one holds
	Node   string          `json:"node"`             // that has changed it
	By     string          `json:"by,omitempty"`     // who has, as the API knows it
	At     time.Time       `json:"at"`               // when
	Until  time.Time       `json:"until,omitzero"`   // when it has no meaning any more; zero: it stays
	Undone bool            `json:"undone,omitempty"` // there is no value any more
	Value  json.RawMessage `json:"value,omitempty"`
}

// A kept record is one that this node knows. Fleet.mu guards it.
type kept struct {
	record   Record
	revision int64 // of etcd's key, for the next write; 0 if etcd does not have it
	pending  bool  // etcd does not have it yet
	away     bool  // it became pending without a connection
	changed  bool  // it is pending because this node has changed it, and not because etcd has lost it
}

// IsRecord reports whether a key is one of records.
func IsRecord(key string) bool { return strings.HasPrefix(key, Changes) || key == Tickets }

// Change makes a new record of a key, from now on for this node, and soon for all. Only its By, Until, Undone and Value
// are used. It returns the record.
func (f *Fleet) Change(key string, r Record) Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.records[key]
	if k == nil {
		k = &kept{}
		f.records[key] = k
	}
	r.Serial, r.Node, r.At = k.record.Serial+1, f.o.Node, time.Now().UTC()
	k.record, k.pending, k.away, k.changed = r, true, !f.link.Up, true
	f.poke()
	return r
}

// take compares what etcd has for a key with what this node knows. It reports whether the node's record has changed.
// value is nil if etcd does not have the key. Fleet.mu is held.
func (f *Fleet) takeLocked(key string, value []byte, revision int64) (changed bool, overruled *Record) {
	k := f.records[key]
	if value == nil {
		if k != nil {
			k.revision, k.pending = 0, true // deletion is no change: it is written again
			f.poke()
		}
		return false, nil
	}
	var r Record
	if json.Unmarshal(value, &r) != nil || r.Serial == 0 {
		if k != nil { // somebody has written nonsense there
			k.revision, k.pending = revision, true
			f.poke()
		}
		return false, nil
	}
	if k == nil {
		f.records[key] = &kept{record: r, revision: revision}
		return true, nil
	}
	if revision < k.revision {
		return false, nil // the watch is behind what a write of this node has found
	}
	k.revision = revision
	mine := k.record
	switch {
	case r.same(mine):
		k.pending, k.away, k.changed = false, false, false
		return false, nil
	case r.holdsOver(k):
		if k.pending && k.changed {
			overruled = &r
		}
		k.record, k.pending, k.away, k.changed = r, false, false, false
		return true, overruled
	}
	if k.pending && mine.Serial <= r.Serial {
		k.record.Serial = r.Serial + 1
	}
	k.pending = true
	f.poke()
	return false, nil
}

// same reports whether two records are the same change.
func (r Record) same(other Record) bool {
	return r.Serial == other.Serial && r.Node == other.Node && r.At.Equal(other.At) && r.Undone == other.Undone &&
		bytes.Equal(r.Value, other.Value)
}

// holdsOver reports whether r, which etcd has, holds over the record of this node.
func (r Record) holdsOver(k *kept) bool {
	mine := k.record
	switch {
	case k.pending && !k.away: // what reaches etcd last holds
		return false
	case k.pending && k.changed: // it was changed without a connection: the later change holds
		return r.At.After(mine.At) || r.At.Equal(mine.At) && r.Node > mine.Node
	case r.Serial != mine.Serial:
		return r.Serial > mine.Serial
	}
	return r.At.After(mine.At) || r.At.Equal(mine.At) && r.Node > mine.Node
}

// A Saved record is one that outlives the process. It is a plain value.
type Saved struct {
	Record
	Pending bool `json:"pending,omitempty"` // etcd does not have it yet
}

// Saved returns all records, for Restore of the next process.
func (f *Fleet) Saved() map[string]Saved {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string]Saved, len(f.records))
	for key, k := range f.records {
		all[key] = Saved{k.record, k.pending && k.changed}
	}
	return all
}

// Restore takes up the records of an earlier process of this node. It must be called before Run.
func (f *Fleet) Restore(records map[string]Saved) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, r := range records {
		f.records[key] = &kept{record: r.Record, pending: true, away: true, changed: r.Pending}
	}
}
