// Package fleet keeps what the nodes of a fleet share, in etcd: which nodes there are, run-time changes, verdicts of
// checks, keys of TLS tickets. It knows keys and values, and not what they mean for a balancer; that is in package
// daemon.
//
// # Keys
//
// All keys are below PREFIX/NAME/. Their parts are escaped, see Key.
//
//	nodes/NODE                     a Node, under the node's lease
//	tables/NODE/PART               digests of what its pools choose, under the node's lease
//	checks/...                     verdicts, under the lease of the node that checks
//	changes/...                    a Record each, which stays
//	tickets                        a Record with the keys of TLS tickets
//
// # Two kinds of values
//
// A node says a value with Say: it lasts as long as the node says it, and ends with the node's lease. Everybody else
// only reads it.
//
// A Record is changed by any node with Change, and stays. Each node keeps every record that it knows, so that it goes on
// without etcd, and etcd can lose its data: a key that etcd has lost, or has in an older state, is written again. So a
// record does not end by the deletion of its key; Undone ends it.
//
// # Conflicts
//
// Records have a serial, and the higher one holds. Of two changes of one record at the same time, the one that reaches
// etcd last holds. A change that was made without a connection yields to a later one.
//
// A Fleet asks etcd on its own goroutines only. Nothing here blocks a caller, but Settle.
package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

// The beginnings of keys.
const (
	Nodes   = "nodes/"
	Tables  = "tables/"
	Checks  = "checks/"
	Changes = "changes/"
	Tickets = "tickets"
)

// Options are the settings of a Fleet. It is a plain value.
type Options struct {
	Name      string   // of the fleet
	Node      string   // the name of this node, unique in the fleet
	Instance  string   // of this process, unique
	Before    string   // the instance that this process takes over from; "" for none
	Endpoints []string // URLs of members of etcd, at least one
	Prefix    string   // of all fleets' keys, such as "/limeload/"
	Login     etcd.Login
	// LinkChanged is called when the connection was made or lost, from one goroutine; nil for nobody.
	LinkChanged func(Link)
	// Overruled is called when a change of this node yields to that of another one, from one goroutine; nil for nobody.
	Overruled func(key string, by Record)
}

