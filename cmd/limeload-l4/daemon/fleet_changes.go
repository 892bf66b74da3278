package daemon

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/pool"
)

const (
	// takePause is between a change of another node and its being put in force here, so that many changes that come
	// together make one snapshot of a pool.
	takePause = 20 * time.Millisecond
	// maxChangeLines bounds how many changes of other nodes are logged at once, each on a line of its own. A node that
	// was away may have missed thousands, and a later version of the program may make many that this one does not know.
	maxChangeLines = 20
	// seenEvery is how often the state file is written at least while there is a connection, since it says when that was.
	// A node that was away for long undoes what etcd does not have any more.
	seenEvery = 24 * time.Hour
	// maxErrorText bounds the text of an error about a change, which may quote its value.
	maxErrorText = 300
)

// The settings of a backend besides pool.FieldThere, see pool.OverrideFields.
const (
	fieldWeight      = "weight"
	fieldMaxSessions = "max_sessions"
	fieldMaxRate     = "max_rate"
	fieldMode        = "mode"
)

// sharedChanges shares run-time changes with the other nodes. Each setting of a backend, and each access rule, is a
// record of the fleet. A change by this node's API is put in force here, and then given to the fleet; changes of other
// nodes are put in force when they come, and again whenever a source names backends or a reload brings pools.
//
// A change that this node has been told to keep to itself is local: it holds here until the record of its setting
// changes. Its methods may be called from any goroutine.
type sharedChanges struct {
	membership *membership // set once, then read-only

	wake chan struct{} // has room for one: there is something to take

	// turn is held while a change is made here or taken from the fleet: the pools and the fields below then fit
	// together. Whoever holds it may lock mu, and wait for the state file.
	turn sync.Mutex

	mu sync.Mutex
	// mu guards the fields below
	taken map[string]*sharedChange // what was last put in force here, or has waited for its backend since, by key
	local map[string]changeID      // of settings with a local change: the record that it overrules; "" for none
	wrong map[string]changeID      // records that cannot be understood, and were logged
	stale map[string]bool          // pools whose changes are to be put in force again
}

func newSharedChanges(m *membership) *sharedChanges {
	p := &sharedChanges{
		membership: m, wake: make(chan struct{}, 1), taken: make(map[string]*sharedChange),
		local: make(map[string]changeID), wrong: make(map[string]changeID), stale: make(map[string]bool),
	}
	m.fleet.Observe(fleet.Changes, func([]string) { p.poke() })
	return p
}

// poke makes run look at the records. It never blocks.
func (p *sharedChanges) poke() { wake(p.wake) }

// poolChanged says that backends of a pool, or the descriptions by their sources, may have changed. Nothing happens for
// nil.
func (m *membership) poolChanged(name string) {
	if m == nil {
		return
	}
	m.changes.mu.Lock()
	m.changes.stale[name] = true
	m.changes.mu.Unlock()
	m.changes.poke()
}

// run works until ctx is done.
func (p *sharedChanges) run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	seen := time.NewTicker(seenEvery)
	defer seen.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-seen.C:
			if p.membership.fleet.Link().Up {
				p.membership.daemon.saveOrLog()
			}
			continue
		case <-p.wake:
		}
		pause.Reset(takePause)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		p.follow(ctx)
	}
}

// follow puts in force what other nodes have changed, and saves it. During an upgrade it waits.
func (p *sharedChanges) follow(ctx context.Context) {
	end, err := p.membership.daemon.awaitChange(ctx)
	if err != nil {
		return
	}
	defer end()
	others := p.take(p.membership.fleet.Records(fleet.Changes))
	if len(others) == 0 {
		return
	}
	p.logTaken(others)
	p.membership.daemon.saveOrLog()
}

// take puts records in force, and returns those that are new here. turn is held.
func (p *sharedChanges) take(records map[string]fleet.Record) (changed []*sharedChange) {
	t, changed := p.collect(records)
	t.settle()
	return changed
}

