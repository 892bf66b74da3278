package test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// theFleetHasIt is what a command says of a change that is shared.
const theFleetHasIt = "; the fleet has it"

// onAll waits until a backend is as it should be on every node.
func onAll(t testing.TB, nodes []*fleetNode, name, what string, is func(b fleetBackend) bool) {
	t.Helper()
	for _, n := range nodes {
		n.awaitBackend(t, name, is, what)
	}
}

// noBackend reports whether the node has no such backend.
func noBackend(b fleetBackend) bool { return b == (fleetBackend{}) }

// share runs a command on a node, which must say that the fleet has the change.
func (n *fleetNode) share(t testing.TB, args ...string) {
	t.Helper()
	if said := n.do(t, args...); !strings.HasSuffix(said, theFleetHasIt) {
		t.Errorf("%s: %v says %q", n.Name, args, said)
	}
}

// A sharedChange has the fields of the API's shared change that the tests use.
type sharedChange struct {
	Node, By, Backend, Prefix, What, Value, Why string
	Undone, Pending                             bool
	InForce                                     bool `json:"in_force"`
}

// changes returns the shared changes, as a node's API has them.
func (n *fleetNode) changes(t testing.TB) []sharedChange {
	t.Helper()
	var list struct{ Changes []sharedChange }
	n.Ask(t, "GET", "/v1/fleet/changes", nil, &list)
	return list.Changes
}

// rules returns the access rules of a node in a few words each.
func (n *fleetNode) rules(t testing.TB) string {
	t.Helper()
	var list struct {
		Rules []struct {
			Prefix, Action, Listener string
			Fleet                    bool
		}
	}
	n.Ask(t, "GET", "/v1/access", nil, &list)
	var words []string
	for _, r := range list.Rules {
		words = append(words, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Action, r.Prefix, r.Listener)))
	}
	return strings.Join(words, ", ")
}

// awaitRules waits until a node has these access rules.
func (n *fleetNode) awaitRules(t testing.TB, want string) {
	t.Helper()
	harness.Eventually(t, "access rules on "+n.Name, func() error {
		if got := n.rules(t); got != want {
			return fmt.Errorf("there are %q, want %q", got, want)
		}
		return nil
	})
}

