// Package pool holds the backends of one pool with their state, and picks the backend of each new session or flow.
//
// It does not open sockets, does not check health and does not log: its callers set verdicts and modes, and observers
// subscribe to its events.
//
// Everything here may be called from any goroutine. Pick and Lease.Release are the hot path and take no lock; the
// methods that change a pool take its mutex, build the next snapshot and replace the one that Pick reads.
package pool

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// A Pool is a named set of interchangeable backends.
// Its methods may be called from any goroutine; its zero value is of no use, see New.
//
// Invariant: snap holds exactly the members of byID, and its tiers exactly the eligible ones. No two have the same
// address.
type Pool struct {
	// set once, then read-only
	name  string
	clock func() time.Duration

	snap atomic.Pointer[snapshot] // never nil; replaced with mu held
	// never nil; the same as those of snap, except during Reconfigure; replaced with mu held
	inForce atomic.Pointer[settings]
	queue   queue
	pacing  pacing
	closed  atomic.Bool   // sessions may not wait any more
	wake    chan struct{} // makes Run look at the records; holds one signal, never closed

	mu sync.Mutex
	// mu guards the fields below
	byID       map[string]*member // the latest member of each id, as in snap
	groups     []*group           // all groups so far, in the order in which they are asked
	begun      map[string]bool    // sources that have named backends: further ones start slowly
	generation uint64             // how many snapshots were made
	// slow start was on and is now off: some weights may not be at their full value yet
	slowed        bool
	removals      map[named]removal  // backends removed by hand, while their sources still name them
	awaited       map[named]Override // run-time values restored for backends that their sources have not named yet
	subscriptions []*Subscription
	revokers      []func(*Backend, Revocation)
	departers     []func(*Backend)
	leavers       []func(*Backend)
	balancer      rebalancer

	counts counts // last field: these writes must not share a cache line with what picks read
}

// New returns a pool without backends. Its error is that of CheckOptions.
func New(o Options) (*Pool, error) {
	if err := CheckOptions(o); err != nil {
		return nil, err
	}
	if o.Clock == nil {
		start := time.Now()
		o.Clock = func() time.Duration { return time.Since(start) }
	}
	p := &Pool{
		name: o.Name, clock: o.Clock, wake: make(chan struct{}, 1),
		byID: make(map[string]*member), begun: make(map[string]bool),
		removals: make(map[named]removal), awaited: make(map[named]Override),
	}
	p.queue.pool = p
	p.pacing.init(p.clock)
	p.inForce.Store(o.settings(nil))
	p.snap.Store(&snapshot{settings: p.settings()})
	return p, nil
}

// settings returns the options in force.
func (p *Pool) settings() *settings { return p.inForce.Load() }

// Name returns the pool's name.
func (p *Pool) Name() string { return p.name }

// SendProxy returns the version of the PROXY protocol of the header that backends get first on each TCP connection of a
// session: 1, 2, or 0 for no header.
func (p *Pool) SendProxy() int { return p.settings().SendProxy }

// ConnectTimeout returns how long one connect to a backend may take.
func (p *Pool) ConnectTimeout() time.Duration { return p.settings().ConnectTimeout }

// Retries returns how many further backends a session may try when one cannot be connected to.
func (p *Pool) Retries() int { return p.settings().Retries }

// Eligible returns how many backends may get new sessions now, apart from their limits.
func (p *Pool) Eligible() int { return p.snap.Load().eligible }

// TriesAll reports whether no backend is healthy and therefore all that are enabled are eligible.
func (p *Pool) TriesAll() bool { return p.snap.Load().tryAll }

// FallsBack reports whether no Healthy backend is eligible and therefore those of the verdict Fallback are.
func (p *Pool) FallsBack() bool { return p.snap.Load().fallback }

// Backends returns a copy of every backend, in the order of their addition. The slice is the caller's. All settings are
// of one moment; the counters may change while they are read.
func (p *Pool) Backends() []BackendInfo {
	members := p.snap.Load().members
	infos := make([]BackendInfo, len(members))
	for i, m := range members {
		infos[i] = m.info()
	}
	return infos
}

// IDs returns the id of every backend, in the order of their addition. The slice is the caller's.
func (p *Pool) IDs() []string {
	members := p.snap.Load().members
	ids := make([]string, len(members))
	for i, m := range members {
		ids[i] = m.backend.id
	}
	return ids
}

