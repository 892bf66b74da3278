package daemon

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
)

const (
	// firstNameRetry is the pause before unresolved names are looked up again. A resolver that restarts is back within
	// seconds.
	firstNameRetry = time.Second
	// lastNameRetry is the limit of that pause, which doubles with each failure. Discovery has the same limit.
	lastNameRetry = 30 * time.Second
)

// configSpecs returns the backends of a configured pool that have an address. The names of the others could not be
// resolved; tryNames adds those backends later.
func configSpecs(c *conf.Pool) []pool.Spec {
	return slices.DeleteFunc(BackendSpecs(c.Backends), func(s pool.Spec) bool { return !s.Addr.IsValid() })
}

// warningsOf returns the warnings of a configuration and about this host, and its host names that cannot be resolved.
func warningsOf(cfg *conf.Config) []string {
	warnings := fileWarnings(cfg)
	for _, e := range cfg.Unresolved() {
		warnings = append(warnings, e.Error())
	}
	return warnings
}

// leavesNothing returns an error if a pool that has backends now would lose them all because names cannot be resolved.
// A mistyped name must not stop service. A new pool serves nobody yet, and may start without backends.
func (pp *proposedPool) leavesNothing(cfg *conf.Config) error {
	now := pp.served.pool.Backends()
	if len(pp.specs) == len(pp.conf.Backends) || len(now) == 0 ||
		len(now)-len(pp.difference.Removed)+len(pp.difference.Added) > 0 {
		return nil
	}
	return &admin.ConfigError{Err: cfg.Unresolved()}
}

// tryNames starts to look up the unresolved names of the configuration in force in the background, until each of them
// has an address or another configuration is in force. The caller has the turn.
func (d *Daemon) tryNames() {
	d.stopNames()
	unresolved := d.config().Unresolved()
	if len(unresolved) == 0 {
		return
	}
	for _, e := range unresolved {
		d.log.Warn().Str("configuration", e.Error()).
			Str("event", "name_not_resolved").Msg("name not resolved: tried again until it has an address")
	}
	ctx, stop := context.WithCancel(context.Background())
	d.stopNaming = stop
	d.naming.Go(func() { d.followNames(ctx) })
}

// stopNames stops what tryNames started. It does not wait for the goroutine, which may itself be waiting for the turn
// and then gets an error. The caller has the turn.
func (d *Daemon) stopNames() {
	if d.stopNaming != nil {
		d.stopNaming()
		d.stopNaming = nil
	}
}

// followNames looks up unresolved names until all have an address or ctx is done.
func (d *Daemon) followNames(ctx context.Context) {
	for pause := firstNameRetry; ; pause = min(2*pause, lastNameRetry) {
		select {
		// spread, so that a fleet started together does not ask together
		case <-time.After(pause + time.Duration(rand.Float64()*float64(pause)/10)):
		case <-ctx.Done():
			return
		}
		limited, cancel := context.WithTimeout(ctx, resolveTimeout)
		next := d.config().ResolveAgain(limited, d.lookup)
		cancel()
		if d.takeNames(ctx, next) {
			return
		}
	}
}

// takeNames puts next in force, which differs from the configuration in force only in the addresses of names. It
// reports whether nothing is left to do.
func (d *Daemon) takeNames(ctx context.Context, next *conf.Config) (done bool) {
	_, giveBack, err := d.life.takeTurn(ctx)
	if err != nil {
		return true // another configuration is in force, or the daemon drains
	}
	defer giveBack()
	before := d.config()
	if len(next.Unresolved()) == len(before.Unresolved()) {
		return false
	}
	d.mu.Lock()
	d.cfg = next
	d.mu.Unlock()
	d.nameBackends(next)
	var failures []error
	for i := range next.Pools {
		c := &next.Pools[i]
		if slices.Equal(c.Backends, before.Pools[i].Backends) {
			continue
		}
		s, err := d.served(c.Name)
		if err == nil {
			_, err = s.pool.Reconcile(sourceConfig, configSpecs(c))
		}
		failures = append(failures, err)
	}
	if err := errors.Join(failures...); err != nil {
		d.log.Error().AnErr("err", err).Str("event", "name_failed").Msg("backends of resolved names not taken")
	}
	d.log.Info().Int("left", len(next.Unresolved())).Str("event", "names_resolved").Msg("names resolved")
	return len(next.Unresolved()) == 0
}
