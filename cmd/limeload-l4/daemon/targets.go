package daemon

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// A checkedPool keeps the targets of a scheduler the same as the backends of a pool. Its methods may be called from any
// goroutine.
type checkedPool struct {
	// set once, then read-only
	log       zerolog.Logger
	pool      *pool.Pool
	scheduler *healthcheck.Scheduler

	// distinguishes a backend that refuses the check's credentials from wrong credentials
	credentials *healthcheck.Credentials

	changed   *pool.Subscription // set by start
	following sync.WaitGroup

	lastRivalry atomic.Pointer[time.Time] // nil before the first

	mu sync.Mutex
	// mu guards the fields below
	check   *builtCheck
	checker healthcheck.Checker // of check, wrapped by credentials and fence
	fence   *healthcheck.Fence  // nil unless the checks look for a primary
	targets map[string]place
	share   *poolShare // nil unless the nodes of a fleet share the checks
}

// A place is the address of a backend and, if its checks have their own address, that one too.
type place struct {
	addr  pool.Address
	check netip.AddrPort
}

// locate sets the address of a target.
func (p place) locate(t healthcheck.Target) healthcheck.Target {
	t.Addr, t.Path = p.addr.AddrPort, p.addr.Path
	if p.check.IsValid() {
		t.Addr, t.Path, t.Exact = p.check, "", true
	}
	return t
}

// checkText returns the address of a backend's checks as the configuration has it; "" if it is the backend's.
func checkText(at netip.AddrPort) string {
	if !at.IsValid() {
		return ""
	}
	return at.String()
}

// newCheckedPool checks nothing before start. primary says that the backends have to be the primary.
func newCheckedPool(
	log zerolog.Logger, s *healthcheck.Scheduler, p *pool.Pool, check *builtCheck, primary bool,
) *checkedPool {
	k := &checkedPool{log: log, pool: p, scheduler: s, targets: make(map[string]place)}
	k.credentials = healthcheck.NewCredentials(s, k.logRefusal)
	k.use(check, primary)
	return k
}

// use sets the check for the backends.
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

// proxy returns the version of the PROXY header that the checks send; 0 is none.
func (k *checkedPool) proxy() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.check.proxy
}

// start begins to check the backends, and follows the changes of the pool until end. The checks are shared with other
// nodes by shared, which may be nil.
func (k *checkedPool) start(shared *sharedChecks) {
	k.mu.Lock()
	k.joinLocked(shared)
	k.mu.Unlock()
	k.changed = k.pool.Subscribe(eventBuffer)
	k.following.Go(k.follow)
	k.match()
	k.appoint()
}

// end ends all checks.
func (k *checkedPool) end() {
	k.changed.Close()
	k.following.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leaveLocked()
	for id := range k.targets {
		k.removeLocked(id)
	}
}

// follow updates the targets after each change of the membership, and checks suspected backends soon. It returns when
// the subscription is closed.
func (k *checkedPool) follow() {
	var lost uint64
	for e := range k.changed.C() {
		changed := k.look(e)
		for range len(k.changed.C()) { // ten thousand that were added at once are matched once
			changed = k.look(<-k.changed.C()) || changed
		}
		dropped := k.changed.Dropped()
		if !changed && dropped == lost {
			continue
		}
		lost = dropped
		k.match()
		k.appoint()
	}
}

// look checks a suspected backend soon, and one that has another role, and reports whether match has to look.
func (k *checkedPool) look(e pool.Event) bool {
	switch e := e.(type) {
	case pool.Suspected:
		if !k.scheduler.CheckSoon(targetID(e.Pool, e.Backend.ID)) {
			k.suspect(e.Backend.ID)
		}
	case pool.RoleChanged:
		k.scheduler.CheckSoon(targetID(e.Pool, e.Backend.ID))
		return true
	}
	return isMembership(e)
}

// isMembership reports whether a backend was added or removed, or has another address for its checks.
func isMembership(e pool.Event) bool {
	switch e.(type) {
	case pool.Added, pool.Removed, pool.CheckChanged:
		return true
	}
	return false
}

// appoint tells the fence which backend the pool's source names the primary, if the source knows roles.
func (k *checkedPool) appoint() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.appointByRoleLocked()
}

func (k *checkedPool) appointByRoleLocked() {
	if k.fence == nil {
		return
	}
	var primary healthcheck.Target
	by := ""
	for _, b := range k.pool.Backends() {
		if b.Role == pool.RoleUnknown {
			continue
		}
		by = b.Source
		if b.Role == pool.RolePrimary {
			primary = k.target(b.ID)
		}
	}
	if by == "" {
		k.fence.Dismiss()
		return
	}
	k.fence.Appoint(by, primary)
}

// change sets another check for the backends. Their verdicts stay. The checks are shared with other nodes by shared,
// which may be nil.
func (k *checkedPool) change(check *builtCheck, primary bool, shared *sharedChecks) error {
	k.use(check, primary)
	k.appoint()
	k.mu.Lock()
	if k.share != nil || shared != nil && check.sharing.sum != "" {
		k.restartLocked(shared)
		k.mu.Unlock()
		k.match()
		return nil
	}
	defer k.mu.Unlock()
	var failures []error
	for id := range k.targets {
		failures = append(failures, k.scheduler.Update(targetID(k.pool.Name(), id), k.checker, k.check.policy))
	}
	return errors.Join(failures...)
}