// TestFleetSharesChanges makes every kind of run-time change on one node of three: it holds on all.
func TestFleetSharesChanges(t *testing.T) {
	t.Parallel()
	addresses := named(t, "b1", "b2", "b3", "x")
	w := fleetWorld{world: world{Backends: addresses[:3], Pool: []string{`algorithm = "round_robin"`}}, Nodes: 3}
	nodes := w.start(t)
	one, two, three := nodes[0], nodes[1], nodes[2]

	one.share(t, "backends", "set", "all", "b1", "--weight", "7", "--max-sessions", "50", "--max-rate", "500/s")
	onAll(t, nodes, "b1", "as it was set", func(b fleetBackend) bool {
		return b.Weight == 7 && b.MaxSessions == 50 && b.MaxRate == "500/s" && b.Mode == "ready"
	})
	two.share(t, "backends", "drain", "all", "b2")
	onAll(t, nodes, "b2", "drained", func(b fleetBackend) bool { return b.Mode == "drain" })
	three.share(t, "backends", "set", "all", "b2", "--mode", "ready")
	onAll(t, nodes, "b2", "ready", func(b fleetBackend) bool { return b.Mode == "ready" })

	one.share(t, "backends", "add", "all", addresses[3], "--name", "x", "--weight", "2")
	onAll(t, nodes, "x", "there", func(b fleetBackend) bool { return b.Address == addresses[3] && b.Weight == 2 })
	two.share(t, "backends", "set", "all", "x", "--weight", "3")
	onAll(t, nodes, "x", "of weight 3", func(b fleetBackend) bool { return b.Weight == 3 })
	one.share(t, "backends", "remove", "all", "b3")
	onAll(t, nodes, "b3", "gone", noBackend)
	three.share(t, "backends", "set", "all", "b2", "--weight", "0")
	one.share(t, "backends", "set", "all", "b1", "--weight", "0")
	for _, n := range nodes {
		harness.Eventually(t, "clients of "+n.Name+" are sent to x", func() error {
			if got := readAll(t, n.Dial(t, "main")); got != "x" {
				return fmt.Errorf("one was sent to %q", got)
			}
			return nil
		})
		status := strings.Join(strings.Fields(n.do(t, "status", "--wide")), " ")
		for _, want := range []string{"all b1 weight 1 0 the fleet", "all x added " + addresses[3] + " the fleet",
			"all b3 removed " + addresses[2] + " the fleet"} {
			if !strings.Contains(strings.ReplaceAll(status, " - ", " "), want) {
				t.Errorf("%s: status does not say %q:\n%s", n.Name, want, status)
			}
		}
	}
	two.share(t, "backends", "remove", "all", "x")
	onAll(t, nodes, "x", "gone", noBackend)

	one.share(t, "access", "deny", "192.0.2.0/24", "--for", "1h", "--comment", "a scan")
	two.share(t, "access", "allow", "192.0.2.7", "--listener", "main")
	for _, n := range nodes {
		n.awaitRules(t, "deny 192.0.2.0/24, allow 192.0.2.7/32 main")
	}
	three.share(t, "access", "remove", "192.0.2.0/24")
	for _, n := range nodes {
		n.awaitRules(t, "allow 192.0.2.7/32 main")
	}
	for _, n := range nodes {
		harness.Eventually(t, n.Name+" lists the changes", func() error {
			var words []string
			for _, c := range n.changes(t) {
				words = append(words, fmt.Sprintf("%s %s%s %s %s %v", c.Node, c.Backend, c.Prefix, c.What, c.Value, c.InForce))
			}
			got := strings.Join(words, "\n")
			for _, want := range []string{"n1 b1 weight 0 true", "n1 b1 max_rate 500/s true", "n3 192.0.2.0/24 access  true",
				"n2 192.0.2.7/32 access allow true", "n1 b3 there removed true", "n2 x there  true", "n3 b2 mode  true"} {
				if !strings.Contains(got, want) {
					return fmt.Errorf("%q is missing in\n%s", want, got)
				}
			}
			return nil
		})
	}
	line := three.WaitLine(t, "who has drained b2", func(l harness.Line) bool {
		return l.Event == "fleet_change" && strings.Contains(l.Text, `mode of backend \"b2\"`)
	})
	if !strings.Contains(line.Text, `"node":"n2"`) || !strings.Contains(line.Text, `"value":"drain"`) {
		t.Errorf("the log says %s", line.Text)
	}
}

// TestFleetLocalChanges keeps changes to one node, until a shared change of the same setting.
func TestFleetLocalChanges(t *testing.T) {
	t.Parallel()
	nodes := fleetWorld{world: world{Backends: named(t, "b1", "b2")}, Nodes: 2}.start(t)
	one, two := nodes[0], nodes[1]
	const alone = "; on this node only: as asked"
	two.share(t, "backends", "set", "all", "b1", "--weight", "5")
	onAll(t, nodes, "b1", "of weight 5", func(b fleetBackend) bool { return b.Weight == 5 })
	for _, args := range [][]string{
		{"backends", "set", "all", "b1", "--weight", "9", "--local"}, {"backends", "drain", "all", "b2", "--local"},
		{"access", "deny", "192.0.2.0/24", "--local"},
	} {
		if said := one.do(t, args...); !strings.HasSuffix(said, alone) {
			t.Errorf("%v says %q", args, said)
		}
	}
	two.share(t, "backends", "set", "all", "b2", "--weight", "4") // after the local changes, and of another setting
	check9 := func(what string) {
		t.Helper()
		one.awaitBackend(t, "b2", func(b fleetBackend) bool { return b.Weight == 4 && b.Mode == "drain" }, what)
		one.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Weight == 9 }, what)
		one.awaitRules(t, "deny 192.0.2.0/24")
		two.awaitBackend(t, "b2", func(b fleetBackend) bool { return b.Weight == 4 && b.Mode == "ready" }, what)
		two.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Weight == 5 }, what)
		two.awaitRules(t, "")
	}
	check9("as it was")
	one.stop(t)
	one.run(t)
	one.awaitJoined(t)
	check9("as it was before the restart")
	if !strings.Contains(fmt.Sprint(one.changes(t)), "a local change of this node holds") {
		t.Errorf("the changes are %+v", one.changes(t))
	}
	two.share(t, "backends", "set", "all", "b1", "--weight", "6")
	two.share(t, "backends", "set", "all", "b2", "--mode", "maintenance")
	two.share(t, "access", "allow", "192.0.2.0/24")
	onAll(t, nodes, "b1", "of weight 6", func(b fleetBackend) bool { return b.Weight == 6 })
	onAll(t, nodes, "b2", "in maintenance", func(b fleetBackend) bool { return b.Mode == "maintenance" })
	one.awaitRules(t, "allow 192.0.2.0/24")
}

