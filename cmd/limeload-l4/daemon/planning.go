package daemon

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// planTimeout bounds a plan, including the look-ups of names.
const planTimeout = 30 * time.Second

// Plan reports what a reload with a configuration would change, and changes nothing. nil stands for the daemon's own
// file as it is now. The error is admin.ErrEnding once the daemon drains, and a *admin.ConfigError unless the daemon
// itself is at fault.
//
// A configuration in a request is trusted less than the file. Otherwise whoever may ask for plans could find out which
// files exist on this machine, and could have their first lines sent as passwords to an address of his own. So a plan
// only reads those of its files that the configuration in force names too, and only tries logins as that one has them.
// The command check does all of it, with the rights of its caller.
func (d *Daemon) Plan(ctx context.Context, c *admin.Configuration) (admin.Plan, error) {
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	ctx, stop := d.life.untilEnd(ctx)
	defer stop()
	defer l4.GiveWay()()
	own := d.config().File
	cfg, err := d.readPlanned(ctx, c)
	if err != nil {
		return admin.Plan{}, d.life.endingOr(&admin.ConfigError{Err: err})
	}
	ctx, giveBack, err := d.life.takeTurn(ctx)
	if err != nil {
		return admin.Plan{}, err
	}
	defer giveBack()
	from := newFiles(own) // relative paths count from there, for a configuration of a request too
	if c != nil {
		from.only, from.onlyLists = d.files.paths()
	}
	p, err := d.propose(cfg, from)
	if err == nil {
		err = p.tryLogins(ctx, c != nil)
	}
	if err != nil {
		return admin.Plan{}, d.life.endingOr(&admin.ConfigError{Err: err})
	}
	return d.planOf(ctx, p), nil
}

// readPlanned reads and resolves the configuration of a request; for nil, the daemon's own file.
func (d *Daemon) readPlanned(ctx context.Context, c *admin.Configuration) (*conf.Config, error) {
	if c == nil {
		return d.readAgain(ctx)
	}
	cfg, err := conf.ParseForeign(c.Name, c.Text, d.config())
	if err != nil {
		return nil, err
	}
	return cfg, resolve(ctx, cfg, d.lookup, d.config())
}

// planOf describes what a proposal changes, with the current sessions and run-time changes.
func (d *Daemon) planOf(ctx context.Context, p *proposal) admin.Plan {
	plan := admin.Plan{
		Config: p.cfg.File, Settings: []admin.Change{}, Listeners: []admin.ListenerChange{},
		Pools: []admin.PoolChange{}, NeedsRestart: needsRestart(d.boot, p.cfg),
		Warnings: append(warningsOf(p.cfg), p.warnings...),
	}
	plan.Differences, plan.Dropped = d.runTimeChanges(p)
	for _, table := range []string{"global", "log", "admin", "metrics"} {
		for _, k := range keysOf(p.keys, table) {
			plan.Settings = append(plan.Settings, changeOf(k, table))
		}
	}
	for _, key := range d.files.changed(p.files, "admin") {
		plan.Settings = append(plan.Settings, contentsChange(conf.Path("admin", key)))
	}
	for _, unread := range p.files.unread {
		plan.Warnings = append(plan.Warnings,
			unread+" is not read for a plan, since the configuration in force does not name it; "+
				"`limeload-l4 check` reads it")
	}
	fates := newFates(p)
	for _, c := range d.server.Compare(p.plan) {
		at := c.To
		if c.Fate == l4.Removed {
			at = c.From
		}
		l := admin.ListenerChange{
			Name: c.Name, Protocol: c.Protocol.String(), What: listenerFate(c.Fate),
			Address: at[0].String(), Addresses: addressTexts(at),
			Changes: changesOf(keysOf(p.keys, "listener", c.Name)), Sessions: c.Sessions,
		}
		for _, key := range d.files.changed(p.files, conf.Path("listener", c.Name)) {
			l.Changes = append(l.Changes, contentsChange(key))
			if c.Fate == l4.Kept {
				l.What = listenerFate(l4.Updated)
			}
		}
		fates.note(&c)
		plan.Listeners = append(plan.Listeners, l)
	}
	for _, pp := range p.pools {
		plan.Pools = append(plan.Pools, d.planOfPool(pp))
	}
	for _, s := range p.gone {
		fates.closing[s.pool.Name()] = d.poolConfig(s.pool.Name()).OnRemove == "close"
		c := admin.PoolChange{Name: s.pool.Name(), What: "removed", Changes: []admin.Change{},
			Backends: []admin.BackendPlan{}}
		for _, b := range s.pool.Backends() {
			c.Backends = append(c.Backends, backendPlan(b, "removed", nil))
		}
		plan.Pools = append(plan.Pools, c)
	}
	counts, err := d.server.Count(ctx)
	if err != nil {
		return plan // the caller has left
	}
	for group, n := range counts {
		switch fates.of(group) {
		case ended:
			plan.Ended += n
		case drained:
			plan.Drained += n
		}
	}
	// Even if no key has changed, host names may have other addresses now.
	plan.Same = len(p.keys) == 0 && len(plan.Settings) == 0 &&
		!slices.ContainsFunc(plan.Listeners, isListenerChanged) && !slices.ContainsFunc(plan.Pools, isPoolChanged)
	return plan
}

