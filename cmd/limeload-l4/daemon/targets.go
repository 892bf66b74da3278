package daemon

import (
	"errors"
	"net/netip"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// checkConcurrency bounds the checks under way at once. A check of a dead backend takes its whole timeout, so
// this is also what a pool of dead backends can hold up; the data plane keeps as many descriptors free.
const checkConcurrency = 32

// A checkedPool is a pool whose backends are the targets of a scheduler: those that come are checked, and those that go are
// not any more. Its methods may be called from any goroutine.
type checkedPool struct {
	// set once, then read-only
	log       zerolog.Logger
	pool      *pool.Pool
	scheduler *healthcheck.Scheduler

	changed   *pool.Subscription // from start on
	following sync.WaitGroup

	mu sync.Mutex
	// mu guards the fields below
	checker healthcheck.Checker
	policy  healthcheck.Policy
	fence   *healthcheck.Fence // nil unless its backends are to be the primary
	targets map[string]netip.AddrPort
}

// newCheckedPool makes one that checks nothing before start. primary says that the backends are to be the primary.
func newCheckedPool(log zerolog.Logger, s *healthcheck.Scheduler, p *pool.Pool, c healthcheck.Checker, policy healthcheck.Policy, primary bool) *checkedPool {
	k := &checkedPool{log: log, pool: p, scheduler: s, targets: make(map[string]netip.AddrPort)}
	k.use(c, policy, primary)
	return k
}

// use sets what checks the backends from now on.
func (k *checkedPool) use(c healthcheck.Checker, policy healthcheck.Policy, primary bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !primary:
		k.fence = nil
	case k.fence == nil:
		k.fence = healthcheck.NewFence(k.scheduler, k.logRivalry)
	}
	if k.fence != nil {
		c = k.fence.Wrap(c)
	}
	k.checker, k.policy = c, policy
}

// start begins to check the backends there are, and follows those that come and go until end.
func (k *checkedPool) start() {
	k.changed = k.pool.Subscribe(eventBuffer)
	k.following.Go(k.follow)
	k.match()
}

// end checks nothing more.
func (k *checkedPool) end() {
	k.changed.Close()
	k.following.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.targets {
		k.removeLocked(id)
	}
}

// follow matches targets and backends after each change of the membership, and has backends checked soon that are suspected, until the
// subscription is closed.
func (k *checkedPool) follow() {
	var lost uint64
	for e := range k.changed.C() {
		changed := k.look(e)
		for range len(k.changed.C()) { // ten thousand that came at once are matched once
			changed = k.look(<-k.changed.C()) || changed
		}
		dropped := k.changed.Dropped()
		if !changed && dropped == lost {
			continue
		}
		lost = dropped
		k.match()
	}
}

// look has a suspected backend checked soon, and tells whether the membership changed.
func (k *checkedPool) look(e pool.Event) bool {
	if s, is := e.(pool.Suspected); is {
		k.scheduler.CheckSoon(targetID(s.Pool, s.Backend.ID))
	}
	return isMembership(e)
}

// isMembership tells whether a backend came or went.
func isMembership(e pool.Event) bool {
	switch e.(type) {
	case pool.Added, pool.Removed:
		return true
	}
	return false
}

// change has the backends checked otherwise from now on. Their verdicts stay.
func (k *checkedPool) change(c healthcheck.Checker, policy healthcheck.Policy, primary bool) error {
	k.use(c, policy, primary)
	k.mu.Lock()
	defer k.mu.Unlock()
	var failures []error
	for id := range k.targets {
		failures = append(failures, k.scheduler.Update(targetID(k.pool.Name(), id), k.checker, k.policy))
	}
	return errors.Join(failures...)
}

// match makes the pool's backends the scheduler's targets.
func (k *checkedPool) match() {
	k.mu.Lock()
	defer k.mu.Unlock()
	there := make(map[string]bool)
	for _, b := range k.pool.Backends() {
		there[b.ID] = true
		if at, known := k.targets[b.ID]; known {
			if at == b.Addr {
				continue
			}
			k.removeLocked(b.ID)
		}
		k.targets[b.ID] = b.Addr
		policy := k.policy
		if b.Verdict == pool.Healthy {
			policy.Initial = healthcheck.Healthy // it was judged before it came, or the pool begins so
		}
		t := healthcheck.Target{ID: targetID(k.pool.Name(), b.ID), Group: k.pool.Name(), Addr: b.Addr}
		if err := k.scheduler.Add(t, k.checker, policy); err != nil {
			k.log.Error().Str("pool", k.pool.Name()).Str("backend", b.ID).AnErr("err", err).Msg("backend not checked")
		}
	}
	for id := range k.targets {
		if !there[id] {
			k.removeLocked(id)
		}
	}
}

// removeLocked ends the checks of a backend.
func (k *checkedPool) removeLocked(id string) {
	target := targetID(k.pool.Name(), id)
	k.scheduler.Remove(target)
	if k.fence != nil {
		k.fence.Forget(target)
	}
	delete(k.targets, id)
}

// logRivalry tells the operator that two servers take writes: only people can say which of them are lost.
func (k *checkedPool) logRivalry(r healthcheck.Rivalry) {
	_, primary, _ := strings.Cut(r.Primary, "/")
	_, rival, _ := strings.Cut(r.Rival, "/")
	k.log.Error().Str("pool", k.pool.Name()).Str("backend", rival).Str("primary", primary).Str("reason", r.Reason).Int("count", r.Count).
		Msg("two backends claim to be the primary")
}

// rivalries is how often a second backend claimed to be the primary.
func (k *checkedPool) rivalries() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fence == nil {
		return 0
	}
	return k.fence.Count()
}

// targetID names a backend's target. No pool's name has a slash in it.
func targetID(pool, backend string) string { return pool + "/" + backend }

// receive has the verdicts on targets of that pool, see targetID, go to take; nil is nobody.
func (d *Daemon) receive(pool string, take func(...pool.Judgement) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if take == nil {
		delete(d.receivers, pool)
	} else {
		d.receivers[pool] = take
	}
}

// takeVerdicts tells the pools what the checks found. A pool or a backend may have been removed since it was checked.
func (d *Daemon) takeVerdicts(changes []healthcheck.Change) {
	judgements := make(map[string][]pool.Judgement)
	for _, c := range changes {
		name, backend, _ := strings.Cut(c.Target.ID, "/")
		judgements[name] = append(judgements[name], pool.Judgement{ID: backend, Verdict: verdict(c.To), Reason: c.Reason})
	}
	for name, js := range judgements {
		d.mu.RLock()
		take := d.receivers[name]
		d.mu.RUnlock()
		if take == nil {
			continue
		}
		if err := take(js...); err != nil && !errors.Is(err, pool.ErrUnknownBackend) {
			d.log.Error().AnErr("err", err).Msg("verdict not taken")
		}
	}
}