// TestFleetChangesAtOnce changes the same settings on all nodes at once: all nodes end equal, and other settings of the
// same backend are not touched.
func TestFleetChangesAtOnce(t *testing.T) {
	t.Parallel()
	nodes := fleetWorld{world: world{Backends: named(t, "b1", "b2", "b3")}, Nodes: 3}.start(t)
	for round := range 10 {
		var changing sync.WaitGroup
		for i, n := range nodes {
			changing.Go(func() {
				for _, body := range []string{
					fmt.Sprintf(`{"weight": %d}`, 1+3*round+i),
					[]string{`{"max_sessions": %d}`, `{"max_rate": "%d/s"}`, `{"mode": "drain"}`}[i],
				} {
					if strings.Contains(body, "%d") {
						body = fmt.Sprintf(body, 100+round)
					}
					status, answer, err := n.TryAPI(t.Context(), "PATCH", "/v1/pools/all/backends/b1", []byte(body))
					if err != nil || status != http.StatusOK {
						t.Errorf("%s: %d %s %v", n.Name, status, answer, err)
					}
				}
			})
		}
		changing.Wait()
		harness.Eventually(t, "all nodes are equal", func() error {
			first, err := nodes[0].backend(t, "b1")
			for _, n := range nodes[1:] {
				b, other := n.backend(t, "b1")
				if err = errors.Join(err, other); b != first {
					err = errors.Join(err, fmt.Errorf("%s has %+v, and %s %+v", nodes[0].Name, first, n.Name, b))
				}
			}
			if first.Mode != "drain" || first.MaxSessions != 100+round || first.MaxRate != fmt.Sprintf("%d/s", 100+round) {
				err = errors.Join(err, fmt.Errorf("%+v", first))
			}
			return err
		})
	}
}

// TestFleetWithoutEtcd stops etcd: changes hold on the node where they are made, a restart knows all, and the others
// have them when etcd is back; so has a node that was stopped.
func TestFleetWithoutEtcd(t *testing.T) {
	t.Parallel()
	etcd := harness.StartEtcd(t)
	w := fleetWorld{world: world{Backends: named(t, "b1", "b2", "b3")}, Nodes: 3, Etcd: []*harness.Etcd{etcd}}
	nodes := w.start(t)
	one, two, three := nodes[0], nodes[1], nodes[2]
	one.share(t, "backends", "drain", "all", "b1")
	onAll(t, nodes, "b1", "drained", func(b fleetBackend) bool { return b.Mode == "drain" })
	three.stop(t)
	etcd.Kill(t)
	harness.Eventually(t, "n1 knows that etcd is gone", func() error {
		said := one.do(t, "backends", "set", "all", "b2", "--weight", "3")
		if !strings.Contains(said, "; on this node only: no connection to etcd: ") ||
			!strings.HasSuffix(said, "; it is shared as soon as that is possible") {
			return fmt.Errorf("it says %q", said)
		}
		return nil
	})
	two.do(t, "backends", "set", "all", "b1", "--mode", "ready")
	one.stop(t)
	one.run(t)
	one.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Mode == "drain" }, "drained after a restart")
	one.awaitBackend(t, "b2", func(b fleetBackend) bool { return b.Weight == 3 }, "of weight 3 after a restart")
	two.awaitBackend(t, "b2", func(b fleetBackend) bool { return b.Weight == 1 }, "of weight 1 without etcd")
	etcd.Restart(t)
	three.run(t)
	onAll(t, nodes, "b1", "ready", func(b fleetBackend) bool { return b.Mode == "ready" })
	onAll(t, nodes, "b2", "of weight 3", func(b fleetBackend) bool { return b.Weight == 3 })
	for _, n := range nodes {
		harness.Eventually(t, n.Name+" has nothing pending", func() error {
			for _, c := range n.changes(t) {
				if c.Pending {
					return fmt.Errorf("%+v", c)
				}
			}
			return nil
		})
	}
}

