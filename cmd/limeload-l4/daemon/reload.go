package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// Reload reads the configuration's file again and puts it in force. It first does everything that can fail; after an
// error nothing has changed. The error is admin.ErrEnding once the daemon drains, and a *admin.ConfigError unless the
// daemon itself is at fault. It waits until the daemon serves, and until it has the turn.
//
// Pools and listeners that are in both configurations keep their sockets, sessions, counters, verdicts and positions.
// Removed ones get no new sessions, and their sessions still run to their end unless on_remove says otherwise.
func (d *Daemon) Reload(ctx context.Context) (admin.Reloaded, error) {
	if err := d.life.awaitServing(ctx); err != nil {
		return admin.Reloaded{}, err
	}
	ctx, giveBack, err := d.life.takeTurn(ctx)
	if err != nil {
		return admin.Reloaded{}, err
	}
	defer giveBack()
	defer l4.GiveWay()()
	began := time.Now()
	d.notify.reloading()
	plan, err := d.reload(ctx)
	if err != nil {
		err = d.life.endingOr(err)
	}
	took := time.Since(began)
	d.noteReload(began, took, err)
	if err != nil {
		d.notify.ready("the last reload failed, and the configuration of before is in force: " + err.Error())
		return admin.Reloaded{}, err
	}
	d.notify.ready(d.summary())
	return admin.Reloaded{Took: took.Seconds(), Plan: plan}, nil
}

// reload is Reload for the caller that has the turn.
func (d *Daemon) reload(ctx context.Context) (admin.Plan, error) {
	cfg, err := d.readAgain(ctx)
	if err != nil {
		return admin.Plan{}, &admin.ConfigError{Err: err}
	}
	p, err := d.propose(cfg, newFiles(cfg.File))
	if err != nil {
		return admin.Plan{}, &admin.ConfigError{Err: err}
	}
	if err := p.tryLogins(ctx, false); err != nil {
		return admin.Plan{}, &admin.ConfigError{Err: err}
	}
	if err := d.warmUp(ctx, p); err != nil {
		return admin.Plan{}, err
	}
	change, err := d.server.Prepare(p.plan)
	if err != nil {
		d.dismiss(p)
		return admin.Plan{}, &admin.ConfigError{Err: located(cfg, err)}
	}
	control, scrapes, err := d.nextSockets(cfg, p.token)
	if err != nil {
		change.Discard()
		d.dismiss(p)
		return admin.Plan{}, &admin.ConfigError{Err: err}
	}
	plan := d.planOf(ctx, p)
	d.commit(p, change)
	d.useSockets(control, scrapes)
	d.saveOrLog()
	return plan, nil
}

// commit puts a proposal in force. It cannot fail, since everything that can fail was tried before.
func (d *Daemon) commit(p *proposal, change *l4.Change) {
	failures := []error{p.tls.update()}
	pools := make(map[string]*served, len(p.pools))
	for _, pp := range p.pools {
		pools[pp.conf.Name] = pp.served
		if !pp.isNew {
			failures = append(failures, d.commitPool(pp))
		} else {
			d.fleet.preparePool(pp.served.pool)
		}
	}
	d.fleet.beforeReload(&p.tls.secured)
	change.Commit()
	before := d.config()
	d.mu.Lock()
	d.cfg, d.pools, d.secured, d.access = p.cfg, pools, &p.tls.secured, p.access
	d.tlsReloads.failing, d.accessReloads.failing = false, false
	d.mu.Unlock()
	d.fleet.afterReload()
	d.files = p.files
	for _, s := range p.gone {
		d.logDropped(s)
		failures = append(failures, s.retire())
	}
	d.server.Set(l4.Settings{
		MaxSessions: p.cfg.Global.MaxSessions, Access: p.cfg.Log.Access.On(), AccessEvery: int(p.cfg.Log.Access),
		NoProbes:     !p.cfg.Log.Probes,
		DrainTimeout: time.Duration(p.cfg.Global.DrainTimeout),
	})
	d.fileLogLevel("reload")
	d.watchFile(p.cfg.Global.Watch)
	d.watchFiles()
	d.tryNames()
	d.forgetSockets(p.plan)
	logged := fileWarnings(before)
	for _, warning := range fileWarnings(p.cfg) {
		if slices.Contains(logged, warning) {
			continue
		}
		d.log.Warn().Str("configuration", warning).
			Str("event", "configuration_warning").Msg("allowed, but perhaps not meant")
	}
	d.logCertificates(slices.DeleteFunc(slices.Clone(p.warnings), func(w string) bool {
		return slices.Contains(d.contentWarnings, w)
	}), &p.tls.secured)
	d.contentWarnings = p.warnings
	if err := errors.Join(failures...); err != nil {
		d.log.Error().AnErr("err", err).
			Str("event", "reload_incomplete").Msg("configuration not taken up in full") // a bug: all of it was tried
	}
}

// forgetSockets forgets the inherited sockets that no listener uses any more. They are closed, and the kernel reuses
// their numbers.
func (d *Daemon) forgetSockets(plan l4.Plan) {
	used := make(map[int]bool)
	for _, l := range plan.Listeners {
		for _, p := range append([]l4.Place{{Inherited: l.Inherited}}, l.More...) {
			for _, fd := range p.Inherited {
				used[fd] = true
			}
		}
	}
	for name, sockets := range d.inherited {
		d.inherited[name] = slices.DeleteFunc(sockets, func(s inheritedSocket) bool { return !used[s.fds[0]] })
		if len(d.inherited[name]) == 0 {
			delete(d.inherited, name)
		}
	}
}

