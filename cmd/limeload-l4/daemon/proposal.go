package daemon

import (
	"slices"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// A proposal compares a configuration with the one in force: it holds everything that can be known before anything is
// changed. Only the goroutine that made it uses it, and that has the turn, so meanwhile only the API can change
// something.
type proposal struct {
	cfg   *conf.Config
	keys  []conf.Difference // to the configuration in force
	pools []*proposedPool   // in the order of the file
	gone  []*served         // pools in force that the configuration does not have
	plan  l4.Plan
	tls   *proposedTLS

	access   accessLists
	warnings []string // about the files of TLS, and of prefixes

	files *files // read for the proposal
	token string // of the admin socket
}

// A proposedPool is a pool of a proposal.
type proposedPool struct {
	conf   *conf.Pool
	served *served // the existing pool, or a new one that does not run
	isNew  bool
	keys   []conf.Difference // of the pool and its tables, without the backends

	options    pool.Options
	specs      []pool.Spec
	difference pool.Difference // what reconciling with specs would change
	known      []pool.Judgement

	// specs and difference by the id of a backend, of which there may be ten thousand
	spec           map[string]pool.Spec
	coming         map[string]pool.Spec // the added ones, with the run-time changes that will apply to them
	added, removed map[string]bool
	changed        map[string][]string // fields of the Spec that change

	check    *builtCheck      // nil without checks
	source   discovery.Source // nil without discovery, and if the pool is new
	contents []string         // keys, below the pool, whose files have other contents than before
}

// propose reads everything that a configuration names, and compares it with what is in force. It starts nothing, and
// leaves nothing to be cleaned up.
func (d *Daemon) propose(cfg *conf.Config, from *files) (*proposal, error) {
	in := d.servedPools()
	p := &proposal{cfg: cfg, keys: d.config().Compare(cfg), files: from}
	if err := checkHost(cfg); err != nil {
		return nil, err
	}
	var err error
	if p.token, err = readToken(cfg, from); err != nil {
		return nil, err
	}
	if p.tls, err = proposeTLS(cfg, d.securedNow(), from); err != nil {
		return nil, err
	}
	if p.access, p.warnings, err = proposeAccess(cfg, d.accessNow(), from); err != nil {
		return nil, err
	}
	p.warnings = slices.Concat(p.tls.warnings, p.warnings)
	pools := make(map[string]*pool.Pool, len(cfg.Pools))
	for i := range cfg.Pools {
		c := &cfg.Pools[i]
		pp, err := d.proposePool(cfg, c, in[c.Name], from, &p.tls.secured)
		if err != nil {
			return nil, err
		}
		delete(in, c.Name)
		pp.keys = keysOf(p.keys, "pool", c.Name)
		pp.contents = d.files.changed(from, conf.Path("pool", c.Name))
		p.pools = append(p.pools, pp)
		pools[c.Name] = pp.served.pool
	}
	for _, c := range d.config().Pools {
		if s := in[c.Name]; s != nil {
			p.gone = append(p.gone, s)
		}
	}
	p.plan = d.buildPlan(cfg, pools, &p.tls.secured, p.access)
	return p, nil
}

// proposePool compares one pool with the existing one of its name, which may be nil.
func (d *Daemon) proposePool(
	cfg *conf.Config, c *conf.Pool, now *served, from *files, secure *secured,
) (*proposedPool, error) {
	pp := &proposedPool{conf: c, served: now, isNew: now == nil, options: PoolOptions(c), specs: configSpecs(c)}
	pp.options.Secure = secure.secure(c.Name)
	if pp.isNew {
		s, err := d.newServed(cfg, c, from, secure)
		if err != nil {
			return nil, err
		}
		pp.served = s
		if s.checks != nil {
			pp.check = s.checks.check
		}
		return pp, nil
	}
	if err := pool.CheckOptions(pp.options); err != nil {
		return nil, err
	}
	var err error
	if pp.difference, err = now.pool.WouldReconcile(sourceConfig, pp.specs); err != nil {
		return nil, err
	}
	if err := pp.leavesNothing(cfg); err != nil {
		return nil, err
	}
	pp.index()
	if pp.source, err = discoverySource(cfg, c, from); err != nil {
		return nil, err
	}
	if c.Health != nil {
		pp.check, err = buildCheck(cfg, c, from, d.echo)
	}
	return pp, err
}

// keysOf returns the differences below a key, except those of backends, with the keys shortened by that prefix.
func keysOf(all []conf.Difference, under ...string) []conf.Difference {
	var mine []conf.Difference
	for _, k := range all {
		n := len(under)
		if len(k.Keys) <= n || !slices.Equal(k.Keys[:n], under) || k.Keys[n] == "backends" {
			continue
		}
		mine = append(mine, conf.Difference{Keys: k.Keys[n:], From: k.From, To: k.To})
	}
	return mine
}

// changes reports whether a value below a key changes.
func (pp *proposedPool) changes(key string) bool {
	return slices.ContainsFunc(pp.keys, func(k conf.Difference) bool { return k.Keys[0] == key })
}

// changesContents reports whether a file below a key has other contents.
func (pp *proposedPool) changesContents(key string) bool {
	return slices.ContainsFunc(pp.contents, func(k string) bool { return isBelow(k, key) })
}

// index fills the maps by id.
func (pp *proposedPool) index() {
	pp.spec = make(map[string]pool.Spec, len(pp.specs))
	pp.changed = make(map[string][]string, len(pp.difference.Changed))
	for _, s := range pp.specs {
		pp.spec[s.ID] = s
	}
	pp.coming = make(map[string]pool.Spec, len(pp.difference.Coming))
	for _, s := range pp.difference.Coming {
		pp.coming[s.ID] = s
	}
	for _, c := range pp.difference.Changed {
		pp.changed[c.ID] = c.Fields
	}
	set := func(ids []string) map[string]bool {
		is := make(map[string]bool, len(ids))
		for _, id := range ids {
			is[id] = true
		}
		return is
	}
	pp.added, pp.removed = set(pp.difference.Added), set(pp.difference.Removed)
}

// next returns the weight and the mode that a backend of the pool will have, and whether it stays. One that is replaced
// does not stay.
func (pp *proposedPool) next(b pool.BackendInfo) (weight uint32, mode pool.Mode, stays bool) {
	weight, mode = b.Weight, b.Mode
	for _, field := range pp.changed[b.ID] {
		switch field {
		case "weight":
			weight = pp.spec[b.ID].Weight
		case "mode":
			mode = pp.spec[b.ID].Mode
		}
	}
	return weight, mode, !pp.removed[b.ID]
}

// survives reports whether a backend stays that is eligible now. Then the new ones need no warm-up.
func (pp *proposedPool) survives() bool {
	return slices.ContainsFunc(pp.served.pool.Backends(), func(b pool.BackendInfo) bool {
		weight, mode, stays := pp.next(b)
		return b.Eligible && stays && weight > 0 && mode == pool.Ready
	})
}
