package test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// An etcdFailures is a fleet under traffic whose etcd fails in different ways.
type etcdFailures struct {
	fleetWorld
	t       testing.TB // of the whole test: what a part of it starts stays
	nodes   []*fleetNode
	traffic *fleetTraffic
	last    int // the max_sessions of b1 that was set last
}

// startEtcdFailures starts three members of etcd, three nodes that share their checks, and the traffic.
func startEtcdFailures(t testing.TB) *etcdFailures {
	t.Helper()
	f := &etcdFailures{t: t, last: 1000}
	f.fleetWorld = fleetWorld{
		world: world{
			Backends: []string{harness.Serve(t, harness.Echo).Address(), harness.Serve(t, harness.Echo).Address()},
			Health:   []string{`interval = "200ms"`, `timeout = "5s"`},
		},
		Etcd: harness.StartEtcdCluster(t, 3), Nodes: 3, Fleet: []string{"check_share = 2"}, Suffix: "[log]\naccess = false\n",
	}
	f.nodes = f.start(t)
	f.traffic = startFleetTraffic(t, f.nodes)
	return f
}

// change changes a backend on a node, where it holds at once, whatever etcd does.
func (f *etcdFailures) change(t testing.TB, n *fleetNode) {
	t.Helper()
	f.last++
	n.do(t, "backends", "set", "all", "b1", "--max-sessions", strconv.Itoa(f.last))
	if b, err := n.backend(t, "b1"); err != nil || b.MaxSessions != f.last {
		t.Errorf("%s has %+v after its own change to %d, %v", n.Name, b, f.last, err)
	}
}

// everywhere waits until the last change holds on all nodes.
func (f *etcdFailures) everywhere(t testing.TB) {
	t.Helper()
	for _, n := range f.nodes {
		last := f.last
		n.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.MaxSessions == last }, fmt.Sprintf("at %d", last))
	}
}

// A fleetView has fields of a node's answer about its fleet.
type fleetView struct {
	Link struct {
		Connected bool
		Endpoint  string
		Error     string
	}
	Nodes []struct {
		Name, State, Alone string
		Ready              bool
	}
	Pending int
}

// view returns what a node knows of its fleet.
func (n *fleetNode) view(t testing.TB) (v fleetView) {
	t.Helper()
	n.ask(t, "GET", "/v1/fleet", nil, &v)
	return v
}

// linked waits until every node is connected to etcd, or none is.
func (f *etcdFailures) linked(t testing.TB, connected bool) {
	t.Helper()
	for _, n := range f.nodes {
		harness.Eventually(t, fmt.Sprintf("%s says that it is connected: %t", n.Name, connected), func() error {
			if v := n.view(t); v.Link.Connected != connected {
				return fmt.Errorf("its link is %+v", v.Link)
			}
			return nil
		})
	}
}

// whole waits until every node has a connection, and knows that all nodes are ready and have no changes left to write.
func (f *etcdFailures) whole(t testing.TB) {
	t.Helper()
	f.linked(t, true)
	for _, n := range f.nodes {
		harness.Eventually(t, n.Name+" knows that all nodes are well", func() error {
			v := n.view(t)
			well := 0
			for _, other := range v.Nodes {
				if other.Ready && other.State == "serving" && other.Alone == "" {
					well++
				}
			}
			if well != len(f.nodes) || v.Pending != 0 {
				return fmt.Errorf("it has %+v", v)
			}
			return nil
		})
	}
}

// used returns the members that nodes are connected to.
func (f *etcdFailures) used(t testing.TB) (used []*harness.Etcd) {
	t.Helper()
	for _, e := range f.Etcd {
		if slices.ContainsFunc(f.nodes, func(n *fleetNode) bool { return n.view(t).Link.Endpoint == e.Endpoint }) {
			used = append(used, e)
		}
	}
	return used
}

