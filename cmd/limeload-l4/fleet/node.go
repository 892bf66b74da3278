package fleet

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// A Node is what a node says of itself. It is a plain value.
type Node struct {
	Name     string    `json:"-"`        // of its key
	Instance string    `json:"instance"` // of its process
	Host     string    `json:"host"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Config   string    `json:"config"`           // the sum of its configuration
	State    string    `json:"state"`            // as in the API: starting, serving, draining
	Ready    bool      `json:"ready"`            // as /ready says
	Reason   string    `json:"reason,omitempty"` // why it is not ready; "" if it is
	Since    time.Time `json:"since"`            // of State and Ready
	Alone    string    `json:"alone,omitempty"`  // why it does not judge backends now; "" if it does
	Sessions int       `json:"sessions"`
	Flows    int       `json:"flows"`
	Rate     float64   `json:"rate"` // new sessions and flows a second
}

// maxRate bounds the rate that a node may have: no machine accepts more sessions a second.
const maxRate = 1e9

// Nodes returns the nodes as etcd had them last, by name. This node is among them once etcd has it. The texts can be
// printed, whatever somebody has written into etcd.
func (f *Fleet) Nodes() []Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.nodesLocked())
}

// nodesLocked returns the nodes by name; the caller must not change them. Fleet.mu is held.
func (f *Fleet) nodesLocked() []Node {
	if f.nodes != nil {
		return f.nodes
	}
	all := make([]Node, 0)
	for key, h := range f.heard.under(Nodes) {
		if n, is := parseNode(strings.TrimPrefix(key, Nodes), h.value); is {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	f.nodes = all
	return all
}

// parseNode returns the node of a key, without its beginning, and a value from etcd.
func parseNode(key string, value []byte) (n Node, is bool) {
	parts, is := Parts(key)
	if !is || len(parts) != 1 || !isPlain(parts[0]) || json.Unmarshal(value, &n) != nil {
		return Node{}, false
	}
	n.Name = parts[0]
	for _, text := range []*string{&n.Instance, &n.Host, &n.Version, &n.Config, &n.State, &n.Reason, &n.Alone} {
		*text = plain(*text)
	}
	n.Sessions, n.Flows, n.Rate = max(0, n.Sessions), max(0, n.Flows), max(0, min(n.Rate, maxRate))
	return n, true
}
