package daemon

import (
	"context"
	"slices"
	"sync"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// warmUp waits until the pools of a proposal can serve. It starts the new pools and waits for their first verdicts.
// Where all backends of an existing pool are replaced, it checks the new ones before they take over; otherwise clients
// would be refused until the first checks are done. If ctx ends meanwhile, it ends what it started and returns the
// cause.
func (d *Daemon) warmUp(ctx context.Context, p *proposal) error {
	for _, pp := range p.pools {
		if pp.isNew {
			pp.served.start()
		}
	}
	for _, pp := range p.pools {
		switch {
		case pp.isNew:
			d.awaitFirst(ctx, pp.served)
		case pp.needsWarmUp():
			pp.known = d.checkAhead(ctx, pp)
			if pp.conf.Health.WantsPrimary() {
				pp.known = onePrimary(pp.known, pp.specs)
			}
		}
	}
	if ctx.Err() != nil {
		d.dismiss(p)
		return context.Cause(ctx)
	}
	return nil
}

// needsWarmUp reports whether the proposal leaves an existing pool no eligible backend, so that the ones it adds serve
// at once.
func (pp *proposedPool) needsWarmUp() bool {
	return pp.check != nil && pp.check.policy.Initial != healthcheck.Healthy && len(pp.difference.Added) > 0 &&
		!pp.survives()
}

// onePrimary keeps one healthy verdict if there are several, since each backend claims to be the primary: that of the
// first backend in the order of specs. Once the backends are in the pool, the fence judges them all.
func onePrimary(known []pool.Judgement, specs []pool.Spec) []pool.Judgement {
	for _, s := range specs {
		i := slices.IndexFunc(known, func(j pool.Judgement) bool { return j.ID == s.ID && j.Verdict == pool.Healthy })
		if i >= 0 {
			return known[i : i+1]
		}
	}
	return known
}

// dismiss ends the pools that warmUp has started.
func (d *Daemon) dismiss(p *proposal) {
	for _, pp := range p.pools {
		if pp.isNew {
			pp.served.end()
		}
	}
}

// awaitFirst returns when a new pool has an eligible backend of the wanted role or is judged, when ctx is done, or
// after maxFirstVerdicts.
func (d *Daemon) awaitFirst(ctx context.Context, s *served) {
	ctx, cancel := context.WithTimeout(ctx, maxFirstVerdicts)
	defer cancel()
	for (s.pool.Eligible() == 0 || s.pool.FallsBack()) && !s.judged() {
		select {
		case <-d.changed: // nobody else reads it: the start is over, and there is one warm-up at a time
		case <-ctx.Done():
			return
		}
	}
}

// An aheadCheck collects the verdicts on backends that no pool has yet.
type aheadCheck struct {
	judged chan struct{} // has room for one: there is another verdict

	mu sync.Mutex
	// mu guards the fields below
	verdicts map[string]pool.Judgement // by the backend's id
}

// checkAhead checks the backends that a pool is to get. It returns the verdicts when a backend is healthy, when each of
// them has a verdict, when ctx is done, or after maxFirstVerdicts.
func (d *Daemon) checkAhead(ctx context.Context, pp *proposedPool) []pool.Judgement {
	a := &aheadCheck{judged: make(chan struct{}, 1), verdicts: make(map[string]pool.Judgement)}
	name, coming := pp.conf.Name, 0
	for _, s := range pp.specs {
		if !pp.added[s.ID] {
			continue
		}
		coming++
		// The id differs from that of the target that the pool may have for a backend of this name.
		t := healthcheck.Target{ID: targetID(name, s.ID) + " (new)", Group: name, Name: s.ID, Receiver: a}
		if err := d.checks.Add(place{s.Addr, s.Check}.locate(t), pp.check.checker, pp.check.policy); err != nil {
			d.log.Error().AnErr("err", err).Str("event", "check_failed").Msg("backend not checked")
			continue
		}
		defer d.checks.Remove(t.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, maxFirstVerdicts)
	defer cancel()
	for {
		verdicts, healthy := a.soFar()
		if healthy || len(verdicts) == coming {
			return verdicts
		}
		select {
		case <-a.judged:
		case <-ctx.Done():
			return verdicts
		}
	}
}

// take records verdicts.
func (a *aheadCheck) take(changes []healthcheck.Change) error {
	a.mu.Lock()
	for _, c := range changes {
		a.verdicts[c.Target.Name] = judgementOf(c)
	}
	a.mu.Unlock()
	select {
	case a.judged <- struct{}{}:
	default:
	}
	return nil
}

// soFar returns the verdicts up to now, and whether one of them is healthy.
func (a *aheadCheck) soFar() (verdicts []pool.Judgement, healthy bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range a.verdicts {
		verdicts = append(verdicts, j)
		healthy = healthy || j.Verdict == pool.Healthy
	}
	return verdicts, healthy
}
