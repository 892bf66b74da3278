package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// A hearing is the checks of backends that no pool has yet: where a new configuration leaves none of those that serve now, the
// new ones are judged before they take over, or clients would be refused until the first checks are done.
type hearing struct {
	heard chan struct{} // has room for one: there is another verdict

	mu sync.Mutex
	// mu guards the fields below
	verdicts map[string]pool.Judgement
}

// hear checks backends that the pool of that name is to have, until one of them is healthy, there is a verdict on each, ctx is
// done, or maxFirstVerdicts have passed, and returns the verdicts.
func (d *Daemon) hear(ctx context.Context, poolName string, specs []pool.Spec, c healthcheck.Checker, p healthcheck.Policy) []pool.Judgement {
	h := &hearing{heard: make(chan struct{}, 1), verdicts: make(map[string]pool.Judgement)}
	for _, s := range specs {
		// Another id than that of the target which the pool may have for a backend of this name.
		t := healthcheck.Target{ID: targetID(poolName, s.ID) + " (new)", Group: poolName, Name: s.ID, Receiver: h}
		if err := d.checks.Add(place{s.Addr, s.Check}.locate(t), c, p); err != nil {
			d.log.Error().AnErr("err", err).Msg("backend not checked")
			continue
		}
		defer d.checks.Remove(t.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, maxFirstVerdicts)
	defer cancel()
	for {
		verdicts, healthy := h.soFar()
		if healthy || len(verdicts) == len(specs) {
			return verdicts
		}
		select {
		case <-h.heard:
		case <-ctx.Done():
			return verdicts
		}
	}
}

// take notes verdicts.
func (h *hearing) take(judgements ...pool.Judgement) error {
	h.mu.Lock()
	for _, j := range judgements {
		h.verdicts[j.ID] = j
	}
	h.mu.Unlock()
	select {
	case h.heard <- struct{}{}:
	default:
	}
	return nil
}

// soFar is the verdicts up to now, and whether one of them is healthy.
func (h *hearing) soFar() (verdicts []pool.Judgement, healthy bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, j := range h.verdicts {
		verdicts = append(verdicts, j)
		healthy = healthy || j.Verdict == pool.Healthy
	}
	return verdicts, healthy
}

// await returns when a pool that is new has a backend that can serve, or all are judged, or after maxFirstVerdicts.
func (s *served) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, maxFirstVerdicts)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond) // a reload is rare, and others may wait for the same events
	defer look.Stop()
	for s.pool.Eligible() == 0 && !s.judged() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}
