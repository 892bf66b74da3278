package daemon

import (
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/limeload/limeload-l4/pool"
)

// ofPools declares the numbers of the pools and their backends.
func (c *catalog) ofPools(d *Daemon) part {
	var (
		info = c.gauge("limeload_pool_info",
			"The labels of a pool say how it chooses, and which role its checks want; the value is always 1.",
			"algorithm", "pool", "role")
		backends = c.gauge("limeload_pool_backends",
			"The pool has so many backends.", "pool")
		eligible = c.gauge("limeload_pool_eligible_backends",
			"So many backends of the pool may get new sessions, apart from their limits; while the pool tries all, those it tries.",
			"pool")
		wanted = c.gauge("limeload_pool_wanted_backends",
			"So many backends of the pool should serve: those in mode ready, with a weight and of the wanted role; at most 1 where the primary is wanted.",
			"pool")
		triesAll = c.gauge("limeload_pool_tries_all",
			"No backend is healthy, and when_none = \"all\" has all of them tried (1).", "pool")
		fallsBack = c.gauge("limeload_pool_falls_back",
			"No replica is eligible, and fallback = \"primary\" has the primary serve (1).", "pool")
		sessions = c.gauge("limeload_pool_sessions",
			"The backends of the pool have so many sessions now.", "pool")

		waiting = c.gauge("limeload_pool_queue_sessions",
			"So many sessions wait for a backend of the pool now.", "pool")
		queueMax = c.gauge("limeload_pool_queue_max_sessions",
			"So many sessions may wait for a backend at once; 0 is a pool without a queue.", "pool")
		waited = c.counter("limeload_pool_queue_waited_total",
			"So many sessions had to wait for a backend.", "pool")
		left = c.counter("limeload_pool_queue_left_total",
			"So many sessions wait no more: served, left before (the time was over, or the client gone), or in vain (the pool was removed, or the session had tried every backend).",
			"pool", "result")
		holdMax = c.gauge("limeload_pool_hold_max_sessions",
			"So many sessions may wait at once while no backend is eligible; 0 is a pool without a hold.", "pool")
		holdFull = c.counter("limeload_pool_hold_full_total",
			"So many sessions found no room to wait for an eligible backend.", "pool")
		full = c.counter("limeload_pool_queue_full_total",
			"So many sessions found no room in the queue.", "pool")
		refused = c.counter("limeload_pool_refused_picks_total",
			"The pool had no backend to give so often: none was eligible (no_backend), or all were at their limits (busy), after which a session waits if there is a queue or a hold.",
			"pool", "reason")

		sticky = c.gauge("limeload_pool_sticky_entries",
			"The pool remembers so many clients that will return to their backend if they come in time.", "pool")
		openings = c.counter("limeload_pool_breaker_openings_total",
			"The breakers of the pool have opened so often, those of removed backends included.", "pool")
		revocations = c.counter("limeload_pool_revocations_total",
			"All sessions of a backend were ended so often, since it was removed or unhealthy.", "pool")
		rivalries = c.counter("limeload_pool_rivalries_total",
			"A second backend has claimed to be the primary so often, and was fenced off.", "pool")
		credentials = c.gauge("limeload_pool_credentials_refused",
			"Every backend that answers refuses the credentials of its checks, so that no verdict changes for them (1).",
			"pool")
	)
	of := c.ofBackends()
	lefts := labelsFor("result", "served", "left", "in_vain")
	reasons := labelsFor("reason", "no_backend", "busy")
	return func(to sink) {
		primary := make(map[string]bool) // pools whose checks look for the primary
		cfg := d.config()
		for i := range cfg.Pools {
			c := &cfg.Pools[i]
			primary[c.Name] = c.Health.WantsPrimary()
			to.put(info, 1, label("algorithm", c.Algorithm), label("pool", c.Name), label("role", c.Health.WantedRole()))
		}
		for name, s := range d.servedPools() {
			p := label("pool", name)
			infos := s.pool.Backends()
			var leases int64
			for i := range infos {
				leases += infos[i].Leases
				of.put(to, p, &infos[i])
			}
			to.put(backends, float64(len(infos)), p)
			to.put(eligible, float64(s.pool.Eligible()), p)
			to.put(wanted, float64(wantedBackends(infos, primary[name])), p)
			to.claim(triesAll, s.pool.TriesAll(), p)
			to.claim(fallsBack, s.pool.FallsBack(), p)
			to.put(sessions, float64(leases), p)

			stats := s.pool.Stats()
			to.put(waiting, float64(stats.Waiting), p)
			to.put(queueMax, float64(s.pool.QueueMax()), p)
			to.put(waited, float64(stats.Waited), p)
			for i, n := range []uint64{stats.Served, stats.Left, stats.InVain} {
				to.put(left, float64(n), p, lefts[i])
			}
			to.put(full, float64(stats.QueueFull), p)
			to.put(holdMax, float64(s.pool.HoldMax()), p)
			to.put(holdFull, float64(stats.HoldFull), p)
			for i, n := range []uint64{stats.NoBackend, stats.Busy} {
				to.put(refused, float64(n), p, reasons[i])
			}
			to.put(sticky, float64(stats.Remembered), p)
			to.put(openings, float64(stats.Openings), p)
			to.put(revocations, float64(stats.Revocations), p)
			to.put(rivalries, float64(s.rivalries()), p)
			to.claim(credentials, s.refused(), p)
		}
	}
}

