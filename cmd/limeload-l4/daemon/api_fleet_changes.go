package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
)

// FleetChanges returns the run-time changes that the fleet shares, the latest first. The error is admin.ErrNoFleet.
func (d *Daemon) FleetChanges() ([]admin.FleetChange, error) {
	m := d.fleet
	if m == nil {
		return nil, admin.ErrNoFleet
	}
	pending := make(map[string]bool)
	for key, r := range m.fleet.Saved() {
		pending[key] = r.Pending
	}
	taken, local := m.changes.snapshot()
	l := &changeLook{daemon: d, now: wallNow(), listeners: listenerNames(d.config())}
	all := make([]admin.FleetChange, 0, len(taken))
	for key, c := range taken {
		a := c.answer()
		a.Pending = pending[key]
		if _, is := local[key]; is {
			a.Why = "a local change of this node holds"
		} else {
			a.Why = l.whyNotInForce(c)
		}
		a.InForce = a.Why == ""
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b admin.FleetChange) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Backend, b.Backend),
			cmp.Compare(a.What, b.What), cmp.Compare(a.Prefix, b.Prefix), cmp.Compare(a.Listener, b.Listener))
	})
	return all, nil
}

// snapshot returns the shared changes that this node knows, and the settings with local ones.
func (p *sharedChanges) snapshot() (taken map[string]*sharedChange, local map[string]changeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.taken), maps.Clone(p.local)
}

// answer converts a change for the API, without what depends on this node.
func (c *sharedChange) answer() admin.FleetChange {
	a := admin.FleetChange{
		At: c.record.At, Node: short(c.record.Node), By: short(c.record.By), What: c.what(), Value: c.value(),
		Undone: c.record.Undone,
	}
	until := c.deadline
	if c.isRule {
		a.Prefix, a.Listener, until = c.rule.prefix.String(), c.rule.listener, c.rule.until
	} else {
		a.Pool, a.Backend = c.pool, c.setting.ID
	}
	if !until.IsZero() {
		a.Until = &until
	}
	return a
}

// A changeLook looks at what is in force on this node.
type changeLook struct {
	daemon    *Daemon
	now       time.Time
	listeners []string
}

// whyNotInForce returns why a shared change is not in force here; "" if it is.
func (l *changeLook) whyNotInForce(c *sharedChange) string {
	switch {
	case c.record.Undone:
		return ""
	case c.isOver(l.now):
		return "its time has passed"
	case c.isRule && c.rule.listener != "" && !slices.Contains(l.listeners, c.rule.listener):
		return "there is no such listener here"
	case c.isRule && !l.daemon.rules.has(c.rule):
		return "there are too many access rules here"
	case c.isRule:
		return ""
	}
	s, err := l.daemon.served(c.pool)
	if err != nil {
		return "there is no such pool here"
	}
	b, known := s.pool.Backend(c.setting.ID)
	if c.setting.Field == pool.FieldThere {
		return whyNotThere(c.setting, b, known)
	}
	return whyNotSet(c.setting, b, known)
}

// whyNotThere is whyNotInForce for a backend that was added or removed. b is the backend if it is known.
func whyNotThere(f pool.FieldOverrides, b pool.BackendInfo, known bool) string {
	for _, o := range f.Overrides {
		switch {
		case o.Kind == pool.OverrideRemoved && known && b.Source == o.Source:
			return "it is there"
		case o.Kind == pool.OverrideAdded && known && b.Source != "":
			return fmt.Sprintf("here a backend of this name comes from %s", apiSource(b.Source))
		case o.Kind == pool.OverrideAdded && !known:
			return "another backend has its address here"
		}
	}
	return ""
}

// whyNotSet is whyNotInForce for a setting of a backend.
func whyNotSet(f pool.FieldOverrides, b pool.BackendInfo, known bool) string {
	if !known {
		return "there is no such backend here"
	}
	i := slices.IndexFunc(f.Overrides, func(o pool.Override) bool { return o.Source == b.Source })
	if i < 0 {
		return fmt.Sprintf("here the backend comes from %s", apiSource(b.Source))
	}
	switch o := f.Overrides[i]; {
	case o.Weight != nil && *o.Weight == b.Weight, o.MaxSessions != nil && *o.MaxSessions == b.MaxSessions,
		o.MaxRate != nil && *o.MaxRate == b.MaxRate, o.Mode != nil && *o.Mode == b.Mode:
		return ""
	}
	return "its source says something else here"
}
