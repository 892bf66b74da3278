package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// checkConcurrency bounds the checks under way at once. A check of a dead backend takes its whole timeout, so
// this is also what a pool of dead backends can hold up; the data plane keeps as many descriptors free.
const checkConcurrency = 32

// A checkedPool is a pool whose backends are the targets of a scheduler: those that come are checked, and those that go are
// not any more.
type checkedPool struct {
	// set once, then read-only
	pool      *pool.Pool
	scheduler *healthcheck.Scheduler
	checker   healthcheck.Checker
	policy    healthcheck.Policy
	fence     *healthcheck.Fence // nil unless its backends are to be the primary
	changed   *pool.Subscription

	targets map[string]netip.AddrPort // by the backend's id; used by one goroutine at a time
}

// buildChecks makes the scheduler with a target for each backend of each pool that is checked. What it finds
// goes to the pools.
func buildChecks(cfg *conf.Config, pools map[string]*pool.Pool, echo *healthcheck.ICMP, log zerolog.Logger) (*healthcheck.Scheduler, []*checkedPool, error) {
	s := healthcheck.NewScheduler(healthcheck.Options{
		Concurrency: checkConcurrency,
		Report:      func(changes []healthcheck.Change) { takeVerdicts(pools, changes, log) },
	})
	var checked []*checkedPool
	for i := range cfg.Pools {
		c := &cfg.Pools[i]
		if c.Health == nil {
			continue
		}
		p := &checkedPool{pool: pools[c.Name], scheduler: s, targets: make(map[string]netip.AddrPort)}
		var err error
		if p.checker, p.policy, err = buildCheck(cfg, c, echo); err != nil {
			return nil, nil, err
		}
		if wantsPrimary(c.Health) {
			p.fence = healthcheck.NewFence(s, func(r healthcheck.Rivalry) { logRivalry(log, r) })
			p.checker = p.fence.Wrap(p.checker)
		}
		p.changed = p.pool.Subscribe(eventBuffer)
		checked = append(checked, p)
		if err := p.match(); err != nil {
			return nil, nil, err
		}
	}
	return s, checked, nil
}

// logRivalry tells the operator that two servers take writes: only people can say which of them are lost.
func logRivalry(log zerolog.Logger, r healthcheck.Rivalry) {
	name, primary, _ := strings.Cut(r.Primary, "/")
	_, rival, _ := strings.Cut(r.Rival, "/")
	log.Error().Str("pool", name).Str("backend", rival).Str("primary", primary).Str("reason", r.Reason).Int("count", r.Count).
		Msg("two backends claim to be the primary")
}

// targetID names a backend's target. No pool's name has a slash in it.
func targetID(pool, backend string) string { return pool + "/" + backend }

// takeVerdicts tells the pools what the checks found.
func takeVerdicts(pools map[string]*pool.Pool, changes []healthcheck.Change, log zerolog.Logger) {
	judgements := make(map[string][]pool.Judgement)
	for _, c := range changes {
		name, backend, _ := strings.Cut(c.Target.ID, "/")
		judgements[name] = append(judgements[name], pool.Judgement{ID: backend, Verdict: verdict(c.To), Reason: c.Reason})
	}
	for name, js := range judgements {
		// A backend may have been removed since it was checked.
		if err := pools[name].SetVerdicts(js...); err != nil && !errors.Is(err, pool.ErrUnknownBackend) {
			log.Error().AnErr("err", err).Msg("verdict not taken")
		}
	}
}

// follow matches targets and backends after each change of the membership, until the subscription is closed.
func (p *checkedPool) follow(log zerolog.Logger) {
	var lost uint64
	for e := range p.changed.C() {
		dropped := p.changed.Dropped()
		switch e.(type) {
		case pool.Added, pool.Removed:
		default:
			if dropped == lost {
				continue
			}
		}
		lost = dropped
		if err := p.match(); err != nil {
			log.Error().AnErr("err", err).Msg("backend not checked")
		}
	}
}

// match makes the pool's backends the scheduler's targets.
func (p *checkedPool) match() error {
	there := make(map[string]bool)
	var failures []error
	for _, b := range p.pool.Backends() {
		there[b.ID] = true
		if at, known := p.targets[b.ID]; known {
			if at == b.Addr {
				continue
			}
			p.remove(b.ID)
		}
		p.targets[b.ID] = b.Addr
		t := healthcheck.Target{ID: targetID(p.pool.Name(), b.ID), Addr: b.Addr}
		if err := p.scheduler.Add(t, p.checker, p.policy); err != nil {
			failures = append(failures, fmt.Errorf("check of backend %s: %w", t.ID, err))
		}
	}
	for id := range p.targets {
		if !there[id] {
			p.remove(id)
		}
	}
	return errors.Join(failures...)
}

// remove ends the checks of a backend.
func (p *checkedPool) remove(id string) {
	target := targetID(p.pool.Name(), id)
	p.scheduler.Remove(target)
	if p.fence != nil {
		p.fence.Forget(target)
	}
	delete(p.targets, id)
}