func isListenerChanged(c admin.ListenerChange) bool { return c.What != listenerFate(l4.Kept) }
func isPoolChanged(c admin.PoolChange) bool         { return c.What != "kept" || len(c.Backends) > 0 }

// planOfPool describes what becomes of a pool that the configuration has.
func (d *Daemon) planOfPool(pp *proposedPool) admin.PoolChange {
	c := admin.PoolChange{Name: pp.conf.Name, What: "kept", Changes: changesOf(pp.keys),
		Backends: []admin.BackendPlan{}}
	if pp.isNew {
		c.What = "added"
		for _, b := range pp.served.pool.Backends() {
			c.Backends = append(c.Backends, backendPlan(b, "added", nil))
		}
		return c
	}
	for _, key := range pp.contents {
		c.Changes = append(c.Changes, contentsChange(key))
	}
	if len(c.Changes) > 0 {
		c.What = "changed"
	}
	now := make(map[string]pool.BackendInfo)
	for _, b := range pp.served.pool.Backends() {
		now[b.ID] = b
	}
	for _, id := range pp.difference.Removed {
		if !pp.added[id] { // otherwise it is listed as replaced
			c.Backends = append(c.Backends, backendPlan(now[id], "removed", nil))
		}
	}
	for _, id := range pp.difference.Added {
		s := pp.spec[id]
		b := pool.BackendInfo{ID: id, Addr: s.Addr}
		what, changes := "added", []admin.Change(nil)
		if pp.removed[id] {
			what, changes = "replaced", specChanges(now[id].Given, s)
			b.Leases = now[id].Leases
		}
		c.Backends = append(c.Backends, backendPlan(b, what, changes))
	}
	for _, change := range pp.difference.Changed {
		b := now[change.ID]
		changes := specChanges(b.Given, pp.spec[change.ID])
		if change.Owner {
			changes = append(changes, admin.Change{Key: "source", From: apiSource(b.Source), To: sourceConfig})
		}
		c.Backends = append(c.Backends, backendPlan(b, "changed", changes))
	}
	if before := d.poolConfig(c.Name); algo.KindOf(before.Algorithm).Hash || algo.KindOf(pp.conf.Algorithm).Hash {
		c.KeysMoved = keysMoved(PoolOptions(before), pp)
	}
	return c
}

func backendPlan(b pool.BackendInfo, what string, changes []admin.Change) admin.BackendPlan {
	if changes == nil {
		changes = []admin.Change{}
	}
	return admin.BackendPlan{Name: b.ID, Address: b.Addr.String(), What: what, Changes: changes, Sessions: b.Leases}
}

// listenerFate converts the fate of a listener for the API.
func listenerFate(f l4.Fate) string {
	if f == l4.Updated {
		return "changed"
	}
	return f.String()
}

// specChanges returns what a source changes of a backend.
func specChanges(from, to pool.Spec) []admin.Change {
	changes := []admin.Change{}
	note := func(key, from, to string) {
		if from != to {
			changes = append(changes, admin.Change{Key: key, From: from, To: to})
		}
	}
	note("address", from.Addr.String(), to.Addr.String())
	note("weight", strconv.FormatUint(uint64(from.Weight), 10), strconv.FormatUint(uint64(to.Weight), 10))
	note("max_sessions", strconv.Itoa(from.MaxSessions), strconv.Itoa(to.MaxSessions))
	note("max_rate", from.MaxRate.String(), to.MaxRate.String())
	note("tier", strconv.Itoa(from.Tier), strconv.Itoa(to.Tier))
	note("zone", from.Zone, to.Zone)
	note("mode", from.Mode.String(), to.Mode.String())
	note("check", checkText(from.Check), checkText(to.Check))
	note("role", from.Role.String(), to.Role.String())
	return changes
}

// changesOf converts the differences of one table for the API.
func changesOf(keys []conf.Difference) []admin.Change {
	changes := []admin.Change{}
	for _, k := range keys {
		changes = append(changes, changeOf(k))
	}
	return changes
}

// contentsChange is the change of a file whose key is the same and whose contents are not.
func contentsChange(key string) admin.Change {
	return admin.Change{Key: key, From: "the contents of before", To: "other contents"}
}

func changeOf(k conf.Difference, under ...string) admin.Change {
	return admin.Change{Key: conf.Path(append(under, k.Keys...)...), From: k.From, To: k.To}
}

