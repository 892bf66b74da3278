package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/pool"
)

// shareWait is how long an answer of the API waits for etcd. A change takes some milliseconds, and is in force here
// before.
const shareWait = 2 * time.Second

// A giving is a change by the API on its way to the other nodes. The zero value is one without a fleet.
type giving struct {
	changes *sharedChanges // nil without a fleet
	from    admin.Origin
	given   map[string]changeID // by key
	refused error               // why the fleet takes none, nil unless it is so
}

// give begins to give changes to the fleet. It does nothing without one.
func (d *Daemon) give(from admin.Origin) *giving {
	g := &giving{from: from}
	if d.fleet != nil {
		g.changes, g.given = d.fleet.changes, make(map[string]changeID)
	}
	return g
}

// settings gives settings of a backend to the fleet, as they are in the pool now, or notes that they are local.
// deadline is of a drain. sharedChanges.turn is held.
func (g *giving) settings(p *pool.Pool, id string, deadline time.Time, fields ...string) {
	if g.changes == nil {
		return
	}
	for _, field := range fields {
		f := p.OverridesOf(id, field)
		v := sharedValue{}
		for _, o := range f.Overrides {
			v.Overrides = append(v.Overrides, toSaved(o))
		}
		if field == fieldMode {
			v.Deadline = deadline
		}
		g.setting(settingKey(p.Name(), id, field), fleet.Record{By: g.from.By, Undone: len(f.Overrides) == 0}, v)
	}
}

// backend gives to the fleet that a backend was added or removed. Its other settings end with that.
func (g *giving) backend(p *pool.Pool, id string) {
	if g.changes == nil {
		return
	}
	g.settings(p, id, time.Time{}, pool.FieldThere)
	for _, field := range pool.OverrideFields()[1:] {
		if !g.changes.isUndone(settingKey(p.Name(), id, field)) {
			g.settings(p, id, time.Time{}, field)
		}
	}
}

// rule gives an access rule to the fleet.
func (g *giving) rule(r accessRule) {
	if g.changes == nil {
		return
	}
	saved := r.save()
	g.setting(accessKey(r.ruleKey), fleet.Record{By: g.from.By, Until: r.until}, sharedValue{Rule: &saved})
}

// noRule gives to the fleet that an access rule was removed.
func (g *giving) noRule(k ruleKey) {
	if g.changes == nil {
		return
	}
	g.setting(accessKey(k), fleet.Record{By: g.from.By, Undone: true}, sharedValue{})
}

// setting makes a record the one of a setting, unless the change is local.
func (g *giving) setting(key string, r fleet.Record, v sharedValue) {
	p := g.changes
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.taken[key]
	if !r.Undone {
		value, err := json.Marshal(v)
		if err != nil {
			panic("daemon: a run-time change is texts and numbers: " + err.Error())
		}
		r.Value = value
	}
	if !g.from.Local {
		if err := p.membership.fleet.CanChange(key, r); err != nil {
			g.refused = err
		}
	}
	if g.from.Local || g.refused != nil {
		p.local[key] = ""
		if c != nil {
			p.local[key] = c.id
		}
		return
	}
	delete(p.local, key)
	if r.Undone && (c == nil || c.record.Undone) {
		return // the fleet has no other value
	}
	r = p.membership.fleet.Change(key, r)
	c, err := parseChange(key, r)
	if err != nil { // a bug: the other nodes cannot understand it either
		p.membership.daemon.log.Error().Str("key", short(key)).AnErr("err", err).
			Str("event", "fleet_change_ignored").Msg("a run-time change of this node cannot be shared")
		p.wrong[key] = idOf(r)
		return
	}
	p.taken[key], g.given[key] = c, c.id
}

// isUndone reports whether the fleet has no value for a setting.
func (p *sharedChanges) isUndone(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.taken[key]
	return c == nil || c.record.Undone
}

// await waits until etcd has what was given, for at most shareWait, and returns whether it has; nil without a fleet.
// sharedChanges.turn must not be held.
func (g *giving) await() *admin.Sharing {
	switch {
	case g.changes == nil:
		return nil
	case g.from.Local:
		return &admin.Sharing{Why: "as asked"}
	case g.refused != nil:
		return &admin.Sharing{Why: "it cannot be shared: " + g.refused.Error()}
	}
	f := g.changes.membership.fleet
	ctx, cancel := context.WithTimeout(context.Background(), shareWait)
	defer cancel()
	if l := f.Link(); !l.Up && l.Err != nil {
		cancel() // it is known to take longer
	}
	for key := range g.given {
		if f.Settle(ctx, key) != nil {
			return &admin.Sharing{Why: whyNotShared(f.Link())}
		}
	}
	for key, id := range g.given {
		if r, is := f.Records(key)[key]; is && idOf(r) != id {
			return &admin.Sharing{Why: fmt.Sprintf("node %s has changed the same at the same time, and that holds",
				short(r.Node))}
		}
	}
	return &admin.Sharing{Shared: true}
}

// answer completes the answer of the API about a backend that was changed, when etcd has the change.
func (g *giving) answer(b admin.Backend, err error) (admin.Backend, error) {
	if err == nil {
		b.Sharing = g.await()
	}
	return b, err
}

// whyNotShared says why etcd does not have a change.
func whyNotShared(l fleet.Link) string {
	const then = "; it is shared as soon as that is possible"
	if l.Up && l.Err != nil {
		return "etcd refuses it: " + l.Err.Error() + then
	}
	if l.Up {
		return fmt.Sprintf("etcd at %s has not answered within %s", l.Endpoint, shareWait) + then
	}
	err := l.Err
	if err == nil {
		err = errors.New("this node has not joined the fleet yet")
	}
	return "no connection to etcd: " + err.Error() + then
}

// shared reports whether the value of a setting is one that the fleet shares, and not the node's own or its source's.
// It reports false for nil.
func (m *membership) shared(key string) bool {
	if m == nil {
		return false
	}
	p := m.changes
	p.mu.Lock()
	defer p.mu.Unlock()
	_, local := p.local[key]
	c := p.taken[key]
	return !local && c != nil && !c.record.Undone
}

// marked marks the differences of a backend that the fleet shares. Nothing happens for nil.
func (m *membership) marked(differences []admin.Difference) []admin.Difference {
	for i, d := range differences {
		field := d.What
		if field == string(pool.OverrideAdded) || field == string(pool.OverrideRemoved) {
			field = pool.FieldThere
		}
		differences[i].Fleet = m.shared(settingKey(d.Pool, d.Backend, field))
	}
	return differences
}