// TestFleetDrainDeadline drains a backend with a deadline, and has it removed then: every node ends its sessions.
func TestFleetDrainDeadline(t *testing.T) {
	t.Parallel()
	echo, other := harness.Serve(t, harness.Echo), harness.Serve(t, harness.Echo)
	nodes := fleetWorld{
		world: world{Backends: []string{echo.Address(), other.Address()}, Pool: []string{`algorithm = "first"`}}, Nodes: 3,
	}.start(t)
	for _, n := range nodes {
		check(t, harness.PingPong(n.Dial(t, "main"), 1, 10))
	}
	nodes[1].share(t, "backends", "drain", "all", "b1", "--deadline", "3s", "--remove")
	for _, n := range nodes {
		line := n.WaitSessions(t, 1)[0]
		if line.Reason != "ended_by_operator" {
			t.Errorf("%s: the session ended with %q", n.Name, line.Reason)
		}
	}
	onAll(t, nodes, "b1", "removed", noBackend)
}

// TestFleetOtherFile has one node with another configuration, and reloads it: it ignores what its file contradicts, and
// takes up changes of backends and pools that come with a reload.
func TestFleetOtherFile(t *testing.T) {
	t.Parallel()
	addresses := named(t, "b1", "b2", "b3")
	w := fleetWorld{world: world{Backends: addresses[:2]}, Nodes: 2,
		Etcd: []*harness.Etcd{harness.StartEtcd(t, "--unsafe-no-fsync")}}
	nodes := w.start(t)
	one, two := nodes[0], nodes[1]
	w.Keys, w.Listen = []string{"weight = 3"}, two.Address(t, "main")
	two.Reload(t, w.configOf(t, two))
	one.share(t, "backends", "set", "all", "b1", "--weight", "9", "--mode", "drain")
	two.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Mode == "drain" && b.Weight == 3 },
		"drained, of its file's weight")
	if said := fmt.Sprint(two.changes(t)); !strings.Contains(said, "its source says something else here") {
		t.Errorf("the changes are %s", said)
	}
	w.Keys = nil
	two.Reload(t, w.configOf(t, two))
	two.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Mode == "drain" && b.Weight == 9 }, "drained, of weight 9")

	w.Listen, w.Backends = one.Address(t, "main"), addresses
	w.Suffix = "[pool.more]\nbackends = " + harness.BackendList(addresses...) + "\n"
	one.Reload(t, w.configOf(t, one))
	one.share(t, "backends", "drain", "all", "b3")
	one.share(t, "backends", "drain", "more", "b2")
	if said := fmt.Sprint(two.changes(t)); !strings.Contains(said, "there is no such backend here") ||
		!strings.Contains(said, "there is no such pool here") {
		harness.Eventually(t, "n2 has the changes, and not the backends", func() error {
			if said = fmt.Sprint(two.changes(t)); !strings.Contains(said, "there is no such backend here") ||
				!strings.Contains(said, "there is no such pool here") {
				return errors.New(said)
			}
			return nil
		})
	}
	w.Listen = two.Address(t, "main")
	two.Reload(t, w.configOf(t, two))
	two.awaitBackend(t, "b3", func(b fleetBackend) bool { return b.Mode == "drain" }, "drained")
	var b fleetBackend
	two.Ask(t, "GET", "/v1/pools/more/backends/b2", nil, &b)
	if b.Mode != "drain" {
		t.Errorf("b2 of the new pool is %+v", b)
	}
}

