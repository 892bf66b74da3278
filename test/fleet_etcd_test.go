package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// fleetTraffic sends requests through every node of a fleet all the time, some over connections that stay and each of
// the others over one of its own.
type fleetTraffic struct {
	stop    chan struct{}
	senders sync.WaitGroup
	sent    map[string]*atomic.Int64 // requests by node

	mu sync.Mutex
	// mu guards the fields below
	failures []string
	slowest  time.Duration
}

// startFleetTraffic starts the traffic, which ends with the test.
func startFleetTraffic(t testing.TB, nodes []*fleetNode) *fleetTraffic {
	t.Helper()
	f := &fleetTraffic{stop: make(chan struct{}), sent: make(map[string]*atomic.Int64)}
	for _, n := range nodes {
		address := n.Address(t, "main")
		f.sent[n.Name] = new(atomic.Int64)
		f.senders.Go(func() { f.send(n.Name, address, false) })
		f.senders.Go(func() { f.send(n.Name, address, true) })
	}
	t.Cleanup(func() {
		close(f.stop)
		f.senders.Wait()
		f.check(t)
		t.Logf("%d requests, %d failed; the slowest took %v", f.requests(), len(f.failures), f.slowest)
	})
	return f
}

// send sends requests through a node until the traffic ends.
func (f *fleetTraffic) send(node, address string, stays bool) {
	var c net.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for {
		select {
		case <-f.stop:
			return
		case <-time.After(5 * time.Millisecond): // the rate
		}
		var err error
		started := time.Now()
		if c == nil {
			c, err = net.DialTimeout("tcp", address, harness.Patience)
		}
		if err == nil {
			err = errors.Join(c.SetDeadline(time.Now().Add(harness.Patience)), harness.PingPong(c, 1, 100))
		}
		f.count(node, time.Since(started), err)
		if c != nil && (err != nil || !stays) {
			c.Close()
			c = nil
		}
	}
}

func (f *fleetTraffic) count(node string, took time.Duration, err error) {
	f.sent[node].Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slowest = max(f.slowest, took)
	if err != nil {
		f.failures = append(f.failures, fmt.Sprintf("%s at %s: %v", node, time.Now().Format(time.TimeOnly), err))
	}
}

func (f *fleetTraffic) requests() (n int64) {
	for _, sent := range f.sent {
		n += sent.Load()
	}
	return n
}

// check fails the test if a request has failed.
func (f *fleetTraffic) check(t testing.TB) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.failures) > 0 {
		t.Errorf("%d of %d requests have failed, the first ones: %s", len(f.failures), f.requests(),
			strings.Join(f.failures[:min(5, len(f.failures))], "; "))
	}
}

// flows waits until every node has answered further requests, and checks that none has failed.
func (f *fleetTraffic) flows(t testing.TB) {
	t.Helper()
	before := make(map[string]int64)
	for node, sent := range f.sent {
		before[node] = sent.Load()
	}
	harness.Eventually(t, "every node answers requests", func() error {
		for node, sent := range f.sent {
			if sent.Load() < before[node]+10 {
				return errors.New(node + " does not")
			}
		}
		return nil
	})
	f.check(t)
}

// An etcdFailures is a fleet under traffic whose etcd fails in different ways.
type etcdFailures struct {
	fleetWorld
	nodes   []*fleetNode
	traffic *fleetTraffic
	last    int // the max_sessions of b1 that was set last
}

// startEtcdFailures starts three members of etcd, three nodes that share their checks, and the traffic.
func startEtcdFailures(t testing.TB) *etcdFailures {
	t.Helper()
	f := &etcdFailures{last: 1000}
	f.fleetWorld = fleetWorld{
		world: world{
			Backends: []string{harness.Serve(t, harness.Echo).Address(), harness.Serve(t, harness.Echo).Address()},
			Health:   []string{`interval = "200ms"`, `timeout = "5s"`},
		},
		Etcd: harness.StartEtcdCluster(t, 3), Nodes: 3, Fleet: []string{"check_share = 2"},
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

// await waits until every node has logged an event after a moment, and returns the endpoints that they name.
func (f *etcdFailures) await(t testing.TB, event string, since time.Time) (endpoints []string) {
	t.Helper()
	for _, n := range f.nodes {
		l := n.WaitLine(t, n.Name+" logs "+event, func(l harness.Line) bool {
			return l.Event == event && l.Seen.After(since)
		})
		endpoints = append(endpoints, endpointOf(t, l))
	}
	return endpoints
}

// endpointOf returns the member of etcd that a line names.
func endpointOf(t testing.TB, l harness.Line) string {
	t.Helper()
	var fields struct{ Endpoint string }
	check(t, json.Unmarshal([]byte(l.Text), &fields))
	return fields.Endpoint
}

// used returns the members that nodes are connected to, and those that none is connected to.
func (f *etcdFailures) used(t testing.TB) (used, others []*harness.Etcd) {
	t.Helper()
	var endpoints []string
	for _, n := range f.nodes {
		last := ""
		for _, l := range n.Lines() {
			if l.Event == "fleet_connected" {
				last = endpointOf(t, l)
			}
		}
		endpoints = append(endpoints, last)
	}
	for _, e := range f.Etcd {
		if slices.Contains(endpoints, e.Endpoint) {
			used = append(used, e)
		} else {
			others = append(others, e)
		}
	}
	return used, others
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
			f.everywhere(t)
			f.traffic.flows(t)
		}) {
			return // the next failure needs a fleet that has got over this one
		}
	}
}