// collect finds what records change here, and notes it as taken. It also returns what is new.
func (p *sharedChanges) collect(records map[string]fleet.Record) (t *taking, changed []*sharedChange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t = newTaking(p.membership.daemon, p.stale)
	p.stale = make(map[string]bool)
	changed = p.forgetLocked(records)
	for _, c := range changed {
		t.add(c)
	}
	for key, r := range records {
		c, reset, err := p.nextLocked(key, r)
		if err != nil {
			t.ignore(key, r, err)
		}
		if c == nil {
			continue
		}
		p.taken[key] = c
		changed = append(changed, c)
		if _, local := p.local[key]; !local && (!r.Undone || reset) {
			t.add(c)
		}
	}
	for key, c := range p.taken {
		if _, local := p.local[key]; !local && !c.record.Undone && t.pools[c.pool] {
			t.again(c)
		}
	}
	t.logIgnored()
	return t, changed
}

// forgetLocked forgets the changes that the fleet has forgotten, and returns the ends of those that still hold here.
// They were undone while this node was away, for so long that the fleet does not remember that either. mu is held.
func (p *sharedChanges) forgetLocked(records map[string]fleet.Record) (ends []*sharedChange) {
	maps.DeleteFunc(p.wrong, func(key string, _ changeID) bool { _, is := records[key]; return !is })
	now := wallNow()
	for key, c := range p.taken {
		if _, is := records[key]; is {
			continue
		}
		delete(p.taken, key)
		if _, local := p.local[key]; !local && !c.record.Undone && !c.isOver(now) {
			ends = append(ends, c.forgotten(now))
		}
	}
	return ends
}

// nextLocked returns the change in a record if it is new here, and whether the setting must go back to what its source
// says if the record was undone; nil if it is not new, or cannot be understood. The error says why, once. mu is held.
func (p *sharedChanges) nextLocked(key string, r fleet.Record) (c *sharedChange, reset bool, err error) {
	id, before := idOf(r), p.taken[key]
	if before != nil && before.id == id || p.wrong[key] == id {
		return nil, false, nil
	}
	if c, err = parseChange(key, r); err != nil {
		p.wrong[key] = id
		return nil, false, err
	}
	overruled, local := p.local[key]
	if local && overruled != id {
		delete(p.local, key)
	}
	return c, before != nil && !before.record.Undone || local && overruled != id, nil
}

// A taking is a set of shared changes that are put in force together. One goroutine uses it.
type taking struct {
	daemon   *Daemon
	pools    map[string]bool // all of whose settings are settled, since one may depend on another
	settings map[string][]*sharedChange
	has      map[*sharedChange]bool // what is in settings
	rules    []*sharedChange
	drains   []*sharedChange // new changes of modes
	ignored  int             // records that cannot be understood
}

func newTaking(d *Daemon, pools map[string]bool) *taking {
	return &taking{daemon: d, pools: pools, settings: make(map[string][]*sharedChange), has: make(map[*sharedChange]bool)}
}

// add adds a change that is new here.
func (t *taking) add(c *sharedChange) {
	switch {
	case c.isRule:
		t.rules = append(t.rules, c)
		return
	case c.setting.Field == pool.FieldThere:
		t.pools[c.pool] = true
	case c.setting.Field == fieldMode:
		t.drains = append(t.drains, c)
	}
	t.again(c)
}

// ignore notes and logs that a record cannot be understood.
func (t *taking) ignore(key string, r fleet.Record, err error) {
	if t.ignored++; t.ignored > maxChangeLines {
		return
	}
	text := err.Error()
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "..."
	}
	t.daemon.log.Warn().Str("key", short(key)).Str("node", short(r.Node)).Str("err", text).
		Str("event", "fleet_change_ignored").Msg("a shared run-time change cannot be understood, and is ignored")
}

// logIgnored logs how many more records cannot be understood.
func (t *taking) logIgnored() {
	if more := t.ignored - maxChangeLines; more > 0 {
		t.daemon.log.Warn().Int("changes", more).Str("event", "fleet_change_ignored").
			Msg("more shared run-time changes cannot be understood, and are ignored")
	}
}

