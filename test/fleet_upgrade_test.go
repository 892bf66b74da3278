package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A keyWatch counts the deletions of a key in etcd.
type keyWatch struct {
	mu      sync.Mutex
	changes []harness.KeyChange // mu guards it
}

func (w *keyWatch) note(c harness.KeyChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes = append(w.changes, c)
}

// deleted returns the changes that have deleted a key.
func (w *keyWatch) deleted() (gone []harness.KeyChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.changes {
		if c.Deleted {
			gone = append(gone, c)
		}
	}
	return gone
}

// TestFleetUpgradeUnderTraffic upgrades a node twice under traffic: it stays in the fleet under its name, and keeps the
// changes and the verdicts that it shares with others.
func TestFleetUpgradeUnderTraffic(t *testing.T) {
	t.Parallel()
	const upgrades = 2
	server := harness.StartEtcd(t, "--unsafe-no-fsync")
	f := &etcdFailures{t: t, last: 1000}
	f.fleetWorld = fleetWorld{
		world: world{
			Backends: []string{harness.Serve(t, harness.Echo).Address(), harness.Serve(t, harness.Echo).Address()},
			Health:   []string{`interval = "200ms"`, `timeout = "5s"`},
		},
		Etcd: []*harness.Etcd{server}, Nodes: 3, Fleet: []string{"check_share = 2"}, Suffix: "[log]\naccess = false\n",
	}
	f.nodes = f.start(t)
	f.whole(t)
	traffic := startFleetTraffic(t, f.nodes)
	f.change(t, f.nodes[0])
	f.everywhere(t)
	var node keyWatch
	server.Watch(t, "/limeload/edge/nodes/n1", node.note)
	n := f.nodes[0]
	for i := range upgrades {
		old := n.pid(t)
		n.do(t, "upgrade")
		if now := n.pid(t); now == old {
			t.Fatalf("upgrade %d: process %d still answers", i, old)
		}
		f.everywhere(t) // the change of before
		f.whole(t)
		for _, by := range []*fleetNode{f.nodes[1], n} {
			f.change(t, by)
			f.everywhere(t)
		}
		traffic.flows(t)
	}
	if gone := node.deleted(); len(gone) > 0 {
		t.Errorf("the other nodes have seen n1 vanish: %v", gone)
	}
	for _, n := range f.nodes {
		for _, l := range n.Lines() {
			if l.Message == harness.MessageVerdict && l.From == "healthy" {
				t.Errorf("%s has changed a verdict: %s", n.Name, l.Text)
			}
		}
	}
}

// TestFleetQuickStart runs the first configuration of docs/fleet.md on three nodes.
func TestFleetQuickStart(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/fleet.md")
	check(t, err)
	found := regexp.MustCompile("(?s)```toml\n(.*?)```").FindSubmatch(page)
	if found == nil {
		t.Fatal("the page has no configuration")
	}
	server := harness.StartEtcd(t, "--unsafe-no-fsync")
	one, two := harness.StartRedis(t), harness.StartRedis(t)
	var nodes []*harness.Balancer
	for i := range 3 {
		text := string(found[1])
		for from, to := range map[string]string{
			`["http://10.0.0.31:2379", "http://10.0.0.32:2379", "http://10.0.0.33:2379"]`: fmt.Sprintf("[%q]", server.Endpoint),
			`name        = "edge"`:           fmt.Sprintf("name = \"edge\"\nnode = \"lb%d\"", i+1),
			`"/var/lib/limeload/state.json"`: fmt.Sprintf("%q", filepath.Join(t.TempDir(), "state.json")),
			`":6379"`:                        fmt.Sprintf("%q", harness.FreeAddress(t)),
			"10.0.0.21:6379":                 one.Address, "10.0.0.22:6379": two.Address,
		} {
			if !strings.Contains(text, from) {
				t.Fatalf("the configuration has no %s", from)
			}
			text = strings.ReplaceAll(text, from, to)
		}
		// Killed: it may have another connection to etcd at its end than at its start
		nodes = append(nodes, harness.StartBalancerWith(t, harness.BalancerOptions{Config: text, Killed: true}))
	}
	for _, n := range nodes {
		harness.Eventually(t, "each node knows three, and chooses as they do", func() error {
			stdout, stderr, code := n.Command(t, "fleet", "verify")
			if code != 0 || !strings.Contains(stdout, "3 nodes choose alike") {
				return fmt.Errorf("exit code %d: %s%s", code, stdout, stderr)
			}
			return nil
		})
	}
}

// TestFleetOutputs: what docs/fleet.md shows as output is from docs/start-fleet.md, whose commands TestDocuments runs.
func TestFleetOutputs(t *testing.T) {
	t.Parallel()
	page, start := string(readFile(t, "../docs/fleet.md")), string(readFile(t, "../docs/start-fleet.md"))
	shown := regexp.MustCompile("(?ms)^```\n(.*?)^```$").FindAllStringSubmatch(
		regexp.MustCompile("(?ms)^```[a-z]+\n.*?^```$").ReplaceAllString(page, ""), -1)
	if len(shown) < 5 {
		t.Fatalf("the page shows %d outputs", len(shown))
	}
	for _, block := range shown {
		if !strings.Contains(start, block[1]) {
			t.Errorf("docs/start-fleet.md does not show\n%s", block[1])
		}
	}
}

// TestFleetLeastRights gives a fleet the rights of docs/fleet.md and no others: it works, and cannot read other keys.
func TestFleetLeastRights(t *testing.T) {
	t.Parallel()
	page := string(readFile(t, "../docs/fleet.md"))
	_, part, _ := strings.Cut(page, "\n## Security\n")
	block := regexp.MustCompile("(?s)```sh\n(.*?)```").FindStringSubmatch(part)
	if block == nil {
		t.Fatal("the page has no commands for etcd")
	}
	server := harness.StartEtcd(t, "--unsafe-no-fsync")
	const password = "secret"
	for line := range strings.Lines(block[1]) {
		words := strings.Fields(line)[1:]
		if words[0] == "user" && words[1] == "add" {
			words[2] += ":" + password
		}
		server.Do(t, words...)
	}
	server.Do(t, "put", "/other/key", "1")
	server.Do(t, "user", "add", "root:"+password)
	server.Do(t, "user", "grant-role", "root", "root")
	server.Do(t, "auth", "enable")
	file := filepath.Join(t.TempDir(), "password")
	check(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	f := &etcdFailures{t: t, last: 1000}
	f.fleetWorld = fleetWorld{
		world: world{Backends: named(t, "b1", "b2")}, Etcd: []*harness.Etcd{server}, Nodes: 2,
		Fleet: []string{"check_share = 2", `user = "limeload-edge"`, fmt.Sprintf("password_file = %q", file)},
	}
	f.nodes = f.start(t)
	f.change(t, f.nodes[0])
	f.everywhere(t)
	f.whole(t)
	if err := server.Try(t, "--user", "limeload-edge:"+password, "get", "/other/key"); err == nil {
		t.Error("the fleet's user can read other keys")
	}
}
