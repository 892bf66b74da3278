package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/test/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A testNode is a node of a fleet, which ends with the test.
type testNode struct {
	*Fleet

	stop    context.CancelFunc
	running *sync.WaitGroup // stop ends it

	mu sync.Mutex
	// mu guards the fields below
	links     []Link
	overruled []string
	fewest    int // nodes that an observer has found, once they were all; -1 before
	all       int // nodes
}

// startNode starts a node of the fleet "edge" that says a Node.
func startNode(t *testing.T, o Options) *testNode {
	t.Helper()
	return runNode(t, newNode(o), nil)
}

// newNode returns a node of the fleet "edge". Only Node and Endpoints must be set.
func newNode(o Options) *testNode {
	n := &testNode{fewest: -1}
	o.Name, o.Prefix = "edge", "/limeload/"
	if o.Instance == "" {
		o.Instance = o.Node
	}
	o.LinkChanged, o.Overruled = n.linkChanged, n.changeOverruled
	n.Fleet = New(o)
	n.Observe(Nodes, n.count)
	return n
}

// runNode runs a node from what one of before has saved.
func runNode(t *testing.T, n *testNode, saved map[string]Saved) *testNode {
	t.Helper()
	n.Restore(saved)
	n.sayNode(t)
	var ctx context.Context
	ctx, n.stop = context.WithCancel(context.Background())
	n.running = new(sync.WaitGroup)
	n.running.Go(func() { n.Run(ctx) })
	t.Cleanup(n.kill)
	return n
}

// kill ends a node as if its process had crashed: its lease goes on.
func (n *testNode) kill() {
	n.stop()
	n.running.Wait()
}

func (n *testNode) sayNode(t *testing.T) {
	t.Helper()
	value, err := json.Marshal(Node{Instance: n.o.Instance, Host: "h"})
	if err != nil {
		t.Fatal(err)
	}
	n.Say(Nodes+Key(n.Fleet.Node()), value)
}

func (n *testNode) linkChanged(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links = append(n.links, l)
}

func (n *testNode) changeOverruled(key string, _ Record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.overruled = append(n.overruled, key)
}

// reports returns how often the link was reported.
func (n *testNode) reports() (up, down, trouble int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		switch {
		case !l.Up:
			down++
		case l.Err != nil:
			trouble++
		default:
			up++
		}
	}
	return up, down, trouble
}

// expect makes the node remember the fewest nodes that it finds from now on.
func (n *testNode) expect(all int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all, n.fewest = all, all
}

func (n *testNode) count([]string) {
	found := len(n.Nodes())
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fewest >= 0 {
		n.fewest = min(n.fewest, found)
	}
}

// fewestNodes returns the fewest nodes that were found since expect.
func (n *testNode) fewestNodes() int {
	n.count(nil)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fewest
}

// awaitNodes waits until each node knows that many.
func awaitNodes(t *testing.T, count int, nodes ...*testNode) {
	t.Helper()
	for _, n := range nodes {
		harness.Eventually(t, n.Fleet.Node()+" knows the nodes", func() error {
			if found := len(n.Nodes()); found != count {
				return fmt.Errorf("%d nodes, want %d; link %+v", found, count, n.Link())
			}
			return nil
		})
	}
}

// awaitUp waits until a node has a connection.
func (n *testNode) awaitUp(t *testing.T) {
	t.Helper()
	harness.Eventually(t, n.Fleet.Node()+" is connected", func() error {
		if l := n.Link(); !l.Up {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
}

// awaitDown waits until a node has no connection.
func (n *testNode) awaitDown(t *testing.T) {
	t.Helper()
	harness.Eventually(t, n.Fleet.Node()+" is not connected", func() error {
		if l := n.Link(); l.Up {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
}

// awaitRecord waits until the nodes have a value for a key.
func awaitRecord(t *testing.T, key, value string, nodes ...*testNode) {
	t.Helper()
	for _, n := range nodes {
		harness.Eventually(t, n.Fleet.Node()+" has the change", func() error {
			if r := n.Records(key)[key]; string(r.Value) != value {
				return fmt.Errorf("it has %q of serial %d, want %s; link %+v", r.Value, r.Serial, value, n.Link())
			}
			return nil
		})
	}
}

// awaitSettled waits until etcd has all records of a node.
func (n *testNode) awaitSettled(t *testing.T) {
	t.Helper()
	harness.Eventually(t, "etcd has all of "+n.Fleet.Node(), func() error {
		if s := n.Stats(); s.Pending > 0 || s.Unsaid > 0 || !n.Link().Up {
			return fmt.Errorf("%+v, link %+v", s, n.Link())
		}
		return nil
	})
}

// set changes a key of changes to a JSON value.
func (n *testNode) set(key, value string) Record {
	return n.Change(key, Record{By: "root", Value: json.RawMessage(value)})
}

// linkTo starts a link to a member of etcd, and returns it with the URL that leads through it.
func linkTo(t *testing.T, e *harness.Etcd) (*harness.SlowLink, string) {
	t.Helper()
	l := harness.StartSlowLink(t, strings.TrimPrefix(e.Endpoint, "http://"))
	return l, "http://" + l.Address()
}

// startEtcd starts an etcd of one member that does not wait for the disk.
func startEtcd(t *testing.T) *harness.Etcd {
	t.Helper()
	return harness.StartEtcd(t, "--unsafe-no-fsync")
}

// countKeys returns how many keys etcd has that begin with prefix.
func countKeys(t *testing.T, e *harness.Etcd, prefix string) int {
	t.Helper()
	prefix = "/limeload/edge/" + prefix
	return strings.Count(e.Do(t, "get", "--prefix", "--keys-only", prefix), prefix)
}