// wantedBackends returns how many backends should serve. Of those that have to be the primary, that is one.
func wantedBackends(infos []pool.BackendInfo, primary bool) (n int) {
	for i := range infos {
		if b := &infos[i]; b.Mode == pool.Ready && b.Weight > 0 && b.Verdict != pool.WrongRole &&
			b.Verdict != pool.Fallback && !b.Agent.Withdraws() {
			n++
		}
	}
	if primary {
		return min(n, 1)
	}
	return n
}

// backendSeries are the series of each backend. There are 49, which is a lot for 10,000 backends.
type backendSeries struct {
	info, since, sessions, outcomes, bytes, weight, maxSessions, maxRate, rateReached, eligible, verdict, mode, breaker,
	openings, rebalanced, agentWeight, agentForbids *series

	latency                                          *latencySeries
	in, out                                          *dto.LabelPair
	outcomeLabels, verdicts, modes, breakerPositions []*dto.LabelPair
}

// ofBackends declares them.
func (c *catalog) ofBackends() *backendSeries {
	return &backendSeries{
		info: c.gauge("limeload_backend_info",
			"The labels of a backend say where it is, and what its source says of it; the value is always 1.",
			"address", "backend", "pool", "role", "tier", "zone"),
		since: c.gauge("limeload_backend_verdict_changed_timestamp_seconds",
			"The verdict on the backend was given at this time, in seconds since 1970.", "backend", "pool"),
		latency: c.ofLatency(),
		sessions: c.gauge("limeload_backend_sessions",
			"The backend has so many sessions now.", "backend", "pool"),
		outcomes: c.counter("limeload_backend_outcomes_total",
			"So many uses of the backend are over, by what they showed of it: a session that was served, or an attempt that failed.",
			"backend", "outcome", "pool"),
		bytes: c.counter("limeload_backend_bytes_total",
			"The backend has moved so many bytes, in to it and out from it; bytes of running sessions count some seconds later.",
			"backend",
			"direction", "pool"),
		weight: c.gauge("limeload_backend_weight",
			"The backend has this share relative to the others of the pool; 0 gets nothing new.", "backend", "pool"),
		maxSessions: c.gauge("limeload_backend_max_sessions",
			"The backend may have so many sessions at once; 0 is no limit.",
			"backend", "pool"),
		maxRate: c.gauge("limeload_backend_max_rate_per_second",
			"The backend may get so many new sessions and flows in a second, in the long run; 0 is no limit.",
			"backend", "pool"),
		rateReached: c.counter("limeload_backend_rate_reached_total",
			"The backend had got as many as its max_rate allows so often, and was passed over until the next one.",
			"backend",
			"pool"),
		eligible: c.gauge("limeload_backend_eligible",
			"The backend may get new sessions, apart from its limits (1), or not (0).",
			"backend", "pool"),
		verdict: c.gauge("limeload_backend_verdict",
			"The checks say this of the backend: 1 for the verdict it has, 0 for the others.",
			"backend", "pool", "verdict"),
		mode: c.gauge("limeload_backend_mode",
			"The operator wants this of the backend: 1 for the mode it is in, 0 for the others.",
			"backend", "mode", "pool"),
		breaker: c.gauge("limeload_backend_breaker",
			"The traffic says this of the backend: 1 for the state its breaker is in, 0 for the others.", "backend",
			"breaker", "pool"),
		openings: c.counter("limeload_backend_breaker_openings_total",
			"The breaker of the backend has opened so often.",
			"backend", "pool"),
		agentWeight: c.gauge("limeload_backend_agent_weight_ratio",
			"The agent on the backend's host leaves this part of the weight; 1 if it says nothing. Only backends whose agent has said something have this.",
			"backend", "pool"),
		agentForbids: c.gauge("limeload_backend_agent_forbids",
			"The agent on the backend's host says maint, drain, down or 0% (1). Only backends whose agent has said something have this.",
			"backend", "pool"),
		rebalanced: c.counter("limeload_backend_rebalanced_sessions_total",
			"So many sessions have left the backend where nothing is lost, so that other backends have their share.",
			"backend", "pool"),

		in: label("direction", "in"), out: label("direction", "out"),
		outcomeLabels: labelsOf("outcome", pool.ICMPError), verdicts: labelsOf("verdict", pool.Fallback),
		modes: labelsOf("mode", pool.Maintenance), breakerPositions: labelsOf("breaker", pool.HalfOpen),
	}
}

