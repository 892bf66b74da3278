package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// The methods in the files api*.go make a Daemon an admin.Balancer.
var _ admin.Balancer = (*Daemon)(nil)

// sourceAPI is the API's name for itself as a source of backends. Package pool has "" for it.
const sourceAPI = "api"

// Status returns the state of the whole daemon.
func (d *Daemon) Status() admin.Status {
	d.mu.RLock()
	cfg, reloads := d.cfg, d.reloads
	d.mu.RUnlock()
	s := admin.Status{
		Version: d.version, PID: os.Getpid(), Config: cfg.File, Started: d.began,
		State:    d.life.current().String(),
		Sessions: d.server.Sessions(), MaxSessions: cfg.Global.MaxSessions, LogLevel: d.LogLevel().Level,
		Listeners: d.Listeners(), Pools: d.Pools(), Reloads: reloads,
		Differences: d.differences(), NeedsRestart: needsRestart(d.boot, cfg), Warnings: warningsOf(cfg),
		StateFile: d.state.path, Certificates: d.certificates(), Fleet: d.fleetSummary(),
	}
	s.Host, _ = os.Hostname() // without a name, the page shows none
	if err := d.stateError(); err != nil {
		s.StateError = err.Error()
	}
	for _, l := range d.server.Loops() {
		s.Loops = append(s.Loops, admin.Loop{Index: l.Index, Sessions: l.Sessions, Turns: l.Turns})
	}
	return s
}

// Listeners returns all listeners, sorted by name.
func (d *Daemon) Listeners() []admin.Listener {
	infos, caches := d.server.Listeners(), d.dnsCaches()
	pools := make(map[string][]string)
	for _, l := range d.config().Listeners {
		pools[l.Name] = l.Pools()
	}
	listeners := make([]admin.Listener, len(infos))
	for i, l := range infos {
		ended, refused := make(map[string]uint64, len(l.Ended)), make(map[string]uint64)
		for why, n := range l.Ended {
			ended[why.String()] = n
			if isRefusal(why) {
				refused[why.String()] = n
			}
		}
		dropped := make(map[string]uint64, len(l.Dropped))
		for why, n := range l.Dropped {
			dropped[why.String()] = n
		}
		listeners[i] = admin.Listener{
			Name: l.Name, Protocol: l.Protocol.String(), Address: l.Address.String(),
			Addresses: addressTexts(l.Addresses), Pool: l.Pool, Pools: pools[l.Name],
			Sessions: l.Sessions, Accepted: l.Accepted, Retries: retries(l), BytesIn: l.BytesIn, BytesOut: l.BytesOut,
			Ended: ended, Refused: refused, DatagramsIn: l.DatagramsIn, DatagramsOut: l.DatagramsOut, Dropped: dropped,
			DNS: dnsAnswer(l.DNS, caches[l.Name]),
		}
	}
	return listeners
}

// addressTexts converts addresses for the API.
func addressTexts(addresses []pool.Address) []string {
	texts := make([]string, len(addresses))
	for i, a := range addresses {
		texts[i] = a.String()
	}
	return texts
}

// retries returns how many connects followed a failed one.
func retries(l l4.ListenerInfo) (n uint64) {
	for _, times := range l.Retries {
		n += times
	}
	return n
}

// Pools returns all pools, in the order of the file.
func (d *Daemon) Pools() []admin.Pool {
	d.mu.RLock()
	cfg, served := d.cfg, d.pools
	d.mu.RUnlock()
	pools := make([]admin.Pool, 0, len(cfg.Pools))
	for i := range cfg.Pools {
		c := &cfg.Pools[i]
		pools = append(pools, served[c.Name].answer(cfg, c))
	}
	return pools
}

// Pool returns one pool.
func (d *Daemon) Pool(name string) (admin.Pool, error) {
	d.mu.RLock()
	cfg, s := d.cfg, d.pools[name]
	d.mu.RUnlock()
	for i := range cfg.Pools {
		if c := &cfg.Pools[i]; c.Name == name {
			return s.answer(cfg, c), nil
		}
	}
	return admin.Pool{}, fmt.Errorf("pool %q: %w", name, admin.ErrUnknownPool)
}

// answer converts a pool for the API. c is its part of the configuration.
func (s *served) answer(cfg *conf.Config, c *conf.Pool) admin.Pool {
	p := admin.Pool{
		Name: c.Name, Algorithm: c.Algorithm, Listeners: []string{},
		Eligible: s.pool.Eligible(), TriesAll: s.pool.TriesAll(), FallsBack: s.pool.FallsBack(),
		Waiting: s.pool.Waiting(), QueueMax: c.Queue.Max, HoldMax: s.pool.HoldMax(),
		Rivalries: s.rivalries(), LastRivalry: s.lastRivalry(), OnRemove: c.OnRemove, Drain: c.Drain,
	}
	if c.Health != nil {
		p.Check = c.Health.Type
	}
	if c.Discovery != nil {
		p.Discovery = c.Discovery.Type
	}
	var sum pool.BackendInfo
	for _, b := range s.pool.Backends() {
		p.Backends++
		p.Sessions += int(b.Leases)
		p.BytesIn, p.BytesOut = p.BytesIn+b.BytesIn, p.BytesOut+b.BytesOut
		for o, n := range b.Outcomes {
			sum.Outcomes[o] += n
		}
		if b.Verdict == pool.Healthy {
			p.Healthy++
		}
	}
	p.Outcomes = outcomes(sum)
	for _, l := range cfg.Listeners {
		if slices.Contains(l.Pools(), c.Name) {
			p.Listeners = append(p.Listeners, l.Name)
		}
	}
	return p
}

