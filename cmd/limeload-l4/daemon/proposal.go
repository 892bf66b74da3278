package daemon

import (
	"slices"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// A proposal is a configuration that may be taken up, next to what is in force: all that can be known of it before anything is
// done. It is for the goroutine that made it, which has the turn: nothing in force changes meanwhile but by the API.
type proposal struct {
	cfg   *conf.Config
	keys  []conf.Difference // from the configuration in force
	pools []*proposedPool   // in the file's order
	gone  []*served         // pools in force that it does not have
	plan  l4.Plan

	files *files // as they were read for it
	token string // of the admin socket
}

// A proposedPool is a pool of a proposal.
type proposedPool struct {
	conf   *conf.Pool
	served *served // the pool it is now, or one that was made for it and does not run
	isNew  bool
	keys   []conf.Difference // of its own and its tables', without backends

	options    pool.Options
	specs      []pool.Spec
	difference pool.Difference // what taking up specs changes
	known      []pool.Judgement

	// what of specs and difference is looked up by a backend's id, of which there may be ten thousand
	spec           map[string]pool.Spec
	coming         map[string]pool.Spec // of those added: with the run-time settings that they will have
	added, removed map[string]bool
	changed        map[string][]string // fields of the Spec

	check    *builtCheck // nil without checks
	contents []string    // keys, below the pool, of files that have other contents than before
}

// propose reads everything that a configuration names and looks what taking it up would change. It starts nothing, and leaves
// nothing that would have to be given back.
func (d *Daemon) propose(cfg *conf.Config, from *files) (*proposal, error) {
	in := d.servedPools()
	p := &proposal{cfg: cfg, keys: d.config().Compare(cfg), files: from}
	var err error
	if p.token, err = readToken(cfg, from); err != nil {
		return nil, err
	}
	pools := make(map[string]*pool.Pool, len(cfg.Pools))
	for i := range cfg.Pools {
		c := &cfg.Pools[i]
		pp, err := d.proposePool(cfg, c, in[c.Name], from)
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
	p.plan = d.buildPlan(cfg, pools)
	return p, nil
}

// proposePool looks at one pool; now is the one of its name in force, or nil.
func (d *Daemon) proposePool(cfg *conf.Config, c *conf.Pool, now *served, from *files) (*proposedPool, error) {
	pp := &proposedPool{conf: c, served: now, isNew: now == nil, options: PoolOptions(c), specs: configSpecs(c)}
	if pp.isNew {
		s, err := d.newServed(cfg, c, from)
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
	if c.Health != nil {
		pp.check, err = buildCheck(cfg, c, from, d.echo)
	}
	return pp, err
}

// keysOf is those of the differences that lie under the keys, but for backends, without these keys.
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

// changes tells whether a key under that one has changed.
func (pp *proposedPool) changes(key string) bool {
	return slices.ContainsFunc(pp.keys, func(k conf.Difference) bool { return k.Keys[0] == key })
}

// index fills what is looked up by a backend's id.
func (pp *proposedPool) index() {
	pp.spec, pp.changed = make(map[string]pool.Spec, len(pp.specs)), make(map[string][]string, len(pp.difference.Changed))
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

// next is the weight and the mode that a backend of the pool will have; false when it goes, perhaps for another of its name.
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

// survives tells whether a backend that is eligible now stays so: then new ones may take the time for their checks.
func (pp *proposedPool) survives() bool {
	return slices.ContainsFunc(pp.served.pool.Backends(), func(b pool.BackendInfo) bool {
		weight, mode, stays := pp.next(b)
		return b.Eligible && stays && weight > 0 && mode == pool.Ready
	})
}
