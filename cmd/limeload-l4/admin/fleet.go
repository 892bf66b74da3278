package admin

import (
	"context"
	"net/http"
	"time"
)

// Fleet is what a node knows of its fleet.
type Fleet struct {
	Name      string      `json:"name"`
	Node      string      `json:"node"`      // the name of this node
	Endpoints []string    `json:"endpoints"` // of etcd
	Link      FleetLink   `json:"link"`
	Nodes     []FleetNode `json:"nodes"`   // sorted by name; those that have gone lately too
	Records   int         `json:"records"` // run-time changes that are shared, and the keys of TLS tickets
	Pending   int         `json:"pending"` // those of them that etcd does not have yet
}

// FleetLink is the connection of a node to etcd.
type FleetLink struct {
	Connected bool       `json:"connected"`
	Endpoint  string     `json:"endpoint"`        // that answers, or was tried last; "" before the first attempt
	Since     *time.Time `json:"since,omitempty"` // of Connected; nil before the first attempt
	Error     string     `json:"error"`           // why there is no connection, or why etcd refuses what the node writes; "" if neither
}

// FleetNode is one node of a fleet, as it describes itself.
type FleetNode struct {
	Name        string     `json:"name"`
	This        bool       `json:"this"` // whether it is the one that answers
	Host        string     `json:"host"`
	Version     string     `json:"version"`
	State       string     `json:"state"` // starting, serving, handing_over, draining, left or gone
	Ready       bool       `json:"ready"` // as /ready says
	Reason      string     `json:"reason"`
	Since       *time.Time `json:"since,omitempty"` // of State and Ready
	Started     *time.Time `json:"started,omitempty"`
	Config      string     `json:"config"`          // the sum of its configuration
	OtherConfig bool       `json:"other_config"`    // whether most nodes run another one
	Alone       string     `json:"alone"`           // why it leaves the judgement of backends to others; "" if it does not
	Sessions    int        `json:"sessions"`        // now
	Flows       int        `json:"flows"`           // now
	Rate        float64    `json:"rate_per_second"` // new sessions and flows, of about the last ten seconds
}

// FleetComparison is the comparison of what the nodes of a fleet choose.
type FleetComparison struct {
	Same  bool        `json:"same"`  // whether there is no difference
	Nodes []string    `json:"nodes"` // that were compared
	Mute  []string    `json:"mute"`  // nodes that say nothing about their pools yet, and so were not
	Pools []FleetPool `json:"pools"` // of all nodes, sorted by name
	// whether this node is connected: otherwise it compares what it knew last
	Connected bool `json:"connected"`
}

// FleetPool is the comparison of one pool. Nodes whose pools prefer different zones are compared by zone.
type FleetPool struct {
	Name        string            `json:"name"`
	Algorithm   string            `json:"algorithm"` // of most nodes
	Eligible    int               `json:"eligible"`  // backends, on most nodes
	Nodes       int               `json:"nodes"`     // that have the pool
	Same        bool              `json:"same"`
	Differences []FleetDifference `json:"differences"`
}

// FleetDifference is a node that does not choose as most others do.
type FleetDifference struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

func (s *Server) fleet(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	return result(s.balancer.Fleet())
}

func (s *Server) compareFleet(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	return result(s.balancer.CompareFleet())
}

// Fleet returns what the node knows of its fleet.
func (c *Client) Fleet(ctx context.Context) (Fleet, error) {
	return answerOf[Fleet](ctx, c, call{method: http.MethodGet, path: fleetPath})
}

// CompareFleet compares what the nodes of the fleet choose.
func (c *Client) CompareFleet(ctx context.Context) (FleetComparison, error) {
	return answerOf[FleetComparison](ctx, c, call{method: http.MethodGet, path: fleetPath + "/verify"})
}

const fleetPath = "/v1/fleet"
