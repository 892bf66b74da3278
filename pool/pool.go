// Package pool holds the backends of one pool, what is known of them, and who may get the next session.
//
// It does not open sockets, does not check health and does not log: verdicts and modes are set from outside, and who
// wants to know of changes subscribes to the events.
//
// Everything here may be called from any goroutine. Pick and Lease.Release are the hot path and take no lock; the methods
// that change a pool take its mutex, build the next snapshot and replace the one that Pick reads.
package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// Options are the settings of a pool, fixed for its life.
type Options struct {
	Name           string
	Algorithm      string        // one of algo.Kinds
	Initial        Verdict       // of a backend just added; Healthy when nothing checks them
	ConnectTimeout time.Duration // for one connect to a backend
	Retries        int           // further backends to try for a session when one cannot be connected to
}

// A Pool is a named set of interchangeable backends.
// Its methods may be called from any goroutine; its zero value is of no use, see New.
//
// Invariant: snap holds exactly the members of byID, and its picker was built for exactly its eligible backends.
type Pool struct {
	o Options // set once, then read-only

	snap  atomic.Pointer[snapshot] // never nil; replaced with mu held
	state algo.State               // what the pickers hand on to each other

	mu sync.Mutex
	// mu guards the fields below
	byID          map[string]*member // the latest of each, as in snap
	subscriptions []*Subscription
}

// A snapshot is a pool at one moment. It is immutable: readers may use it for as long as they like.
type snapshot struct {
	members  []*member // in the order of their addition
	eligible []*Backend
	picker   algo.Picker // for eligible
}

// New returns a pool without backends.
// An unknown algorithm is an *algo.UnknownKindError; a negative number and an undefined verdict are refused, too.
func New(o Options) (*Pool, error) {
	picker, err := algo.Build(o.Algorithm, nil, algo.Options{})
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", o.Name, err)
	}
	switch {
	case o.Initial > Unhealthy:
		return nil, fmt.Errorf("pool %s: undefined initial %v", o.Name, o.Initial)
	case o.ConnectTimeout < 0:
		return nil, fmt.Errorf("pool %s: negative connect timeout %v", o.Name, o.ConnectTimeout)
	case o.Retries < 0:
		return nil, fmt.Errorf("pool %s: negative number of retries %d", o.Name, o.Retries)
	}
	p := &Pool{o: o, byID: make(map[string]*member)}
	p.snap.Store(&snapshot{picker: picker})
	return p, nil
}

// Name returns the pool's name.
func (p *Pool) Name() string { return p.o.Name }

// ConnectTimeout returns how long one connect to a backend may take.
func (p *Pool) ConnectTimeout() time.Duration { return p.o.ConnectTimeout }

// Retries returns how many further backends a session may try when one cannot be connected to.
func (p *Pool) Retries() int { return p.o.Retries }

// Eligible returns how many backends may get new sessions now.
func (p *Pool) Eligible() int { return len(p.snap.Load().eligible) }

// Backends returns a copy of every backend, in the order of their addition. The slice is the caller's.
// The settings are those of one moment; the counters go on while they are read.
func (p *Pool) Backends() []BackendInfo {
	members := p.snap.Load().members
	infos := make([]BackendInfo, len(members))
	for i, m := range members {
		infos[i] = m.info()
	}
	return infos
}

// Add adds backends, in Ready mode and with the pool's initial verdict: all of them, or on an error none. Given together
// they become eligible together, so that the first of many is not for a moment the only one.
// The error wraps an *InvalidBackendError or ErrDuplicateBackend.
func (p *Pool) Add(specs ...Spec) error {
	if len(specs) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	added := make([]*member, 0, len(specs))
	seen := make(map[string]bool, len(specs))
	for _, s := range specs {
		if err := s.validate(); err != nil {
			return p.failed("add", s.ID, err)
		}
		if p.byID[s.ID] != nil || seen[s.ID] {
			return p.failed("add", s.ID, ErrDuplicateBackend)
		}
		seen[s.ID] = true
		addr := netip.AddrPortFrom(s.Addr.Addr().Unmap(), s.Addr.Port())
		added = append(added, &member{
			backend: &Backend{id: s.ID, addr: addr},
			weight:  s.Weight, verdict: p.o.Initial, reason: "initial", since: now, mode: Ready,
		})
	}
	for _, m := range added {
		p.byID[m.backend.id] = m
	}
	p.replaceLocked(slices.Concat(p.snap.Load().members, added), slices.ContainsFunc(added, (*member).eligible))
	for _, m := range added {
		p.publishLocked(Added{p.change(m, now)})
	}
	return nil
}