// TestFleetUpgrade upgrades a node: the new process knows what is shared and what is local, and goes on sharing.
func TestFleetUpgrade(t *testing.T) {
	t.Parallel()
	nodes := fleetWorld{world: world{Backends: named(t, "b1", "b2", "b3")}, Nodes: 2}.start(t)
	one, two := nodes[0], nodes[1]
	one.share(t, "backends", "drain", "all", "b1")
	one.do(t, "backends", "set", "all", "b2", "--weight", "7", "--local")
	one.do(t, "upgrade")
	one.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Mode == "drain" }, "drained")
	one.awaitBackend(t, "b2", func(b fleetBackend) bool { return b.Weight == 7 }, "of weight 7")
	two.share(t, "backends", "drain", "all", "b3")
	one.awaitBackend(t, "b3", func(b fleetBackend) bool { return b.Mode == "drain" }, "drained after the upgrade")
	harness.Eventually(t, "the new process shares", func() error {
		if said := one.do(t, "backends", "set", "all", "b1", "--mode", "ready"); !strings.HasSuffix(said, theFleetHasIt) {
			return errors.New(said)
		}
		return nil
	})
	two.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Mode == "ready" }, "ready")
}

// TestFleetLeave starts a node without the fleet again: the shared changes stay, as its own.
func TestFleetLeave(t *testing.T) {
	t.Parallel()
	w := fleetWorld{world: world{Backends: named(t, "b1", "b2")}, Nodes: 2}
	nodes := w.start(t)
	one, two := nodes[0], nodes[1]
	one.share(t, "backends", "drain", "all", "b1")
	one.share(t, "access", "deny", "192.0.2.0/24")
	two.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Mode == "drain" }, "drained")
	two.awaitRules(t, "deny 192.0.2.0/24")
	two.stop(t)
	with := two.config
	two.config = with[:strings.Index(with, "[fleet]")]
	for range 2 { // the second time from a state file without a fleet
		two.run(t)
		two.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Mode == "drain" }, "drained")
		two.awaitRules(t, "deny 192.0.2.0/24")
		two.do(t, "backends", "set", "all", "b2", "--weight", "3")
		two.stop(t)
		if state, err := os.ReadFile(two.State); err != nil || strings.Contains(string(state), `"fleet"`) {
			t.Errorf("the state file has a fleet: %s %v", state, err)
		}
	}
	one.share(t, "backends", "set", "all", "b1", "--mode", "ready")
	two.config = with
	two.run(t)
	two.awaitJoined(t)
	two.awaitBackend(t, "b2", func(b fleetBackend) bool { return b.Weight == 3 }, "of weight 3, its own change")
	one.share(t, "backends", "set", "all", "b1", "--mode", "maintenance")
	two.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.Mode == "maintenance" }, "in maintenance")
}

