package daemon

import (
	"maps"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/pool"
)

// A savedFleet is the part of a state file with the changes that the nodes of a fleet share, so that a restart without
// etcd still knows them.
type savedFleet struct {
	Name    string                 `json:"name"`
	Prefix  string                 `json:"prefix"`
	Records map[string]fleet.Saved `json:"records"`
	// Local has the settings with a change of this node alone, by the key of the record that it overrules.
	Local map[string]changeID `json:"local,omitempty"`
}

// saved returns the shared changes for the state file; nil without a fleet.
func (m *membership) saved() *savedFleet {
	if m == nil {
		return nil
	}
	p := m.changes
	p.mu.Lock()
	defer p.mu.Unlock()
	records := m.fleet.Saved()
	delete(records, fleet.Tickets) // secrets, which are on no disk of a node
	return &savedFleet{Name: m.conf.Name, Prefix: m.conf.Prefix, Records: records, Local: maps.Clone(p.local)}
}

// ownPart returns the part of a run-time change that the fleet does not share; false if there is none.
func (m *membership) ownPart(name string, o pool.Override) (pool.Override, bool) {
	if m == nil {
		return o, true
	}
	has := func(field string) bool { return m.shared(settingKey(name, o.Base.ID, field)) }
	switch o.Kind {
	case pool.OverrideRemoved:
		return o, !has(pool.FieldThere)
	case pool.OverrideAdded:
		return o, !has(pool.FieldThere) || m.hasLocal(name, o.Base.ID)
	}
	return o.Without(has)
}

// hasLocal reports whether a setting of a backend has a local change.
func (m *membership) hasLocal(name, backend string) bool {
	p := m.changes
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, field := range pool.OverrideFields() {
		if _, is := p.local[settingKey(name, backend, field)]; is {
			return true
		}
	}
	return false
}

// restoreFleet takes up the shared changes of a state, after its other changes. Those of another fleet, or of a daemon
// that is in none any more, become changes of this node alone.
func (d *Daemon) restoreFleet(s *savedFleet) {
	if s == nil {
		return
	}
	if m := d.fleet; m != nil && m.conf.Name == s.Name && m.conf.Prefix == s.Prefix {
		m.changes.restore(s)
		return
	}
	t := newTaking(d, make(map[string]bool))
	for key, r := range s.Records {
		if _, local := s.Local[key]; local || r.Undone {
			continue
		}
		if c, err := parseChange(key, r.Record); err == nil { // else it was not in force before either
			t.add(c)
		}
	}
	t.drains = nil
	t.settle()
	d.log.Info().Str("fleet", s.Name).Int("changes", len(t.has)+len(t.rules)).Str("event", "fleet_changes_kept").
		Msg("this node has left the fleet: its shared run-time changes stay, as changes of this node")
}

// restore takes up the shared changes of an earlier process of this node, before the pools serve.
func (p *sharedChanges) restore(s *savedFleet) {
	p.mu.Lock()
	maps.Copy(p.local, s.Local)
	p.mu.Unlock()
	p.membership.fleet.Restore(s.Records)
	t, changed := p.collect(p.membership.fleet.Records(fleet.Changes))
	t.drains = nil // there are no sessions yet; an upgrade hands its drains over
	t.settle()
	if len(changed) > 0 {
		p.membership.daemon.log.Info().Int("changes", len(changed)).Str("event", "fleet_changes_restored").
			Msg("shared run-time changes restored")
	}
}