// again adds a change of a setting that was put in force before, unless it was added already.
func (t *taking) again(c *sharedChange) {
	if !c.isRule && !t.has[c] {
		t.has[c] = true
		t.settings[c.pool] = append(t.settings[c.pool], c)
	}
}

// settle puts the changes in force. Those of pools that this node does not have wait for them.
func (t *taking) settle() {
	for name, changes := range t.settings {
		if s, err := t.daemon.served(name); err == nil {
			t.daemon.setOverrides(s.pool, changes)
		}
	}
	for _, c := range t.drains {
		t.daemon.followDrain(c)
	}
	if left := t.daemon.rules.follow(t.rules, wallNow()); left > 0 {
		t.daemon.log.Warn().Int("rules", left).Str("event", "fleet_change_ignored").
			Msg("access rules of other nodes are ignored: this node has as many as there may be")
	}
}

// setOverrides makes a pool's run-time changes those of shared changes.
func (d *Daemon) setOverrides(p *pool.Pool, changes []*sharedChange) {
	settings := make([]pool.FieldOverrides, len(changes))
	for i, c := range changes {
		settings[i] = c.setting
	}
	if err := p.SetOverrides(settings); err != nil { // a bug: parseChange has checked each
		d.log.Error().AnErr("err", err).Str("event", "fleet_change_ignored").
			Msg("shared run-time changes cannot be put in force")
	}
}

// followDrain begins the drain with a deadline that another node has begun, or ends the one that there is.
func (d *Daemon) followDrain(c *sharedChange) {
	s, err := d.served(c.pool)
	if err != nil {
		return // without the pool there are no sessions
	}
	b, known := s.pool.Backend(c.setting.ID)
	if !known || b.Mode != pool.Drain || !c.drains() {
		d.drains.cancel(c.pool, c.setting.ID)
		return
	}
	d.continueDrains([]offeredDrain{{Pool: c.pool, Backend: b.ID, Started: c.record.At, Deadline: c.deadline,
		Sessions: b.Leases + b.Former}})
}

// preparePool puts the shared changes of a pool in force that a reload is about to bring. Nothing happens for nil.
func (m *membership) preparePool(to *pool.Pool) {
	if m == nil {
		return
	}
	p := m.changes
	p.turn.Lock()
	defer p.turn.Unlock()
	p.mu.Lock()
	var changes []*sharedChange
	for key, c := range p.taken {
		if _, local := p.local[key]; !local && !c.record.Undone && !c.isRule && c.pool == to.Name() {
			changes = append(changes, c)
		}
	}
	p.mu.Unlock()
	m.daemon.setOverrides(to, changes)
}

// logTaken logs what other nodes have changed.
func (p *sharedChanges) logTaken(changes []*sharedChange) {
	changes = slices.DeleteFunc(changes, func(c *sharedChange) bool { return c.record.Node == p.membership.fleet.Node() })
	slices.SortFunc(changes, func(a, b *sharedChange) int { return a.record.At.Compare(b.record.At) })
	log := p.membership.daemon.log
	for i, c := range changes {
		if i == maxChangeLines {
			log.Info().Int("changes", len(changes)-i).Str("event", "fleet_changes").
				Msg("more run-time changes of other nodes; `limeload-l4 fleet changes` lists all")
			return
		}
		if c.isForgotten() {
			log.Info().Str("change", c.about()).Str("event", "fleet_change_forgotten").
				Msg("a shared run-time change was undone while this node was away")
			continue
		}
		value := c.value()
		if c.record.Undone {
			value = "undone"
		}
		log.Info().Str("change", c.about()).Str("value", value).Str("node", short(c.record.Node)).
			Str("by", short(c.record.By)).Time("at", c.record.At).Str("event", "fleet_change").
			Msg("run-time change of another node")
	}
}