// Backend returns a copy of the backend of that id, or false if there is none.
func (p *Pool) Backend(id string) (BackendInfo, bool) {
	p.mu.Lock()
	m := p.byID[id]
	p.mu.Unlock()
	if m == nil {
		return BackendInfo{}, false
	}
	return m.info(), true
}

// Add adds backends with the pool's initial verdict: all of them, or none on an error. They become eligible at the same
// moment, so that the first of many does not briefly get all sessions. The error wraps an *InvalidBackendError,
// ErrDuplicateBackend or ErrDuplicateAddress.
func (p *Pool) Add(specs ...Spec) error {
	if len(specs) == 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	added := make([]*member, 0, len(specs))
	there := newDirectory(p.snap.Load().members)
	for _, s := range specs {
		s, err := s.checked()
		if err == nil {
			err = there.add(s)
		}
		if err != nil {
			p.mu.Unlock()
			return p.failed("add", s.ID, err)
		}
		m := p.memberLocked(s, "", now)
		// If other sources have named backends already, it is not one of the pool's first backends.
		m.fresh = m.fresh && len(p.begun) == 0
		p.noteReturn(nil, m)
		added = append(added, m)
	}
	p.applyLocked(changes{added: added}, now)
	p.mu.Unlock()
	p.queue.serve()
	return nil
}

// A directory has the ids and addresses that are taken.
type directory struct {
	ids   map[string]bool
	addrs map[Address]string // the id of the backend there
}

func newDirectory(members []*member) *directory {
	d := &directory{ids: make(map[string]bool, len(members)), addrs: make(map[Address]string, len(members))}
	for _, m := range members {
		d.ids[m.backend.id], d.addrs[m.backend.addr] = true, m.backend.id
	}
	return d
}

// add takes the id and the address of a checked Spec. The error wraps ErrDuplicateBackend or ErrDuplicateAddress.
func (d *directory) add(s Spec) error {
	if d.ids[s.ID] {
		return ErrDuplicateBackend
	}
	if other, taken := d.addrs[s.Addr]; taken {
		return fmt.Errorf("%w: %s is that of backend %q", ErrDuplicateAddress, s.Addr, other)
	}
	d.ids[s.ID], d.addrs[s.Addr] = true, s.ID
	return nil
}

// memberLocked makes the member that a checked Spec describes. The caller must call noteReturn once its settings are
// final.
func (p *Pool) memberLocked(s Spec, source string, now time.Time) *member {
	b := &Backend{id: s.ID, addr: s.Addr, tier: s.Tier, pool: p, pacing: &p.pacing}
	b.group.Store(p.groupLocked(s))
	return &member{
		backend: b, source: source, spec: s,
		weight: s.Weight, maxSessions: s.MaxSessions, maxRate: s.MaxRate, mode: s.Mode,
		verdict: p.settings().Initial, reason: "initial", since: now, fresh: !p.begun[source],
	}
}

// Remove takes a backend out of the pool. Leases on it stay valid unless the options revoke them. Once Remove has
// returned, Pick does not return the backend. It stays removed while its source still names it; see Reconcile. The
// error wraps ErrUnknownBackend.
func (p *Pool) Remove(id string) error {
	p.mu.Lock()
	m := p.byID[id]
	if m == nil {
		p.mu.Unlock()
		return p.failed("remove", id, ErrUnknownBackend)
	}
	if m.source != "" {
		p.removals[named{m.source, id}] = removal{spec: m.spec}
	}
	p.applyLocked(changes{removed: []*member{m}}, time.Now())
	p.mu.Unlock()
	p.queue.serve() // waiting sessions may have tried all the remaining backends
	return nil
}

// SetWeight sets a backend's weight, 0 to MaxWeight; with 0 it gets no new sessions or flows. The error wraps an
// *InvalidBackendError or ErrUnknownBackend.
func (p *Pool) SetWeight(id string, weight uint32) error {
	const doing = "set weight of"
	if err := CheckWeight(int(weight)); err != nil {
		return p.failed(doing, id, err)
	}
	return p.edit(doing, id, func(e *edit) { e.note(e.next.setWeight(weight)) })
}

// SetMaxSessions sets a backend's limit of concurrent sessions; 0 is no limit. Existing sessions beyond the limit
// continue. The error wraps an *InvalidBackendError or ErrUnknownBackend.
func (p *Pool) SetMaxSessions(id string, n int) error {
	const doing = "set max_sessions of"
	if err := CheckMaxSessions(n); err != nil {
		return p.failed(doing, id, err)
	}
	return p.edit(doing, id, func(e *edit) { e.note(e.next.setMaxSessions(n)) })
}