// fates says what becomes of the existing sessions, by their listener, pool and backend.
type fates struct {
	leaves  map[listenerID]bool // true of a listener that leaves an address; not of one that is kept
	pools   map[string]*proposedPool
	closing map[string]bool // pools that are removed; true if that ends their sessions
}

// A fate is what becomes of a session.
type fate int

const (
	untouched fate = iota
	drained        // it runs to its end, but its listener or backend gets no new sessions
	ended
)

func newFates(p *proposal) *fates {
	f := &fates{leaves: make(map[listenerID]bool), pools: make(map[string]*proposedPool),
		closing: make(map[string]bool)}
	for _, pp := range p.pools {
		f.pools[pp.conf.Name] = pp
	}
	return f
}

// A listenerID tells listeners of the data plane apart.
type listenerID struct {
	name     string
	protocol l4.Protocol
}

// note takes down what becomes of a listener. All sessions of one that leaves an address count as drained, since it is
// not known which of them came there.
func (f *fates) note(c *l4.ListenerChange) {
	leaves := slices.ContainsFunc(c.From, func(a pool.Address) bool { return !slices.Contains(c.To, a) })
	f.leaves[listenerID{c.Name, c.Protocol}] = leaves || c.Fate == l4.Rebound && len(c.From) == len(c.To)
}

// of returns the fate of a group of sessions.
func (f *fates) of(n l4.SessionGroup) fate {
	if closes, gone := f.closing[n.Pool]; gone {
		if closes {
			return ended
		}
		return drained
	}
	at := untouched
	if leaves, known := f.leaves[listenerID{n.Listener, n.Protocol}]; !known || leaves {
		at = drained
	}
	pp := f.pools[n.Pool]
	if pp == nil || n.Backend == "" {
		return at // these sessions wait for a backend
	}
	if pp.removed[n.Backend] {
		if pp.options.CloseOnRemove {
			return ended
		}
		return drained
	}
	fields, to := pp.changed[n.Backend], pp.spec[n.Backend]
	turned := slices.Contains(fields, "mode")
	switch {
	case turned && to.Mode == pool.Maintenance && pp.options.CloseOnRemove:
		return ended
	case turned && to.Mode != pool.Ready, slices.Contains(fields, "weight") && to.Weight == 0:
		return drained
	}
	return at
}

// poolConfig returns the configuration in force of an existing pool.
func (d *Daemon) poolConfig(name string) *conf.Pool {
	cfg := d.config()
	i := slices.IndexFunc(cfg.Pools, func(p conf.Pool) bool { return p.Name == name })
	return &cfg.Pools[i]
}

// movedSamples is the number of clients that keysMoved tries: enough to distinguish 1 % from 2 %.
const movedSamples = 8192

// keysMoved returns the share of the clients with a backend that would get another one. It assumes that all backends
// are below their limits, and that the new ones are healthy.
func keysMoved(now pool.Options, pp *proposedPool) *float64 {
	var before, after []pool.Spec
	for _, b := range pp.served.pool.Backends() {
		if !b.Eligible {
			continue
		}
		s := pool.Spec{ID: b.ID, Addr: b.Addr, Weight: b.Weight, Tier: b.Tier, Zone: b.Zone, Mode: b.Mode}
		before = append(before, s)
		var stays bool
		if s.Weight, s.Mode, stays = pp.next(b); stays {
			after = append(after, s)
		}
	}
	after = append(after, pp.difference.Coming...)
	from, to := sketch(now, before), sketch(pp.options, after)
	moved, all := 0, 0
	for i := range movedSamples {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), uint16(1024+i))
		one, other := from(client), to(client)
		if one == "" {
			continue
		}
		all++
		if one != other {
			moved++
		}
	}
	var share float64
	if all > 0 {
		share = float64(moved) / float64(all)
	}
	return &share
}

// sketch returns the choice of a pool whose backends are all healthy and have no sessions; "" means none.
func sketch(o pool.Options, specs []pool.Spec) (pick func(client netip.AddrPort) string) {
	o = pool.Options{Name: o.Name, Algorithm: o.Algorithm, Initial: pool.Healthy, HashPort: o.HashPort,
		HashName: o.HashName, NamedBy: o.NamedBy, Zone: o.Zone}
	p, err := pool.New(o)
	if err == nil {
		err = p.Add(specs...)
	}
	if err != nil {
		panic("daemon: what a pool has does not make a pool: " + err.Error())
	}
	return func(client netip.AddrPort) string {
		address := client.Addr().As4()
		lease, err := p.Pick(pool.PickContext{Client: client, Name: pool.NameKey(address[:])}) // as good as a name
		if err != nil {
			return ""
		}
		defer lease.Release(pool.Neutral)
		return lease.Backend().ID()
	}
}