func (f *etcdFailures) memberLost(t testing.TB) {
	used, _ := f.used(t)
	since := time.Now()
	used[0].Kill(t)
	lost := 0
	for _, n := range f.nodes {
		for _, l := range n.Lines() {
			if l.Event == "fleet_lost" && l.Seen.After(since) {
				lost++
			}
		}
	}
	f.change(t, f.nodes[1])
	f.everywhere(t)
	f.traffic.flows(t)
	used[0].Restart(t)
}

func (f *etcdFailures) memberHangs(t testing.TB) {
	used, others := f.used(t)
	since := time.Now()
	for _, e := range used[:min(len(used), len(f.Etcd)/2)] { // one: the majority stays
		e.Hang(t)
		defer e.Resume(t)
	}
	f.change(t, f.nodes[2])
	f.everywhere(t)
	t.Logf("after %v all nodes know a change of a node whose member hangs", time.Since(since).Round(time.Millisecond))
	f.traffic.flows(t)
	if len(used) == 1 {
		for _, endpoint := range f.await(t, "fleet_connected", since) {
			if !slices.ContainsFunc(others, func(e *harness.Etcd) bool { return e.Endpoint == endpoint }) {
				t.Errorf("a node has gone to %s, which hangs", endpoint)
			}
		}
	}
}

// majorityLost loses two of three members for so long.
func (f *etcdFailures) majorityLost(t testing.TB, length time.Duration) {
	since := time.Now()
	f.Etcd[0].Kill(t)
	f.Etcd[1].Kill(t)
	f.await(t, "fleet_lost", since)
	f.withoutEtcd(t, since.Add(length))
	harness.StartEtcdAgain(t, f.Etcd[:2])
	f.await(t, "fleet_connected", since)
}

func (f *etcdFailures) allLost(t testing.TB) {
	since := time.Now()
	for _, e := range f.Etcd {
		e.Kill(t)
	}
	f.await(t, "fleet_lost", since)
	f.withoutEtcd(t, since)
	harness.StartEtcdAgain(t, f.Etcd)
	f.await(t, "fleet_connected", since)
}

// withoutEtcd makes changes on two nodes, of which the later one holds in the end, and has traffic until a moment.
func (f *etcdFailures) withoutEtcd(t testing.TB, until time.Time) {
	t.Helper()
	earlier := f.last
	f.change(t, f.nodes[0])
	f.change(t, f.nodes[2])
	if b, err := f.nodes[1].backend(t, "b1"); err != nil || b.MaxSessions != earlier {
		t.Errorf("n2 has %+v, %v: it cannot know the changes of the others", b, err)
	}
	f.traffic.flows(t)
	time.Sleep(time.Until(until)) // how long etcd is away is what is tested
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
	since := time.Now()
	harness.RestoreEtcd(t, f.Etcd, file)
	f.await(t, "fleet_connected", since)
	f.newNode(t, "n5")
	f.change(t, f.nodes[0])
	f.everywhere(t)
}

func (f *etcdFailures) dataLost(t testing.TB) {
	since := time.Now()
	harness.RestoreEtcd(t, f.Etcd, "")
	f.await(t, "fleet_connected", since)
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
	proxy := harness.StartSlowProxy(t, strings.TrimPrefix(server.Endpoint, "http://"))
	behind := *server
	behind.Endpoint = "http://" + proxy.Address()
	f := &etcdFailures{last: 1000}
	f.fleetWorld = fleetWorld{
		world: world{
			Backends: []string{harness.Serve(t, harness.Echo).Address(), harness.Serve(t, harness.Echo).Address()},
			Health:   []string{`interval = "200ms"`, `timeout = "5s"`},
		},
		Etcd: []*harness.Etcd{&behind}, Nodes: 3, Fleet: []string{"check_share = 2"},
	}
	f.nodes = f.start(t)
	f.traffic = startFleetTraffic(t, f.nodes)
	f.change(t, f.nodes[0])
	f.everywhere(t)
	since := time.Now()
	proxy.SetDelay(delay)
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
