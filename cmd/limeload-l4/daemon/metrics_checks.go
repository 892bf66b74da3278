package daemon

import (
	dto "github.com/prometheus/client_model/go"

	"github.com/limeload/limeload-l4/healthcheck"
)

// ofChecks declares the numbers of the health checks, by pool and by backend.
func (c *catalog) ofChecks(d *Daemon) part {
	var (
		checks = c.counter("limeload_checks_total",
			"So many checks of the pool's backends have ended, by their outcome. One that pools share counts at one of them.",
			"outcome", "pool")
		shared = c.counter("limeload_checks_shared_total",
			"So many results of checks count at another pool, which shares them.", "pool")
		duration = c.histogram("limeload_check_duration_seconds",
			"A check takes so long, whatever its outcome. One that pools share counts at one of them.", "pool")
		running = c.gauge("limeload_checks_running",
			"So many checks are under way now, by what each takes: one made of several counts as so many.", "kind")
		waiting = c.gauge("limeload_checks_waiting",
			"So many checks are due and wait for their turn.", "kind")
		slots = c.gauge("limeload_checks_max_running",
			"So many checks may be under way at once.", "kind")
		blind = c.gauge("limeload_checks_blind_backends",
			"The checks of so many backends have found nothing out for stale_after, for want of something of this machine; their verdicts stay.",
			"pool")
	)
	backend := c.ofBackendChecks()
	outcomes := labelsOf("outcome", healthcheck.Outcome(len(healthcheck.Counts{})-1))
	return func(to sink) {
		stats := d.checks.Stats()
		for kind, s := range map[string]healthcheck.SlotStats{"socket": stats.Sockets, "program": stats.Programs} {
			of := label("kind", kind)
			to.put(running, float64(s.Running), of)
			to.put(waiting, float64(s.Waiting), of)
			to.put(slots, float64(s.Max), of)
		}
		served := d.servedPools()
		unseen := make(map[string]int)
		for _, t := range stats.Targets {
			if t.Blind {
				unseen[t.Target.Group]++
			}
		}
		for _, p := range d.config().Pools {
			if p.Health == nil {
				continue
			}
			tally, name := stats.Groups[p.Name], label("pool", p.Name)
			for o, outcome := range outcomes {
				to.put(checks, float64(tally.Checks[o]), outcome, name)
			}
			to.put(shared, float64(tally.Shared), name)
			to <- &distribution{of: duration, form: checkTimes(tally), labels: []*dto.LabelPair{name}}
			to.put(blind, float64(unseen[p.Name]), name)
			if served[p.Name] == nil { // a reload is just adding it
				continue
			}
			for _, id := range served[p.Name].pool.IDs() {
				target := stats.Targets[targetID(p.Name, id)]
				backend.put(to, &target, label("backend", id), name)
			}
		}
	}
}

// checkTimes converts the durations of checks.
func checkTimes(t healthcheck.Tally) *dto.Histogram {
	var all, upTo uint64
	for _, n := range t.Checks {
		all += n
	}
	h := &dto.Histogram{SampleCount: &all, SampleSum: new(t.Duration.Seconds())}
	for i, bound := range healthcheck.DurationBounds() {
		upTo += t.Buckets[i]
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: new(bound.Seconds()), CumulativeCount: new(upTo)})
	}
	return h
}