// A Node is what a node says of itself. It is a plain value.
type Node struct {
	Name     string    `json:"-"`        // of its key
	Instance string    `json:"instance"` // of its process
	Host     string    `json:"host"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Config   string    `json:"config"`           // the sum of its configuration
	State    string    `json:"state"`            // as in the API: starting, serving, draining
	Ready    bool      `json:"ready"`            // as /ready says
	Reason   string    `json:"reason,omitempty"` // why it is not ready; "" if it is
	Since    time.Time `json:"since"`            // of State and Ready
	Alone    string    `json:"alone,omitempty"`  // why it does not judge backends now; "" if it does
	Sessions int       `json:"sessions"`
	Flows    int       `json:"flows"`
	Rate     float64   `json:"rate"` // new sessions and flows a second
}

// A Link is the state of the connection to etcd. It is a plain value.
type Link struct {
	Up       bool
	Endpoint string    // that answers, or answered last
	Since    time.Time // of Up
	Err      error     // why it is not up; nil if it is, or before the first attempt
}

// A Fleet is this node's part in its fleet. Its methods may be called from any goroutine. The zero value is of no use,
// see New.
type Fleet struct {
	// set once, then read-only
	o      Options
	prefix string // of the keys, with a slash at the end

	wake chan struct{} // has room for one: there is something to write

	mu sync.Mutex
	// mu guards the fields below
	link      Link
	said      map[string]*saying        // what this node says, by key
	there     map[string]etcd.KeyChange // what etcd has, by key, but for records
	records   map[string]*kept          // by key
	observers []observer
	settled   chan struct{} // closed and replaced after each write that was confirmed
	lease     int64         // 0 for none
	stats     Stats
}

// A saying is a value that this node says.
type saying struct {
	value []byte // nil once it is not said any more
}

// An observer wants to know of changes.
type observer struct {
	prefix  string
	changed func(keys []string)
}

// Stats are counters. It is a plain value.
type Stats struct {
	Writes, WriteFailures uint64 // transactions
	Changes               uint64 // of keys, that etcd has delivered
	Connects              uint64
	Records, Pending      int // that this node knows; those of them that etcd does not have yet
}

// New returns a Fleet that does nothing before Run.
func New(o Options) *Fleet {
	return &Fleet{
		o: o, prefix: path.Join("/", o.Prefix, o.Name) + "/", wake: make(chan struct{}, 1),
		said: make(map[string]*saying), there: make(map[string]etcd.KeyChange), records: make(map[string]*kept),
		settled: make(chan struct{}),
	}
}

// Key returns the key of these parts, which may have any bytes.
func Key(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return strings.Join(escaped, "/")
}

// Parts returns the parts of a key that Key has made; false if it cannot have made it.
func Parts(key string) ([]string, bool) {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		plain, err := url.PathUnescape(p)
		if err != nil || url.PathEscape(plain) != p {
			return nil, false
		}
		parts[i] = plain
	}
	return parts, true
}

// Node returns the name of this node.
func (f *Fleet) Node() string { return f.o.Node }

// Observe calls changed after each change of the keys that begin with prefix, that another node has made or that etcd
// has: with these keys, or with nil if any may have changed. It must not block, and not call Observe. It must be called
// before Run.
func (f *Fleet) Observe(prefix string, changed func(keys []string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.observers = append(f.observers, observer{prefix, changed})
}

// Say says a value, in place of the one that this node has said for the key. The key is not one of a record.
func (f *Fleet) Say(key string, value []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said[key] = &saying{value: value}
	f.poke()
}

// Unsay ends what this node says for a key.
func (f *Fleet) Unsay(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.said[key] != nil {
		f.said[key] = &saying{}
		f.poke()
	}
}

// Heard returns what all nodes say for keys that begin with prefix, this one included, as etcd had it last.
func (f *Fleet) Heard(prefix string) map[string][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	values := make(map[string][]byte)
	for key, k := range f.there {
		if strings.HasPrefix(key, prefix) {
			values[key] = k.Value
		}
	}
	return values
}

// HeardOf returns what is said for a key; nil for nothing.
func (f *Fleet) HeardOf(key string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.there[key].Value
}

// Nodes returns the nodes as etcd had them last, by name. This node is among them once etcd has it.
func (f *Fleet) Nodes() []Node {
	var all []Node
	for key, value := range f.Heard(Nodes) {
		parts, is := Parts(strings.TrimPrefix(key, Nodes))
		var n Node
		if !is || len(parts) != 1 || json.Unmarshal(value, &n) != nil {
			continue
		}
		n.Name = parts[0]
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Link returns the state of the connection.
func (f *Fleet) Link() Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.link
}

// Stats returns the counters.
func (f *Fleet) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Records = len(f.records)
	for _, k := range f.records {
		if k.pending {
			s.Pending++
		}
	}
	return s
}

// poke wakes up the writer. It never blocks.
func (f *Fleet) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// tell calls the observers of these keys; nil stands for all.
func (f *Fleet) tell(keys []string) {
	f.mu.Lock()
	observers := slices.Clone(f.observers)
	f.mu.Unlock()
	for _, o := range observers {
		if keys == nil {
			o.changed(nil)
			continue
		}
		var its []string
		for _, key := range keys {
			if strings.HasPrefix(key, o.prefix) {
				its = append(its, key)
			}
		}
		if len(its) > 0 {
			o.changed(its)
		}
	}
}

// setLink notes the state of the connection, and reports it.
func (f *Fleet) setLink(l Link) {
	l.Since = time.Now()
	f.mu.Lock()
	if f.link.Up == l.Up && !l.Up && f.link.Err != nil {
		l.Since = f.link.Since
	}
	f.link = l
	if l.Up {
		f.stats.Connects++
	}
	f.mu.Unlock()
	if f.o.LinkChanged != nil {
		f.o.LinkChanged(l)
	}
}

// Settle waits until etcd has the present record of a key, or one that overrules it. The error is that of ctx.
func (f *Fleet) Settle(ctx context.Context, key string) error {
	for {
		f.mu.Lock()
		k, settled := f.records[key], f.settled
		done := k == nil || !k.pending
		f.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Records returns the records whose keys begin with prefix, also those that etcd does not have yet.
func (f *Fleet) Records(prefix string) map[string]Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string]Record)
	for key, k := range f.records {
		if strings.HasPrefix(key, prefix) {
			all[key] = k.record
		}
	}
	return all
}