// Backends returns the backends of a pool; for "", those of all pools in the order of the file.
func (d *Daemon) Backends(name string) ([]admin.Backend, error) {
	names := []string{name}
	if name == "" {
		names = nil
		for _, p := range d.config().Pools {
			names = append(names, p.Name)
		}
	}
	backends := []admin.Backend{}
	checks := d.checks.Stats().Targets
	for _, name := range names {
		s, err := d.served(name)
		if err != nil {
			return nil, err
		}
		for _, b := range s.pool.Backends() {
			t, checked := checks[targetID(name, b.ID)]
			backends = append(backends, d.checkedBackend(name, b, t, checked))
		}
	}
	return backends, nil
}

// Backend returns one backend.
func (d *Daemon) Backend(name, id string) (admin.Backend, error) {
	s, err := d.served(name)
	if err != nil {
		return admin.Backend{}, err
	}
	b, err := s.info(id)
	if err != nil {
		return admin.Backend{}, err
	}
	return d.backend(name, b), nil
}

// backend converts a backend for the API.
func (d *Daemon) backend(pool string, b pool.BackendInfo) admin.Backend {
	t, checked := d.checks.Target(targetID(pool, b.ID))
	return d.checkedBackend(pool, b, t, checked)
}

// checkedBackend is backend for a caller that has the stats of the backend's checks, if it is checked.
func (d *Daemon) checkedBackend(
	pool string, b pool.BackendInfo, t healthcheck.TargetStats, checked bool,
) admin.Backend {
	a := admin.Backend{
		Pool: pool, Name: b.ID, Address: b.Addr.String(), Source: apiSource(b.Source),
		Weight: int(b.Weight), MaxSessions: b.MaxSessions, MaxRate: b.MaxRate.String(),
		Tier: b.Tier, Zone: b.Zone, Mode: b.Mode.String(), Agent: b.Agent.String(),
		Verdict: b.Verdict.String(), Reason: b.Reason, Since: b.Since, Breaker: b.Breaker.String(),
		Openings: b.Openings, Eligible: b.Eligible, Sessions: b.Leases, Outcomes: outcomes(b), BytesIn: b.BytesIn,
		BytesOut: b.BytesOut, Drain: d.drains.progress(pool, b),
	}
	if givesRoles(b.Source) {
		a.SourceRole = b.Role.String()
	}
	if checked {
		a.Reason, a.Check = reasonOf(b, t.Last), lastCheck(t)
	} else {
		a.Check = d.heardCheck(pool, b.ID)
	}
	return a
}

// heardCheck returns what other nodes of the fleet have found about a backend; nil if they do not check it for this one.
func (d *Daemon) heardCheck(pool, backend string) *admin.LastCheck {
	s, err := d.served(pool)
	if err != nil {
		return nil // a reload has just removed it
	}
	k, _ := s.works()
	if k == nil {
		return nil
	}
	f, by, is := k.heard(backend)
	if !is {
		return nil
	}
	return &admin.LastCheck{Detail: f.Reason, Role: f.Role, Nodes: by}
}

// lastCheck converts the stats of a target for the API.
func lastCheck(t healthcheck.TargetStats) *admin.LastCheck {
	c := &admin.LastCheck{Took: t.Last.Took.Seconds(), Detail: t.Last.Detail}
	if t.Last.Role != healthcheck.RoleUnknown {
		c.Role = t.Last.Role.String()
	}
	if lag := t.Last.Lag.Seconds(); t.Last.KnowsLag {
		c.Lag = &lag
	}
	if t.Target.Exact {
		c.Address = t.Target.Addr.String()
	}
	if !t.Last.At.IsZero() {
		c.At = &t.Last.At
	}
	if !t.Due.IsZero() {
		c.Next = &t.Due
	}
	return c
}

func apiSource(source string) string {
	if source == "" {
		return sourceAPI
	}
	return source
}

func outcomes(b pool.BackendInfo) map[string]uint64 {
	counts := make(map[string]uint64, len(b.Outcomes))
	for o, n := range b.Outcomes {
		counts[pool.Outcome(o).String()] = n
	}
	return counts
}

// config returns the configuration in force.
func (d *Daemon) config() *conf.Config {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.cfg
}

// served returns a pool by its name. The error wraps admin.ErrUnknownPool.
func (d *Daemon) served(name string) (*served, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if s := d.pools[name]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("pool %q: %w", name, admin.ErrUnknownPool)
}

// Events returns the events from now on, and the function that ends the subscription.
func (d *Daemon) Events() (<-chan admin.Event, func()) { return d.events.subscribe() }

// Ready returns an error if the daemon is not meant to get new sessions.
func (d *Daemon) Ready() error {
	switch d.life.current() {
	case starting:
		return errors.New("starting: the first checks are not done")
	case draining:
		return admin.ErrEnding
	}
	if reason := d.fleet.sharing().aloneReason(); reason != "" {
		return errors.New(reason)
	}
	return nil
}

// Live returns an error if a loop does not answer before ctx is done.
func (d *Daemon) Live(ctx context.Context) error {
	if d.life.current() == starting {
		return nil // the loops do not run yet
	}
	return d.server.Live(ctx)
}
