// Package fleet keeps what the nodes of a fleet share, in etcd: which nodes there are, run-time changes, verdicts of
// checks, keys of TLS tickets. It knows keys and values, and not what they mean for a balancer; that is in package
// daemon.
//
// # Keys
//
// All keys are below PREFIX/NAME/. Their parts are escaped, see Key.
//
//	owners/NODE                    the process that has the name of a node, under its lease; this package's own
//	nodes/NODE                     a Node, under the node's lease
//	tables/NODE/PART               digests of what its pools choose, under the node's lease
//	checks/...                     verdicts, under the lease of the node that checks
//	changes/...                    a Record each, which stays
//	tickets                        a Record with the keys of TLS tickets
//
// Other keys, and values that are too large, are ignored.
//
// # Two kinds of values
//
// A node says a value with Say: it lasts as long as the node says it, and ends with the node's lease. Everybody else
// only reads it.
//
// A Record is changed by any node with Change, and stays. Each node keeps every record that it knows, so that it goes
// on without etcd, and etcd can lose its data: a key that etcd has lost, or has in an older state, is written again.
// So a record does not end by the deletion of its key; Undone ends it.
//
// # Conflicts
//
// Records have a serial, and the higher one holds. Of two changes of one record at the same time, the one that reaches
// etcd last holds. A change that was made without a connection yields to a later one.
//
// # Goroutines
//
// A Fleet asks etcd on its own goroutines only. Nothing here blocks a caller, but Settle and Leave. The functions that
// callers give it are called from its goroutines, but never two at once.
package fleet

import (
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
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
	// LinkChanged is called when the connection was made or lost, or etcd begins or ends to refuse what this node writes;
	// nil for nobody. See Link.
	LinkChanged func(Link)
	// Overruled is called when a change of this node yields to that of another one; nil for nobody.
	Overruled func(key string, by Record)
}

// A Fleet is this node's part in its fleet. Its methods may be called from any goroutine. The zero value is of no use,
// see New.
type Fleet struct {
	// set once, then read-only
	o       Options
	prefix  string // of the keys, with a slash at the end
	process process

	wake  chan struct{} // has room for one: there is something to write
	calls sync.Mutex    // held while a function of the caller is called; never locked with mu held

	mu sync.Mutex
	// mu guards the fields below
	link      Link
	trouble   error     // why etcd refuses what this node writes; nil if it does not
	contact   time.Time // when the connection was there last, if it is not now
	observers []observer
	stats     Stats

	lease int64 // 0 for none
	owner owner // of this node's name, as etcd has it

	unweighed int // bytes that etcd has delivered since weighLocked

	said   map[string]*saying  // by key
	unsaid map[string]struct{} // keys of said that etcd does not have yet
	heard  *tree[heard]        // what etcd has, but for records
	spared map[string]time.Time
	nodes  []Node // of heard; nil if they must be looked for

	records   *tree[*kept]
	unwritten map[string]*kept // records that this node must write
	lost      map[string]*kept // records that etcd has lost, and that some node must write
	settled   chan struct{}    // closed and replaced when a record is not pending any more
	repairAt  time.Time        // when lost is looked through next
	cleanAt   time.Time        // when outdated records are looked for next

	reported reports // calls guards it
}

// An observer wants to know of changes.
type observer struct {
	prefix  string
	changed func(keys []string)
}

// Stats are counters, and numbers of the present. It is a plain value.
type Stats struct {
	Writes, WriteFailures uint64 // transactions
	Changes               uint64 // of keys, that etcd has delivered
	Ignored               uint64 // changes of keys that are not the fleet's, or whose values are none
	Refused               uint64 // values that this node cannot say, and changes that it cannot make: see Allowed
	Repairs               uint64 // records that this node has written again, since etcd had lost them
	Connects              uint64
	Said, Unsaid          int // values of this node; those of them that etcd does not have yet
	Heard                 int // values of all nodes
	Records, Pending      int // that this node knows; those of them that etcd does not have yet
}

// New returns a Fleet that does nothing before Run.
func New(o Options) *Fleet {
	return &Fleet{
		o: o, prefix: path.Join("/", o.Prefix, o.Name) + "/", process: thisProcess(), wake: make(chan struct{}, 1),
		said: make(map[string]*saying), unsaid: make(map[string]struct{}), heard: new(tree[heard]),
		spared: make(map[string]time.Time), records: new(tree[*kept]), unwritten: make(map[string]*kept),
		lost: make(map[string]*kept), settled: make(chan struct{}),
	}
}

// Node returns the name of this node.
func (f *Fleet) Node() string { return f.o.Node }

// Observe calls changed after each change of the keys that begin with prefix, that another node has made or that etcd
// has: with these keys, or with nil if any may have changed. It must not block. Observe must be called before Run.
func (f *Fleet) Observe(prefix string, changed func(keys []string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.observers = append(f.observers, observer{prefix, changed})
}

// Stats returns the counters.
func (f *Fleet) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Said, s.Unsaid, s.Heard = len(f.said), len(f.unsaid), f.heard.size
	s.Records, s.Pending = f.records.size, len(f.unwritten)+len(f.lost)
	return s
}

// poke wakes up the writer. It never blocks.
func (f *Fleet) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// news is what other nodes have changed.
type news struct {
	keys      []string
	overruled map[string]Record // by key
	all       bool              // any key may have changed
}

// tell calls the functions of those who want to know.
func (f *Fleet) tell(n news) {
	f.mu.Lock()
	observers := slices.Clone(f.observers)
	f.mu.Unlock()
	f.calls.Lock()
	defer f.calls.Unlock()
	for _, o := range observers {
		if n.all {
			o.changed(nil)
		} else if its := o.keysOf(n.keys); len(its) > 0 {
			o.changed(its)
		}
	}
	if f.o.Overruled != nil {
		for key, by := range n.overruled {
			f.o.Overruled(key, by)
		}
	}
}

// keysOf returns the keys that the observer wants to know of.
func (o observer) keysOf(keys []string) (its []string) {
	for _, key := range keys {
		if strings.HasPrefix(key, o.prefix) {
			its = append(its, key)
		}
	}
	return its
}