// TestFleetStrangeChanges puts values into etcd that no node makes: they are ignored, and logged once.
func TestFleetStrangeChanges(t *testing.T) {
	t.Parallel()
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	nodes := fleetWorld{world: world{Backends: named(t, "b1", "b2")}, Nodes: 2, Etcd: []*harness.Etcd{etcd}}.start(t)
	base := `{"name":"b1","address":"127.0.0.1:1","weight":1,"max_sessions":0,"tier":0,"zone":"","mode":"ready"}`
	record := func(value string) string {
		return fmt.Sprintf(`{"serial":1,"node":"evil","by":"\u001b[31m","at":%q,"value":%s}`,
			time.Now().UTC().Format(time.RFC3339Nano), value)
	}
	added := func(name, address string) string {
		return record(fmt.Sprintf(`{"overrides":[{"what":"added","base":{"name":%q,"address":%q,"weight":1,`+
			`"max_sessions":0,"tier":0,"zone":"","mode":"ready"}}]}`, name, address))
	}
	strange := map[string]string{
		"backends/all/b1/weight":                               record(`{"overrides":[{"what":"changed","source":"config","base":` + base + `,"weight":4000}]}`),
		"backends/all/b2/weight":                               record(`{"overrides":"no"}`),
		"backends/all/b1/mode":                                 record(`{"overrides":[{"what":"changed","source":"config","base":` + base + `,"mode":"bogus"}]}`),
		"backends/all/b1/tier":                                 record(`{"overrides":[{"what":"changed","source":"config","base":` + base + `}]}`),
		"backends/all/%1B%5B31m/there":                         added("\x1b[31m", "127.0.0.1:7"),
		"backends/all/x/there":                                 added("y", "127.0.0.1:7"),
		"backends/all/z/there":                                 added("z", "224.0.0.1:7"),
		"access//10.0.0.0%2F8":                                 record(`{"rule":{"prefix":"0.0.0.0/0","action":"deny","added":"2026-01-01T00:00:00Z"}}`),
		"access//0.0.0.0%2F0":                                  record(`{"rule":{"prefix":"0.0.0.0/0","action":"bogus","added":"2026-01-01T00:00:00Z"}}`),
		"something/new":                                        record(`{}`),
		"backends/all/b2/mode":                                 `{"serial":1}`,
		"backends/all/b2/max_sessions":                         "nonsense",
		"backends/all/" + strings.Repeat("n", 400) + "/weight": record(`{}`),
	}
	for key, value := range strange {
		etcd.Do(t, "put", "/limeload/edge/changes/"+key, value)
	}
	nodes[0].share(t, "backends", "set", "all", "b2", "--max-sessions", "7") // in place of the nonsense
	onAll(t, nodes, "b2", "of 7 sessions", func(b fleetBackend) bool { return b.MaxSessions == 7 })
	for _, n := range nodes {
		n.WaitLine(t, "an ignored change", func(l harness.Line) bool { return l.Event == "fleet_change_ignored" })
		for _, line := range n.Lines() {
			if strings.Contains(line.Text, "\x1b") {
				t.Errorf("the log has %q", line.Text)
			}
		}
		b, err := n.backend(t, "b1")
		if err != nil || b.Weight != 1 || b.Mode != "ready" {
			t.Errorf("b1 is %+v, %v", b, err)
		}
		if n.rules(t) != "" || strings.Contains(n.do(t, "backends", "--wide"), "224.0.0.1") {
			t.Errorf("%s took up a strange change", n.Name)
		}
	}
	nodes[0].share(t, "backends", "set", "all", "b1", "--weight", "5") // over the strange value
	onAll(t, nodes, "b1", "of weight 5", func(b fleetBackend) bool { return b.Weight == 5 })
}

// TestNoFleetNoChanges asks a node without a fleet for its changes, and finds nothing of a fleet in its state file.
func TestNoFleetNoChanges(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "state.json")
	b := world{Backends: named(t, "b1"), Global: []string{fmt.Sprintf("state_file = %q", state)}}.start(t)
	if status, answer := b.API(t, "GET", "/v1/fleet/changes", nil); status != http.StatusConflict ||
		!strings.Contains(string(answer), "/problems/no-fleet") {
		t.Errorf("the answer is %d %s", status, answer)
	}
	b.Ask(t, "PATCH", "/v1/pools/all/backends/b1", map[string]any{"weight": 3, "local": true}, nil)
	if status, answer := b.API(t, "DELETE", "/v1/pools/all/backends/b1?local=true", nil); status != http.StatusNoContent {
		t.Errorf("the answer is %d %s", status, answer)
	}
	if text, err := os.ReadFile(state); err != nil || strings.Contains(string(text), "fleet") {
		t.Errorf("the state file is %s %v", text, err)
	}
}