// match updates the scheduler's targets to the pool's backends.
func (k *checkedPool) match() {
	k.mu.Lock()
	defer k.mu.Unlock()
	backends := k.pool.Backends()
	if k.share != nil {
		k.reviewSharedLocked(k.settleLocked(backends)...)
		return
	}
	there := make(map[string]bool)
	for _, b := range backends {
		there[b.ID] = true
		initial := k.check.policy.Initial
		if b.Verdict == pool.Healthy {
			initial = healthcheck.Healthy // it was checked before it was added, or the pool assumes so
		}
		k.checkLocked(b.ID, place{b.Addr, b.Check}, initial)
	}
	for id := range k.targets {
		if !there[id] {
			k.removeLocked(id)
		}
	}
}

// checkLocked begins to check a backend, or goes on at another place. initial is the verdict before the first result.
func (k *checkedPool) checkLocked(id string, at place, initial healthcheck.Verdict) {
	was, known := k.targets[id]
	if known && was == at {
		return
	}
	t := at.locate(k.target(id))
	if known && was.addr == at.addr { // the same backend: its verdict stays
		k.targets[id] = at
		if err := k.scheduler.Move(t); err != nil {
			k.log.Error().Str("pool", k.pool.Name()).Str("backend", id).AnErr("err", err).
				Str("event", "check_failed").Msg("check not moved")
		}
		return
	}
	if known {
		k.removeLocked(id)
	}
	k.targets[id] = at
	policy := k.check.policy
	policy.Initial = initial
	if err := k.scheduler.Add(t, k.checker, policy); err != nil {
		k.log.Error().Str("pool", k.pool.Name()).Str("backend", id).AnErr("err", err).
			Str("event", "check_failed").Msg("backend not checked")
	}
}

// target returns the target of a backend, without a place.
func (k *checkedPool) target(backend string) healthcheck.Target {
	return healthcheck.Target{ID: targetID(k.pool.Name(), backend), Group: k.pool.Name(), Name: backend, Receiver: k}
}

// take sets the verdicts of the backends.
func (k *checkedPool) take(changes []healthcheck.Change) error {
	if k.takeShared(changes) {
		return nil
	}
	judgements := make([]pool.Judgement, len(changes))
	for i, c := range changes {
		judgements[i] = judgementOf(c)
	}
	return k.pool.SetVerdicts(judgements...)
}

// judgementOf returns a change of a verdict as package pool takes it.
func judgementOf(c healthcheck.Change) pool.Judgement {
	return pool.Judgement{ID: c.Target.Name, Verdict: verdict(c.To), Reason: c.Reason}
}

// removeLocked ends the checks of a backend, if it is checked.
func (k *checkedPool) removeLocked(id string) {
	if _, checked := k.targets[id]; !checked {
		return
	}
	target := targetID(k.pool.Name(), id)
	k.scheduler.Remove(target)
	k.credentials.Forget(target)
	if k.fence != nil {
		k.fence.Forget(target)
	}
	delete(k.targets, id)
}

// logRivalry reports that two backends accept writes. Only people can decide which of the writes are lost.
func (k *checkedPool) logRivalry(r healthcheck.Rivalry) {
	k.lastRivalry.Store(new(time.Now()))
	k.log.Error().Str("pool", k.pool.Name()).Str("backend", r.Rival.Name).Str("primary", r.Primary.Name).
		Str("reason", r.Reason).Int("count", r.Count).
		Str("event", "two_primaries").Msg("two backends claim to be the primary")
}

// logRefusal reports that the checks no longer find anything out, and later that they do again.
func (k *checkedPool) logRefusal(r healthcheck.Refusal) {
	if r.Ended {
		k.log.Info().Str("pool", k.pool.Name()).
			Str("event", "credentials_accepted").Msg("the credentials of the checks are not refused any more")
		return
	}
	k.log.Error().Str("pool", k.pool.Name()).Str("backend", r.Target.Name).Str("reason", r.Reason).
		Str("event", "credentials_refused").
		Msg("every backend that answers refuses the credentials of the checks: the verdicts stay as they are")
}

// primary returns the backend that is, or last was, the primary; "" if it is unknown, or if the checks do not look for
// one.
func (k *checkedPool) primary() string {
	k.mu.Lock()
	fence, heard := k.fence, ""
	if k.share != nil {
		heard = k.share.primary
	}
	k.mu.Unlock()
	if fence == nil {
		return ""
	}
	return cmp.Or(heard, fence.Remembered().Name)
}

// remember sets the backend that was the primary when the previous process ended.
func (k *checkedPool) remember(backend string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fence != nil {
		k.fence.Remember(k.target(backend))
	}
}

// rivalries returns how often a second backend claimed to be the primary.
func (k *checkedPool) rivalries() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fence == nil {
		return 0
	}
	return k.fence.Count()
}

// targetID returns the id of a backend's target. It is never parsed, since the target holds its parts too.
func targetID(pool, backend string) string { return pool + "/" + backend }

// A receiver gets the verdicts on the targets that carry it.
type receiver interface {
	take([]healthcheck.Change) error
}

// takeVerdicts passes the results of checks on to their receivers. A pool or backend may have been removed since.
func (d *Daemon) takeVerdicts(changes []healthcheck.Change) {
	if slices.ContainsFunc(changes, func(c healthcheck.Change) bool { return c.To == healthcheck.Unhealthy }) {
		d.fleet.sharing().reconsider()
	}
	by := make(map[receiver][]healthcheck.Change)
	for _, c := range changes {
		if r, is := c.Target.Receiver.(receiver); is {
			by[r] = append(by[r], c)
		}
	}
	for r, its := range by {
		if err := r.take(its); err != nil && !errors.Is(err, pool.ErrUnknownBackend) {
			d.log.Error().AnErr("err", err).Str("event", "verdict_failed").Msg("verdict not taken")
		}
	}
	d.pokeJudged()
}

// pokeJudged says that a verdict has changed. It never blocks.
func (d *Daemon) pokeJudged() {
	select {
	case d.judgedAgain <- struct{}{}:
	default:
	}
}