// leaves waits until no node is connected to a member.
func (f *etcdFailures) leaves(t testing.TB, e *harness.Etcd) {
	t.Helper()
	for _, n := range f.nodes {
		harness.Eventually(t, n.Name+" has gone to another member", func() error {
			if v := n.view(t); !v.Link.Connected || v.Link.Endpoint == e.Endpoint {
				return fmt.Errorf("its link is %+v", v.Link)
			}
			return nil
		})
	}
}

// operatorsSee checks how nodes say that they have no connection: in the log, the command, and the metrics.
func (f *etcdFailures) operatorsSee(t testing.TB, since time.Time) {
	t.Helper()
	for _, n := range f.nodes {
		l := n.WaitLine(t, n.Name+" logs the loss", func(l harness.Line) bool {
			return l.Event == "fleet_lost" && l.Seen.After(since)
		})
		if l.Level != "warn" || l.Err == "" || !l.Has("endpoint") {
			t.Errorf("%s logs %s", n.Name, l.Text)
		}
		if printed := n.do(t, "fleet"); !strings.Contains(printed, "not connected") {
			t.Errorf("%s prints\n%s", n.Name, printed)
		}
		if _, text := n.API(t, "GET", "/metrics", nil); !strings.Contains(string(text), "\nlimeload_fleet_connected 0\n") {
			t.Errorf("the metrics of %s do not say that it is not connected", n.Name)
		}
	}
}

// TestFleetEtcd has etcd fail in every way, under traffic through every node: no request fails, a change that is made
// meanwhile holds on its node at once, and on all nodes once etcd is back.
func TestFleetEtcd(t *testing.T) {
	t.Parallel()
	f := startEtcdFailures(t)
	f.change(t, f.nodes[0])
	f.everywhere(t)
	for _, failure := range []struct {
		name string
		test func(testing.TB)
	}{
		{"a member is lost", f.memberLost},
		{"a member hangs", f.memberHangs},
		{"the majority is lost", func(t testing.TB) { f.majorityLost(t, 5*time.Second) }},
		{"all members are lost", f.allLost},
		{"the keys are deleted", f.keysDeleted},
		{"an old copy is restored", f.oldCopy},
		{"all data is lost", f.dataLost},
	} {
		if !t.Run(failure.name, func(t *testing.T) {
			failure.test(t)
			f.whole(t)
			f.everywhere(t)
			f.traffic.flows(t)
		}) {
			return // the next failure needs a fleet that has got over this one
		}
	}
}

func (f *etcdFailures) memberLost(t testing.TB) {
	lost := f.used(t)[0]
	lost.Kill(t)
	f.change(t, f.nodes[1])
	f.everywhere(t)
	f.leaves(t, lost)
	f.traffic.flows(t)
	lost.Restart(f.t)
}

func (f *etcdFailures) memberHangs(t testing.TB) {
	hangs := f.used(t)[0]
	started := time.Now()
	hangs.Hang(t)
	defer hangs.Resume(t)
	f.change(t, f.nodes[2])
	f.everywhere(t)
	f.leaves(t, hangs)
	t.Logf("all nodes have left a member that hangs after %v", time.Since(started).Round(time.Millisecond))
	f.traffic.flows(t)
}

// majorityLost loses two of three members for so long.
func (f *etcdFailures) majorityLost(t testing.TB, length time.Duration) {
	since := time.Now()
	f.Etcd[0].Kill(t)
	f.Etcd[1].Kill(t)
	f.withoutEtcd(t, since, length)
	harness.StartEtcdAgain(f.t, f.Etcd[:2])
}

func (f *etcdFailures) allLost(t testing.TB) {
	since := time.Now()
	for _, e := range f.Etcd {
		e.Kill(t)
	}
	f.withoutEtcd(t, since, 0)
	harness.StartEtcdAgain(f.t, f.Etcd)
}

// withoutEtcd makes changes on two nodes, of which the later one holds in the end, and has traffic for a while.
func (f *etcdFailures) withoutEtcd(t testing.TB, since time.Time, length time.Duration) {
	t.Helper()
	f.linked(t, false)
	f.operatorsSee(t, since)
	earlier := f.last
	f.change(t, f.nodes[0])
	f.change(t, f.nodes[2])
	if b, err := f.nodes[1].backend(t, "b1"); err != nil || b.MaxSessions != earlier {
		t.Errorf("n2 has %+v, %v: it cannot know the changes of the others", b, err)
	}
	f.traffic.flows(t)
	time.Sleep(time.Until(since.Add(length))) // how long etcd is away is what is tested
	f.traffic.flows(t)
}

