package daemon

import (
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
)

// Fleet returns what this node knows of its fleet.
func (d *Daemon) Fleet() (admin.Fleet, error) {
	m := d.fleet
	if m == nil {
		return admin.Fleet{}, admin.ErrNoFleet
	}
	stats := m.fleet.Stats()
	answer := admin.Fleet{
		Name: m.conf.Name, Node: m.fleet.Node(), Endpoints: m.conf.Endpoints, Link: linkAnswer(m.fleet.Link()),
		Nodes: []admin.FleetNode{}, Records: stats.Records, Pending: stats.Pending,
	}
	nodes := m.members.all()
	usual := wanted(nodes)
	for _, n := range nodes {
		a := admin.FleetNode{
			Name: n.Name, This: n.Name == answer.Node, Host: n.Host, Version: n.Version, State: n.State, Ready: n.Ready,
			Reason: n.Reason, Since: timeOrNil(n.Since), Started: timeOrNil(n.Started), Config: n.Config,
			OtherConfig: isThere(n) && n.Config != usual, Alone: n.Alone, Sessions: n.Sessions, Flows: n.Flows,
			Rate: n.Rate,
		}
		answer.Nodes = append(answer.Nodes, a)
	}
	return answer, nil
}

// linkAnswer converts the state of the connection for the API.
func linkAnswer(l fleet.Link) admin.FleetLink {
	a := admin.FleetLink{Connected: l.Up, Endpoint: l.Endpoint, Since: timeOrNil(l.Since)}
	if l.Err != nil {
		a.Error = l.Err.Error()
	}
	return a
}

// timeOrNil returns a time, or nil for the zero time.
func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// fleetSummary returns the fleet in short; nil without one.
func (d *Daemon) fleetSummary() *admin.FleetSummary {
	m := d.fleet
	if m == nil {
		return nil
	}
	s := m.summary()
	return &s
}

// summary returns the fleet in short.
func (m *membership) summary() admin.FleetSummary {
	link := linkAnswer(m.fleet.Link())
	s := admin.FleetSummary{
		Name: m.conf.Name, Node: m.fleet.Node(), Connected: link.Connected, Error: link.Error,
		Pending: m.fleet.Stats().Pending, RateShare: m.rateShare(),
	}
	nodes := m.members.all()
	usual := wanted(nodes)
	for _, n := range nodes {
		if !isThere(n) {
			continue
		}
		s.Nodes++
		if n.Ready {
			s.Ready++
		}
		if n.Name == s.Node {
			s.OtherConfig = n.Config != usual
		}
	}
	return s
}
