package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A fleetWorld is a fleet of nodes that all run the same configuration. Only Nodes and Etcd must be set, and what the
// world needs.
type fleetWorld struct {
	world                  // of each node; each has a listening address and a state file of its own
	Etcd   []*harness.Etcd // the members
	Nodes  int
	Fleet  []string // further lines of the table fleet
	Suffix string   // further tables
}

// A fleetNode is one node of a fleet. It ends with the test.
type fleetNode struct {
	*harness.Balancer
	Name  string // n1, n2 and so on
	State string // the path of its state file

	config string
	ended  bool // by the test
}

// start starts an etcd of one member unless there is one, and the nodes, and waits until all have joined the fleet.
func (w fleetWorld) start(t testing.TB) []*fleetNode {
	t.Helper()
	if len(w.Etcd) == 0 {
		w.Etcd = []*harness.Etcd{harness.StartEtcd(t, "--unsafe-no-fsync")}
	}
	nodes := make([]*fleetNode, w.Nodes)
	for i := range nodes {
		nodes[i] = w.startNode(t, fmt.Sprintf("n%d", i+1))
	}
	for _, n := range nodes {
		n.awaitJoined(t)
	}
	return nodes
}

// startNode starts a node of this name, which may join later.
func (w fleetWorld) startNode(t testing.TB, name string) *fleetNode {
	t.Helper()
	n := &fleetNode{Name: name, State: filepath.Join(t.TempDir(), "state.json")}
	w.Listen = harness.FreeAddress(t)
	n.config = w.configOf(t, n)
	n.run(t)
	return n
}

// configOf returns the configuration of a node that listens at w.Listen.
func (w fleetWorld) configOf(t testing.TB, n *fleetNode) string {
	t.Helper()
	w.Global = append([]string{fmt.Sprintf("state_file = %q", n.State)}, w.Global...)
	endpoints := make([]string, len(w.Etcd))
	for i, e := range w.Etcd {
		endpoints[i] = fmt.Sprintf("%q", e.Endpoint)
	}
	fleet := append([]string{`name = "edge"`, fmt.Sprintf("node = %q", n.Name),
		"endpoints = [" + strings.Join(endpoints, ", ") + "]"}, w.Fleet...)
	return w.world.config(t) + "[fleet]\n" + strings.Join(fleet, "\n") + "\n\n" + w.Suffix
}

// run starts the node's process.
func (n *fleetNode) run(t testing.TB) {
	t.Helper()
	// Killed: the sockets of its end are not those of its start, since it connects to etcd again when it has to.
	n.Balancer = harness.StartBalancerWith(t, harness.BalancerOptions{Config: n.config, Killed: true})
	n.ended = false
	t.Cleanup(func() {
		if !n.ended {
			n.stop(t)
		}
	})
}

// awaitJoined waits until the node has a connection to etcd.
func (n *fleetNode) awaitJoined(t testing.TB) {
	t.Helper()
	n.WaitLine(t, n.Name+" joins the fleet", func(l harness.Line) bool { return l.Event == "fleet_connected" })
}

// stop ends the node's process, which may be one that took over, and checks that it ends well.
func (n *fleetNode) stop(t testing.TB) {
	t.Helper()
	n.ended = true
	pid := n.pid(t)
	check(t, syscall.Kill(pid, syscall.SIGINT))
	if pid != n.PID() {
		awaitGone(t, pid)
	}
	if code := n.Wait(t); code != 0 {
		t.Errorf("%s ended with exit code %d", n.Name, code)
	}
}

// pid returns the process that answers at the node's admin socket.
func (n *fleetNode) pid(t testing.TB) int {
	t.Helper()
	var status struct{ PID int }
	n.ask(t, "GET", "/v1/status", nil, &status)
	return status.PID
}

// ask is Ask, also at the end of a test.
func (n *fleetNode) ask(t testing.TB, method, path string, body []byte, into any) {
	t.Helper()
	status, answer, err := n.TryAPI(context.WithoutCancel(t.Context()), method, path, body)
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s: %s %s: %d %s %v", n.Name, method, path, status, answer, err)
	}
	check(t, json.Unmarshal(answer, into))
}

// backend returns a backend of the pool all, as the node's API has it.
func (n *fleetNode) backend(t testing.TB, name string) (b fleetBackend, err error) {
	t.Helper()
	status, answer, err := n.TryAPI(context.WithoutCancel(t.Context()), "GET", "/v1/pools/all/backends/"+name, nil)
	switch {
	case err != nil:
		return b, err
	case status == http.StatusNotFound:
		return b, nil
	case status != http.StatusOK:
		return b, fmt.Errorf("%d %s", status, answer)
	}
	return b, json.Unmarshal(answer, &b)
}

// A fleetBackend has the fields of the API's backend that can be changed by hand. Its zero value is none.
type fleetBackend struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	Weight      int    `json:"weight"`
	MaxSessions int    `json:"max_sessions"`
	MaxRate     string `json:"max_rate"`
	Mode        string `json:"mode"`
	Sessions    int64  `json:"sessions"`
}

// awaitBackend waits until a backend is as it should be on a node.
func (n *fleetNode) awaitBackend(t testing.TB, name string, is func(b fleetBackend) bool, what string) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("backend %s on %s is %s", name, n.Name, what), func() error {
		b, err := n.backend(t, name)
		if err == nil && !is(b) {
			err = fmt.Errorf("it is %+v", b)
		}
		return err
	})
}

// do runs a command of the program against a node, which must succeed, and returns what it prints.
func (n *fleetNode) do(t testing.TB, args ...string) string {
	t.Helper()
	stdout, stderr, code := n.Command(t, args...)
	if code != 0 {
		t.Fatalf("%s: %v ends with %d: %s", n.Name, args, code, stderr)
	}
	return stdout
}