// put sends the numbers of one backend.
func (s *backendSeries) put(to sink, p *dto.LabelPair, b *pool.BackendInfo) {
	backend := label("backend", b.ID)
	to.put(s.info, 1, label("address", b.Addr.String()), backend, p, label("role", b.Role.String()),
		label("tier", strconv.Itoa(b.Tier)), label("zone", b.Zone))
	to.put(s.since, timestamp(b.Since), backend, p)
	s.latency.put(to, b, backend, p)
	to.put(s.sessions, float64(b.Leases), backend, p)
	for o, outcome := range s.outcomeLabels {
		to.put(s.outcomes, float64(b.Outcomes[o]), backend, outcome, p)
	}
	to.put(s.bytes, float64(b.BytesIn), backend, s.in, p)
	to.put(s.bytes, float64(b.BytesOut), backend, s.out, p)
	to.put(s.weight, float64(b.Weight), backend, p)
	to.put(s.maxSessions, float64(b.MaxSessions), backend, p)
	perSecond := 0.0
	if b.MaxRate.On() {
		perSecond = float64(time.Second) / float64(b.MaxRate.Every)
	}
	to.put(s.maxRate, perSecond, backend, p)
	to.put(s.rateReached, float64(b.RateReached), backend, p)
	to.claim(s.eligible, b.Eligible, backend, p)
	for v, verdict := range s.verdicts {
		to.claim(s.verdict, b.Verdict == pool.Verdict(v), backend, p, verdict)
	}
	for m, mode := range s.modes {
		to.claim(s.mode, b.Mode == pool.Mode(m), backend, mode, p)
	}
	for k, breaker := range s.breakerPositions {
		to.claim(s.breaker, b.Breaker == pool.Breaker(k), backend, breaker, p)
	}
	to.put(s.openings, float64(b.Openings), backend, p)
	if a := b.Agent; a != (pool.Agent{}) {
		part := 1.0
		if a.Weighs {
			part = float64(a.Percent) / 100
		}
		to.put(s.agentWeight, part, backend, p)
		to.claim(s.agentForbids, a.Withdraws() || a.Down, backend, p)
	}
	to.put(s.rebalanced, float64(b.Moved), backend, p)
}