// Remove takes a backend out of the pool. Leases on it go on. The error wraps ErrUnknownBackend.
func (p *Pool) Remove(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.byID[id]
	if m == nil {
		return p.failed("remove", id, ErrUnknownBackend)
	}
	delete(p.byID, id)
	old := p.snap.Load().members
	i := slices.Index(old, m)
	p.replaceLocked(slices.Concat(old[:i], old[i+1:]), m.eligible())
	p.publishLocked(Removed{p.change(m, time.Now())})
	return nil
}

// SetWeight gives a backend another share, 0 to 256; with 0 it gets nothing new.
// The error wraps an *InvalidBackendError or ErrUnknownBackend.
func (p *Pool) SetWeight(id string, weight uint32) error {
	const doing = "set weight of"
	if err := validateWeight(weight); err != nil {
		return p.failed(doing, id, err)
	}
	return p.edit(doing, id, func(m *member, _ time.Time) func(Change) Event {
		from := m.weight
		if from == weight {
			return nil
		}
		m.weight = weight
		return func(c Change) Event { return WeightChanged{c, from, weight} }
	})
}

// SetMode says what the operator wants of a backend; Ready ends Drain and Maintenance alike.
// The error wraps an *InvalidBackendError or ErrUnknownBackend.
func (p *Pool) SetMode(id string, mode Mode) error {
	const doing = "set mode of"
	if mode > Maintenance {
		return p.failed(doing, id, &InvalidBackendError{"mode", mode.String(), "ready, drain or maintenance"})
	}
	return p.edit(doing, id, func(m *member, _ time.Time) func(Change) Event {
		from := m.mode
		if from == mode {
			return nil
		}
		m.mode = mode
		return func(c Change) Event { return ModeChanged{c, from, mode} }
	})
}

// SetVerdict says what the checks found, and why. The verdict it has already is no change: its reason and time stay those
// of the first time. The error wraps an *InvalidBackendError or ErrUnknownBackend.
func (p *Pool) SetVerdict(id string, v Verdict, reason string) error {
	const doing = "set verdict of"
	if v > Unhealthy {
		return p.failed(doing, id, &InvalidBackendError{"verdict", v.String(), "unknown, healthy or unhealthy"})
	}
	return p.edit(doing, id, func(m *member, now time.Time) func(Change) Event {
		from := m.verdict
		if from == v {
			return nil
		}
		m.verdict, m.reason, m.since = v, reason, now
		return func(c Change) Event { return VerdictChanged{c, from, v, reason} }
	})
}

// edit has change alter a copy of a backend's settings and puts it in force. change returns how to make the event of
// it, or nil when it altered nothing. The error wraps ErrUnknownBackend.
func (p *Pool) edit(doing, id string, change func(m *member, now time.Time) func(Change) Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.byID[id]
	if old == nil {
		return p.failed(doing, id, ErrUnknownBackend)
	}
	next, now := *old, time.Now()
	event := change(&next, now)
	if event == nil {
		return nil
	}
	p.swapLocked(old, &next)
	p.publishLocked(event(p.change(&next, now)))
	return nil
}

// swapLocked puts next in old's place.
func (p *Pool) swapLocked(old, next *member) {
	p.byID[next.backend.id] = next
	members := slices.Clone(p.snap.Load().members)
	members[slices.Index(members, old)] = next
	matters := old.eligible() != next.eligible() || next.eligible() && old.weight != next.weight
	p.replaceLocked(members, matters)
}

// replaceLocked makes members the pool's snapshot. Only when the eligible ones are others, or of another weight, a new
// picker is needed: the first verdicts of many backends that stay out of use cost next to nothing.
func (p *Pool) replaceLocked(members []*member, eligibleChanged bool) {
	s := &snapshot{members: members}
	if !eligibleChanged {
		old := p.snap.Load()
		s.eligible, s.picker = old.eligible, old.picker
		p.snap.Store(s)
		return
	}
	var candidates []algo.Member
	for _, m := range members {
		if m.eligible() {
			s.eligible = append(s.eligible, m.backend)
			candidates = append(candidates, algo.Member{ID: m.backend.id, Weight: m.weight, Load: &m.backend.load})
		}
	}
	picker, err := algo.Build(p.o.Algorithm, candidates, algo.Options{State: &p.state})
	if err != nil {
		panic(fmt.Sprintf("pool %s: algorithm known to New is unknown now: %v", p.o.Name, err))
	}
	s.picker = picker
	p.snap.Store(s)
}

// change returns the common part of an event on m.
func (p *Pool) change(m *member, at time.Time) Change {
	return Change{Pool: p.o.Name, Backend: m.info(), At: at}
}

// failed wraps err with what was being done to which backend.
func (p *Pool) failed(doing, id string, err error) error {
	return fmt.Errorf("pool %s: %s backend %q: %w", p.o.Name, doing, id, err)
}
