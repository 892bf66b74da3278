package daemon

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// A checkedPool is a pool whose backends are the targets of a scheduler: those that come are checked, and those that go are
// not any more. Its methods may be called from any goroutine.
type checkedPool struct {
	// set once, then read-only
	log       zerolog.Logger
	pool      *pool.Pool
	scheduler *healthcheck.Scheduler

	credentials *healthcheck.Credentials // tells a backend that refuses the check's credentials from a mistake in them

	changed   *pool.Subscription // from start on
	following sync.WaitGroup

	lastRivalry atomic.Pointer[time.Time] // nil before the first

	mu sync.Mutex
	// mu guards the fields below
	check   *builtCheck
	checker healthcheck.Checker // check's, behind credentials and fence
	fence   *healthcheck.Fence  // nil unless its backends are to be the primary
	targets map[string]place
}

// A place is where a backend is and, unless it is checked there, where it is checked.
type place struct{ addr, check netip.AddrPort }

// locate returns a target that is checked at that place.
func (p place) locate(t healthcheck.Target) healthcheck.Target {
	t.Addr = p.addr
	if p.check.IsValid() {
		t.Addr, t.Exact = p.check, true
	}
	return t
}

// checkText is where a backend is checked, in the configuration's words.
func checkText(at netip.AddrPort) string {
	if !at.IsValid() {
		return ""
	}
	return at.String()
}

// newCheckedPool makes one that checks nothing before start. primary says that the backends are to be the primary.
func newCheckedPool(log zerolog.Logger, s *healthcheck.Scheduler, p *pool.Pool, check *builtCheck, primary bool) *checkedPool {
	k := &checkedPool{log: log, pool: p, scheduler: s, targets: make(map[string]place)}
	k.credentials = healthcheck.NewCredentials(s, k.logRefusal)
	k.use(check, primary)
	return k
}

// use sets what checks the backends from now on.
func (k *checkedPool) use(check *builtCheck, primary bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.credentials.Renew()
	c := k.credentials.Wrap(check.checker)
	switch {
	case !primary:
		k.fence = nil
	case k.fence == nil:
		k.fence = healthcheck.NewFence(k.scheduler, k.logRivalry)
	}
	if k.fence != nil {
		c = k.fence.Wrap(c)
	}
	k.check, k.checker = check, c
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

// isMembership tells whether a backend came or went, or is to be checked elsewhere.
func isMembership(e pool.Event) bool {
	switch e.(type) {
	case pool.Added, pool.Removed, pool.CheckChanged:
		return true
	}
	return false
}

// change has the backends checked otherwise from now on. Their verdicts stay.
func (k *checkedPool) change(check *builtCheck, primary bool) error {
	k.use(check, primary)
	k.mu.Lock()
	defer k.mu.Unlock()
	var failures []error
	for id := range k.targets {
		failures = append(failures, k.scheduler.Update(targetID(k.pool.Name(), id), k.checker, k.check.policy))
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
		at := place{b.Addr, b.Check}
		was, known := k.targets[b.ID]
		if known && was == at {
			continue
		}
		t := at.locate(k.target(b.ID))
		if known && was.addr == at.addr { // it is who it was, and its verdict stays
			k.targets[b.ID] = at
			if err := k.scheduler.Move(t); err != nil {
				k.log.Error().Str("pool", k.pool.Name()).Str("backend", b.ID).AnErr("err", err).Msg("check not moved")
			}
			continue
		}
		if known {
			k.removeLocked(b.ID)
		}
		k.targets[b.ID] = at
		policy := k.check.policy
		if b.Verdict == pool.Healthy {
			policy.Initial = healthcheck.Healthy // it was judged before it came, or the pool begins so
		}
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

// target is a backend's target, without a place.
func (k *checkedPool) target(backend string) healthcheck.Target {
	return healthcheck.Target{ID: targetID(k.pool.Name(), backend), Group: k.pool.Name(), Name: backend, Receiver: k}
}

// take gives the backends the verdicts of their checks.
func (k *checkedPool) take(judgements ...pool.Judgement) error {
	return k.pool.SetVerdicts(judgements...)
}

// removeLocked ends the checks of a backend.
func (k *checkedPool) removeLocked(id string) {
	target := targetID(k.pool.Name(), id)
	k.scheduler.Remove(target)
	k.credentials.Forget(target)
	if k.fence != nil {
		k.fence.Forget(target)
	}
	delete(k.targets, id)
}

// logRivalry tells the operator that two servers take writes: only people can say which of them are lost.
func (k *checkedPool) logRivalry(r healthcheck.Rivalry) {
	k.lastRivalry.Store(new(time.Now()))
	k.log.Error().Str("pool", k.pool.Name()).Str("backend", r.Rival.Name).Str("primary", r.Primary.Name).Str("reason", r.Reason).Int("count", r.Count).
		Msg("two backends claim to be the primary")
}

// logRefusal tells the operator that the checks find nothing out any more, and again when they do.
func (k *checkedPool) logRefusal(r healthcheck.Refusal) {
	if r.Ended {
		k.log.Info().Str("pool", k.pool.Name()).Msg("the credentials of the checks are not refused any more")
		return
	}
	k.log.Error().Str("pool", k.pool.Name()).Str("backend", r.Target.Name).Str("reason", r.Reason).
		Msg("every backend that answers refuses the credentials of the checks: the verdicts stay as they are")
}

// primary is the backend that is the primary, or was it last; "" where nobody is to be, or nobody knows.
func (k *checkedPool) primary() string {
	k.mu.Lock()
	fence := k.fence
	k.mu.Unlock()
	if fence == nil {
		return ""
	}
	return fence.Remembered().Name
}

// remember says which backend was the primary when the process before this one ended.
func (k *checkedPool) remember(backend string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fence != nil {
		k.fence.Remember(k.target(backend))
	}
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

// targetID is the id of a backend's target. Its parts are in the target, too: nobody takes it apart.
func targetID(pool, backend string) string { return pool + "/" + backend }

// A receiver takes the verdicts on the targets that carry it.
type receiver interface {
	take(...pool.Judgement) error
}

// takeVerdicts gives each receiver what the checks found. A pool or a backend may have been removed since it was checked.
func (d *Daemon) takeVerdicts(changes []healthcheck.Change) {
	judgements := make(map[receiver][]pool.Judgement)
	for _, c := range changes {
		if r, is := c.Target.Receiver.(receiver); is {
			judgements[r] = append(judgements[r], pool.Judgement{ID: c.Target.Name, Verdict: verdict(c.To), Reason: c.Reason})
		}
	}
	for r, js := range judgements {
		if err := r.take(js...); err != nil && !errors.Is(err, pool.ErrUnknownBackend) {
			d.log.Error().AnErr("err", err).Msg("verdict not taken")
		}
	}
	select {
	case d.judgedAgain <- struct{}{}:
	default:
	}
}
