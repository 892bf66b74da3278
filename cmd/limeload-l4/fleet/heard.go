package fleet

import (
	"bytes"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

// A saying is a value that this node says. Fleet.mu guards it.
type saying struct {
	value    []byte // nil once it is not said any more
	revision int64  // up to which this node knows what etcd has for the key; 0 for nothing on this connection
}

// A heard value is one that a node says.
type heard struct {
	value []byte
	lease int64
}

// sparedFor is how long a value stays that was deleted together with those of this node: its node will say it again.
const sparedFor = 5 * time.Second

// Say says a value, in place of the one that this node has said for the key. The key is not one of a record. A value
// that is not Allowed is not said, nor the one before.
func (f *Fleet) Say(key string, value []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if Allowed(key, value) != nil || IsRecord(key) {
		f.stats.Refused++
		f.unsayLocked(key)
		return
	}
	s := f.said[key]
	if s == nil {
		s = &saying{}
		f.said[key] = s
	}
	s.value = append([]byte{}, value...) // an empty value is no nil
	f.unsaid[key] = struct{}{}
	f.poke()
}

// Unsay ends what this node says for a key.
func (f *Fleet) Unsay(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unsayLocked(key)
}

func (f *Fleet) unsayLocked(key string) {
	if s := f.said[key]; s != nil {
		s.value = nil
		f.unsaid[key] = struct{}{}
		f.poke()
	}
}

// Heard returns what all nodes say for keys that begin with prefix, this one included, as etcd had it last. The values
// must not be changed.
func (f *Fleet) Heard(prefix string) map[string][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	values := make(map[string][]byte)
	for key, h := range f.heard.under(prefix) {
		values[key] = h.value
	}
	return values
}

// HeardOf returns what is said for a key; nil for nothing. It must not be changed.
func (f *Fleet) HeardOf(key string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard.get(key).value
}

// hearLocked takes up what etcd has for a key that is not one of a record. spare says that its deletion was none by its
// node. It reports whether others must know. Fleet.mu is held.
func (f *Fleet) hearLocked(k etcd.KeyChange, spare bool, now time.Time) (changed bool) {
	s := f.said[k.Key]
	if s != nil && k.Revision > s.revision {
		if s.revision = k.Revision; !s.isAt(k, f.lease) {
			f.unsaid[k.Key] = struct{}{}
			f.poke()
		}
	}
	if len(k.Value) > MaxValueBytes {
		f.stats.Ignored++
		k.Value = nil
	}
	if strings.HasPrefix(k.Key, Nodes) {
		f.nodes = nil
	}
	if k.Value != nil {
		delete(f.spared, k.Key)
		f.heard.set(k.Key, heard{k.Value, k.Lease})
		return true
	}
	if spare && (s == nil || s.value != nil) && f.heard.get(k.Key).value != nil {
		if _, already := f.spared[k.Key]; !already {
			f.spared[k.Key] = now.Add(sparedFor)
		}
		return false
	}
	delete(f.spared, k.Key)
	return f.heard.remove(k.Key)
}

// isAt reports whether etcd has what this node says.
func (s *saying) isAt(k etcd.KeyChange, lease int64) bool {
	if s.value == nil || k.Value == nil {
		return s.value == nil && k.Value == nil
	}
	return k.Lease == lease && bytes.Equal(s.value, k.Value)
}

// hearAllLocked takes up all values that etcd has. Those of before that it does not have may be missing only because
// the store is a new one, so they stay a little. Fleet.mu is held.
func (f *Fleet) hearAllLocked(all []etcd.KeyChange, now time.Time) {
	before := f.heard
	f.heard, f.nodes = new(tree[heard]), nil
	for _, s := range f.said {
		s.revision = 0
	}
	for _, k := range all {
		f.hearLocked(k, false, now)
	}
	for key, h := range before.under("") {
		if f.heard.get(key).value == nil {
			f.heard.set(key, h)
			f.hearLocked(etcd.KeyChange{Key: key}, true, now)
		}
	}
	for key, s := range f.said {
		if s.revision == 0 { // etcd does not have it
			f.unsaid[key] = struct{}{}
		}
	}
}

// wipesLocked returns the revisions in which values were deleted that this node says. Only a mistake does that, which
// has hit others too: the end of a lease deletes the values of one node. Fleet.mu is held.
func (f *Fleet) wipesLocked(changes []etcd.KeyChange) map[int64]bool {
	var wipes map[int64]bool
	for _, k := range changes {
		if k.Value != nil || wipes[k.Revision] {
			continue
		}
		s := f.said[k.Key]
		if s != nil && s.value != nil && k.Revision > s.revision {
			if wipes == nil {
				wipes = make(map[int64]bool)
			}
			wipes[k.Revision] = true
		}
	}
	return wipes
}

// endSparedLocked removes the values whose nodes have not said them again in time, and returns their keys. Fleet.mu is
// held.
func (f *Fleet) endSparedLocked(now time.Time) (keys []string) {
	for key, until := range f.spared {
		if now.Before(until) {
			continue
		}
		delete(f.spared, key)
		if f.heard.remove(key) {
			keys = append(keys, key)
		}
		if strings.HasPrefix(key, Nodes) {
			f.nodes = nil
		}
	}
	return keys
}