func (f *etcdFailures) keysDeleted(t testing.TB) {
	f.Etcd[0].Do(t, "del", "--prefix", "/limeload/edge/")
	f.inEtcd(t, "nodes/n1", "nodes/n2", "nodes/n3", "changes/")
	f.everywhere(t)
	f.newNode(t, "n4")
}

func (f *etcdFailures) oldCopy(t testing.TB) {
	file := filepath.Join(t.TempDir(), "copy")
	f.Etcd[0].Save(t, file)
	f.change(t, f.nodes[1]) // which the copy lacks
	f.everywhere(t)
	harness.RestoreEtcd(f.t, f.Etcd, file)
	f.whole(t)
	f.newNode(t, "n5")
	f.change(t, f.nodes[0])
	f.everywhere(t)
}

func (f *etcdFailures) dataLost(t testing.TB) {
	harness.RestoreEtcd(f.t, f.Etcd, "")
	f.inEtcd(t, "nodes/n1", "nodes/n2", "nodes/n3", "changes/")
	f.newNode(t, "n6")
}

// inEtcd waits until etcd has keys that begin so.
func (f *etcdFailures) inEtcd(t testing.TB, keys ...string) {
	t.Helper()
	for _, key := range keys {
		harness.Eventually(t, "etcd has "+key, func() error {
			if !strings.Contains(f.Etcd[0].Do(t, "get", "--prefix", "--keys-only", "/limeload/edge/"+key), key) {
				return errors.New("it has not")
			}
			return nil
		})
	}
}

// newNode starts a node without a state file, which learns the last change from etcd, and ends it.
func (f *etcdFailures) newNode(t testing.TB, name string) {
	t.Helper()
	n := f.startNode(t, name)
	n.awaitBackend(t, "b1", func(b fleetBackend) bool { return b.MaxSessions == f.last }, fmt.Sprintf("at %d", f.last))
	n.stop(t)
}

// TestFleetEtcdSlow has every answer of etcd take a second: nothing is lost, and changes take no longer than a few
// answers.
func TestFleetEtcdSlow(t *testing.T) {
	t.Parallel()
	const delay = time.Second
	server := harness.StartEtcd(t, "--unsafe-no-fsync")
	link := harness.StartSlowLink(t, strings.TrimPrefix(server.Endpoint, "http://"))
	behind := *server
	behind.Endpoint = "http://" + link.Address()
	f := &etcdFailures{t: t, last: 1000}
	f.fleetWorld = fleetWorld{
		world: world{
			Backends: []string{harness.Serve(t, harness.Echo).Address(), harness.Serve(t, harness.Echo).Address()},
			Health:   []string{`interval = "200ms"`, `timeout = "5s"`},
		},
		Etcd: []*harness.Etcd{&behind}, Nodes: 3, Fleet: []string{"check_share = 2"}, Suffix: "[log]\naccess = false\n",
	}
	f.nodes = f.start(t)
	f.traffic = startFleetTraffic(t, f.nodes)
	f.change(t, f.nodes[0])
	f.everywhere(t)
	since := time.Now()
	link.Delay(delay)
	for _, n := range f.nodes {
		started := time.Now()
		f.change(t, n)
		f.everywhere(t)
		t.Logf("with answers that take %v, a change is everywhere after %v", delay, time.Since(started))
	}
	f.newNode(t, "n4") // its start needs more than one answer
	for _, n := range f.nodes {
		for _, l := range n.Lines() {
			if l.Event == "fleet_lost" && l.Seen.After(since) {
				t.Errorf("%s has given a slow etcd up: %s", n.Name, l.Text)
			}
		}
	}
	f.traffic.flows(t)
}
