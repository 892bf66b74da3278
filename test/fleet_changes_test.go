package test

import (
	"strings"
	"testing"
)

// TestFleetJoins starts three nodes: each has the fleet's keys in etcd, and none of them has a connection for nothing.
func TestFleetJoins(t *testing.T) {
	t.Parallel()
	nodes := fleetWorld{world: world{Backends: named(t, "b1", "b2")}, Nodes: 3}.start(t)
	for _, n := range nodes {
		if !strings.Contains(n.do(t, "backends"), "b1") {
			t.Errorf("%s has no backends", n.Name)
		}
		n.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Mode == "ready" }, "ready")
	}
}