// SetMaxRate sets the rate of a backend's new sessions; the zero value is no limit. The sessions that it got under its
// former rate count under the new one. The error wraps an *InvalidBackendError or ErrUnknownBackend.
func (p *Pool) SetMaxRate(id string, l rate.Limit) error {
	const doing = "set max_rate of"
	if err := CheckMaxRate(l); err != nil {
		return p.failed(doing, id, err)
	}
	return p.edit(doing, id, func(e *edit) { e.note(e.next.setMaxRate(l)) })
}

// SetRateShare says which part of the backends' rates is this pool's, above 0 to 1; at first it is 1. The rest is that
// of other processes with the same backends, which keep these rates together. Limits of concurrent sessions are not
// divided: a part that one process does not use would be lost for the others. Other values are a broken invariant of
// the caller.
func (p *Pool) SetRateShare(share float64) {
	if !(share > 0 && share <= 1) {
		panic("pool: a share of rates that is not above 0 to 1")
	}
	p.mu.Lock()
	p.pacing.reshare(share, p.snap.Load().members)
	p.mu.Unlock()
	p.queue.serve()
}

// RateShare returns the part of the backends' rates that is this pool's.
func (p *Pool) RateShare() float64 { return p.pacing.rateShare() }

// SetMode sets a backend's mode. A change of mode closes its breaker. The error wraps an *InvalidBackendError or
// ErrUnknownBackend.
func (p *Pool) SetMode(id string, mode Mode) error {
	const doing = "set mode of"
	if err := validateMode(mode); err != nil {
		return p.failed(doing, id, err)
	}
	return p.edit(doing, id, func(e *edit) { e.noteMode(mode) })
}

// A Judgement is the checks' verdict on one backend, with its reason.
type Judgement struct {
	ID      string
	Verdict Verdict
	Reason  string
}

// SetVerdict sets a backend's verdict and its reason. Setting the same verdict again changes nothing: the first reason
// and time stay. The error wraps an *InvalidBackendError or ErrUnknownBackend.
func (p *Pool) SetVerdict(id string, v Verdict, reason string) error {
	return p.SetVerdicts(Judgement{ID: id, Verdict: v, Reason: reason})
}

// SetVerdicts is SetVerdict for several backends at once: ten thousand first verdicts must not build ten thousand
// maglev tables. If it fails for some backends, the others still get their verdicts; the error joins those of all.
func (p *Pool) SetVerdicts(judgements ...Judgement) error {
	const doing = "set verdict of"
	now := time.Now()
	var failures []error
	var c changes
	p.mu.Lock()
	latest := make(map[string]*edit, len(judgements)) // a later judgement of the same backend adds to its earlier edit
	for _, j := range judgements {
		m := p.byID[j.ID]
		err := validateVerdict(j.Verdict)
		if err == nil && m == nil {
			err = ErrUnknownBackend
		}
		if err != nil {
			failures = append(failures, p.failed(doing, j.ID, err))
			continue
		}
		e := latest[j.ID]
		if e == nil {
			e = &edit{old: m, next: *m}
		}
		if event := e.next.setVerdict(j, now); event != nil {
			e.events = append(e.events, event)
			if latest[j.ID] == nil {
				latest[j.ID] = e
				c.edits = append(c.edits, e)
			}
		}
	}
	if len(c.edits) > 0 {
		p.applyLocked(c, now)
	}
	p.mu.Unlock()
	p.queue.serve()
	return errors.Join(failures...)
}

// edit calls change with a copy of a backend's settings and puts the copy in force, unless that made no event. The
// error wraps ErrUnknownBackend.
func (p *Pool) edit(doing, id string, change func(e *edit)) error {
	p.mu.Lock()
	old := p.byID[id]
	if old == nil {
		p.mu.Unlock()
		return p.failed(doing, id, ErrUnknownBackend)
	}
	e := &edit{old: old, next: *old}
	if change(e); len(e.events) > 0 {
		p.applyLocked(changes{edits: []*edit{e}}, time.Now())
	}
	p.mu.Unlock()
	p.queue.serve()
	return nil
}

// change returns the common part of an event on m.
func (p *Pool) change(m *member, at time.Time) Change {
	return Change{Pool: p.name, Backend: m.info(), At: at}
}

// failed wraps err with the action and the backend that it concerns.
func (p *Pool) failed(doing, id string, err error) error {
	return fmt.Errorf("pool %s: %s backend %q: %w", p.name, doing, id, err)
}
