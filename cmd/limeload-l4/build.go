package main

import (
	"fmt"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// buildPools makes the pools of a configuration, by name.
func buildPools(cfg *conf.Config) (map[string]*pool.Pool, error) {
	pools := make(map[string]*pool.Pool, len(cfg.Pools))
	for _, c := range cfg.Pools {
		p, err := pool.New(pool.Options{
			Name: c.Name, Algorithm: c.Algorithm, Initial: initialVerdict(c.Health),
			ConnectTimeout: c.ConnectTimeout.Std(), Retries: c.Retries,
		})
		if err != nil {
			return nil, err
		}
		specs := make([]pool.Spec, len(c.Backends))
		for i, b := range c.Backends {
			specs[i] = pool.Spec{ID: b.Name, Addr: b.Addr, Weight: uint32(b.Weight)}
		}
		if err := p.Add(specs...); err != nil {
			return nil, err
		}
		pools[c.Name] = p
	}
	return pools, nil
}

// initialVerdict is what is thought of a backend before its first check; without checks it is healthy for good.
func initialVerdict(h *conf.Health) pool.Verdict {
	if h == nil || h.Initial == "healthy" {
		return pool.Healthy
	}
	return pool.Unknown
}

// buildPlan is what the data plane is to do.
func buildPlan(cfg *conf.Config, pools map[string]*pool.Pool) l4.Plan {
	var plan l4.Plan
	for _, c := range cfg.Listeners {
		spec := l4.ListenerSpec{
			Name: c.Name, Address: c.Bind, DualStack: c.DualStack, Pool: pools[c.Pool],
			Backlog: c.Backlog, MaxSessions: c.MaxSessions,
			IdleTimeout: c.IdleTimeout.Std(), HalfCloseTimeout: c.HalfCloseTimeout.Std(), UserTimeout: c.UserTimeout.Std(),
			KeepAlive: l4.KeepAlive{Idle: c.Keepalive.Idle.Std(), Interval: c.Keepalive.Interval.Std(), Count: c.Keepalive.Count},
		}
		if c.RefuseWith == "close" {
			spec.Refuse = l4.RefuseClose
		}
		plan.Listeners = append(plan.Listeners, spec)
	}
	return plan
}

// checkConcurrency bounds the checks under way at once. A check of a dead backend takes its whole timeout, so
// this is also what a pool of dead backends can hold up; the data plane keeps as many descriptors free.
const checkConcurrency = 32

// buildChecks makes the scheduler with a target for each backend of each pool that is checked. What it finds
// goes to the pools.
func buildChecks(cfg *conf.Config, pools map[string]*pool.Pool, log zerolog.Logger) (*healthcheck.Scheduler, error) {
	type backend struct {
		pool *pool.Pool
		id   string
	}
	backends := make(map[string]backend)
	s := healthcheck.NewScheduler(healthcheck.Options{
		Concurrency: checkConcurrency,
		Report: func(c healthcheck.Change) {
			b := backends[c.Target.ID]
			if err := b.pool.SetVerdict(b.id, verdict(c.To), c.Reason); err != nil {
				log.Error().Err(err).Msg("verdict not taken")
			}
		},
	})
	for _, c := range cfg.Pools {
		if c.Health == nil {
			continue
		}
		checker, policy := buildCheck(c.Health)
		for _, b := range c.Backends {
			t := healthcheck.Target{ID: c.Name + "/" + b.Name, Addr: b.Addr}
			backends[t.ID] = backend{pools[c.Name], b.Name}
			if err := s.Add(t, checker, policy); err != nil {
				return nil, fmt.Errorf("check of backend %s: %w", t.ID, err)
			}
		}
	}
	return s, nil
}

func buildCheck(h *conf.Health) (healthcheck.Checker, healthcheck.Policy) {
	p := healthcheck.Policy{
		Interval: h.Interval.Std(), Timeout: h.Timeout.Std(),
		FastInterval: min(h.FastInterval, h.Interval).Std(), // its default may be the longer one
		StaleAfter:   h.StaleAfter.Std(), Rise: h.Rise, Fall: h.Fall, Jitter: h.Jitter,
		Initial: healthcheck.Unknown,
	}
	if h.Initial == "healthy" {
		p.Initial = healthcheck.Healthy
	}
	return healthcheck.TCP{Port: uint16(h.Port)}, p
}

// verdict is the pool's word for a check's.
func verdict(v healthcheck.Verdict) pool.Verdict {
	switch v {
	case healthcheck.Healthy:
		return pool.Healthy
	case healthcheck.Unhealthy:
		return pool.Unhealthy
	}
	return pool.Unknown
}