// commitPool changes an existing pool.
func (d *Daemon) commitPool(pp *proposedPool) error {
	s := pp.served
	failures := []error{s.pool.Reconfigure(pp.options)}
	if pp.check == nil && s.checks != nil {
		s.checks.end()
		s.setChecks(nil)
	}
	_, err := s.pool.Reconcile(sourceConfig, pp.specs, pp.known...)
	failures = append(failures, err)
	switch {
	case pp.check == nil:
		failures = append(failures, s.markHealthy())
	case s.checks == nil:
		s.setChecks(newCheckedPool(d.log, d.checks, s.pool, pp.check, pp.conf.Health.WantsPrimary()))
		s.checks.start(d.fleet.sharing())
	case pp.changes("health") || pp.changes("source") || pp.changesContents("health") ||
		pp.check.proxy != s.checks.proxy():
		failures = append(failures, s.checks.change(pp.check, pp.conf.Health.WantsPrimary(), d.fleet.sharing()))
	}
	if pp.changes("agent") || pp.changes("source") {
		s.changeAgents(newAgentPool(d.log, d.checks, s.pool, pp.conf))
	}
	if pp.changes("discovery") || pp.changesContents("discovery") {
		if forbidsMore(s.daemon.poolConfig(pp.conf.Name).Discovery, pp.conf.Discovery) {
			_, err := s.pool.Reconcile(pp.conf.Discovery.Type, nil)
			failures = append(failures, err)
		}
		failures = append(failures, s.rediscover(pp.conf.Discovery, pp.source))
	}
	return errors.Join(failures...)
}

// forbidsMore reports whether the backends found with the previous discovery settings must go at once, even if the next
// discovery finds none: addresses of this machine may no longer be allowed.
func forbidsMore(before, next *conf.Discovery) bool {
	return before != nil && next != nil && before.Type == next.Type && before.AllowLoopback && !next.AllowLoopback
}

// markHealthy makes every backend of a pool healthy whose checks have ended, since no check will do so.
func (s *served) markHealthy() error {
	var judgements []pool.Judgement
	for _, b := range s.pool.Backends() {
		judgements = append(judgements, pool.Judgement{ID: b.ID, Verdict: pool.Healthy, Reason: "not checked any more"})
	}
	return ignoreUnknown(s.pool.SetVerdicts(judgements...))
}

// rediscover replaces the discovery of a pool by one that asks source; nil ends it. Backends that were found before
// stay until the new discovery answers, if it is of the same kind.
func (s *served) rediscover(c *conf.Discovery, source discovery.Source) error {
	var before string
	if s.finder != nil {
		s.finder.end()
		before = s.finder.kind
	}
	s.setFinder(nil)
	var err error
	if before != "" && (c == nil || c.Type != before) {
		// before the first answer, which would leave out backends whose addresses these still have
		_, err = s.pool.Reconcile(before, nil)
	}
	if c != nil {
		s.setFinder(newFinder(c, source, s.pool))
		s.finder.start(s.daemon.poke)
	}
	return err
}

// retire ends a pool that the configuration no longer has. Its backends are removed, as on_remove says.
func (s *served) retire() error {
	if s.finder != nil {
		s.finder.end()
		s.setFinder(nil)
	}
	var failures []error
	for _, b := range s.pool.Backends() {
		failures = append(failures, ignoreUnknown(s.pool.Remove(b.ID)))
	}
	s.pool.Close() // ends the waiting of sessions in the queue
	s.end()
	return errors.Join(failures...)
}

// ignoreUnknown returns err, or nil if err only says that somebody else has removed the backend meanwhile.
func ignoreUnknown(err error) error {
	if errors.Is(err, pool.ErrUnknownBackend) {
		return nil
	}
	return err
}

// needsRestart returns the keys that only take effect at a start, and that differ between boot and next.
func needsRestart(boot, next *conf.Config) []string {
	keys := []string{}
	// without the pools, which may be large
	process := func(c *conf.Config) *conf.Config { return &conf.Config{Global: c.Global, Log: c.Log, Fleet: c.Fleet} }
	for _, k := range process(boot).Compare(process(next)) {
		switch path := conf.Path(k.Keys...); path {
		case "fleet", "global.workers", "global.udp_offload", "global.state_file", "log.format":
			keys = append(keys, path)
		}
	}
	return keys
}

// noteReload counts and logs a reload, and publishes its event.
func (d *Daemon) noteReload(began time.Time, took time.Duration, err error) {
	d.mu.Lock()
	d.reloads.Last = &began
	if err != nil {
		d.reloads.Failed++
		d.reloads.Error = err.Error()
	} else {
		d.reloads.Done++
		d.reloads.Error, d.reloads.Took = "", took.Seconds()
	}
	needs := needsRestart(d.boot, d.cfg)
	d.mu.Unlock()
	if err != nil {
		d.log.Error().AnErr("err", err).
			Str("event", "reload_failed").Msg("configuration not taken up: the old one stays")
		d.events.publish(admin.Event{At: began, Kind: "reload_failed", Reason: err.Error()})
		return
	}
	d.log.Info().Float64("took", took.Seconds()).Strs("needs_restart", needs).
		Str("event", "reloaded").Msg("configuration taken up")
	d.noteKernelTLS()
	d.events.publish(admin.Event{At: began, Kind: "reloaded"})
}
