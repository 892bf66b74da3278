//go:build netns

package test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

const splitBackends = 4

// A splitSite is a fleet whose nodes have one cable to etcd, and one to the backends.
type splitSite struct {
	control, inner *harness.Network
	hosts          []*harness.Host // of the nodes
	nodes          []*fleetNode
	servers        []*harness.Backend
}

func startSplitSite(t *testing.T, nodes int) *splitSite {
	t.Helper()
	s := &splitSite{control: harness.NewNetwork(t, "control"), inner: harness.NewNetwork(t, "inner")}
	keys, servers := harness.NewHost(t, "keys"), harness.NewHost(t, "servers")
	s.control.Join(t, keys, "eth0", "10.0.0.31/24")
	w := fleetWorld{
		world: world{Listen: "127.0.0.1:6379", Health: fleetHealth}, Fleet: []string{"check_share = 2"},
		Etcd: harness.StartEtcdOn(t, []*harness.Host{keys}, []string{"10.0.0.31"}),
	}
	var addresses []string
	for i := range splitBackends {
		addresses = append(addresses, fmt.Sprintf("10.1.0.%d/24", 101+i))
		w.Backends = append(w.Backends, fmt.Sprintf("10.1.0.%d:6379", 101+i))
	}
	s.inner.Join(t, servers, "eth0", addresses...)
	for _, address := range w.Backends {
		s.servers = append(s.servers, servers.Serve(t, address, harness.Echo))
	}
	for i := range nodes {
		h := harness.NewHost(t, fmt.Sprintf("n%d", i+1))
		s.control.Join(t, h, "eth0", fmt.Sprintf("10.0.0.%d/24", i+1))
		s.inner.Join(t, h, "eth1", fmt.Sprintf("10.1.0.%d/24", i+1))
		n := &fleetNode{Name: h.Name, State: t.TempDir() + "/state.json"}
		n.config = w.configOf(t, n)
		n.Balancer = harness.StartBalancerWith(t, harness.BalancerOptions{Config: n.config, On: h, Killed: true})
		s.hosts, s.nodes = append(s.hosts, h), append(s.nodes, n)
	}
	for _, n := range s.nodes {
		n.awaitJoined(t)
	}
	awaitShared(t, s.nodes, splitBackends, 2)
	return s
}

// ready returns nil if a node is ready, or why it is not.
func (n *fleetNode) ready(ctx context.Context) error {
	status, answer, err := n.TryAPI(ctx, "GET", "/ready", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %s", status, strings.TrimSpace(string(answer)))
	}
	return err
}

// awaitReady waits until a node is ready, or is not, and returns when.
func (n *fleetNode) awaitReady(t *testing.T, want bool, since time.Time) time.Duration {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%s is ready: %t", n.Name, want), func() error {
		if err := n.ready(t.Context()); (err == nil) != want {
			return fmt.Errorf("it says %v; backends: %v", err, n.verdicts(t))
		}
		return nil
	})
	return time.Since(since).Round(10 * time.Millisecond)
}

// A lookout watches the verdicts on all nodes.
type lookout struct {
	stop     context.CancelFunc
	watching sync.WaitGroup

	mu    sync.Mutex
	least []int           // healthy backends of each node; mu guards both
	less  []time.Duration // for how long there were fewer than all
}

// watch watches until the end of the test, or until end.
func (s *splitSite) watch(t *testing.T) *lookout {
	ctx, stop := context.WithCancel(t.Context())
	l := &lookout{stop: stop, least: make([]int, len(s.nodes)), less: make([]time.Duration, len(s.nodes))}
	for i, n := range s.nodes {
		l.least[i] = splitBackends
		l.watching.Go(func() {
			last := time.Now()
			for ctx.Err() == nil {
				healthy := 0
				for _, b := range n.verdicts(t) {
					if b.Verdict == "healthy" {
						healthy++
					}
				}
				l.mu.Lock()
				if l.least[i] = min(l.least[i], healthy); healthy < splitBackends {
					l.less[i] += time.Since(last)
				}
				last = time.Now()
				l.mu.Unlock()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// end ends it.
func (l *lookout) end() {
	l.stop()
	l.watching.Wait()
}

// cutOf cuts the first nodes off, and returns what mends that.
func (s *splitSite) cutOf(t *testing.T, n int, networks ...*harness.Network) (mend func()) {
	t.Helper()
	for _, h := range s.hosts[:n] {
		for _, network := range networks {
			network.Cut(t, h)
		}
	}
	return func() {
		for _, h := range s.hosts[:n] {
			for _, network := range networks {
				network.Mend(t, h)
			}
		}
	}
}

// TestNetnsSplitBrain cuts nodes of a fleet off: from the backends, from etcd, from both. No node ever takes all backends
// for unhealthy because it is cut off itself; it is not ready, and the others do not notice.
func TestNetnsSplitBrain(t *testing.T) {
	s := startSplitSite(t, 5)
	for _, tc := range []struct {
		name     string
		cut      int // so many nodes
		networks []*harness.Network
		alone    bool
		blips    bool // the others may take a backend for unhealthy for a moment: both of its judges are cut off
	}{
		{"one from the backends", 1, []*harness.Network{s.inner}, true, false},
		{"one from etcd", 1, []*harness.Network{s.control}, false, false},
		{"one from both", 1, []*harness.Network{s.inner, s.control}, true, false},
		{"three from the backends", 3, []*harness.Network{s.inner}, true, true},
		{"three from both", 3, []*harness.Network{s.inner, s.control}, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := s.watch(t)
			mend := s.cutOf(t, tc.cut, tc.networks...)
			cut := time.Now()
			if tc.alone {
				for _, n := range s.nodes[:tc.cut] {
					t.Logf("%s is not ready after %v: %v", n.Name, n.awaitReady(t, false, cut), n.ready(t.Context()))
				}
			}
			awaitShared(t, s.nodes[tc.cut:], splitBackends, 2)
			t.Logf("the others have the duties after %v", time.Since(cut).Round(10*time.Millisecond))
			<-time.After(3 * time.Second) // nothing else happens
			for i, n := range s.nodes {
				if ready := n.ready(t.Context()) == nil; ready == (tc.alone && i < tc.cut) {
					t.Errorf("%s is ready: %t", n.Name, ready)
				}
			}
			mend()
			mended := time.Now()
			for _, n := range s.nodes[:tc.cut] {
				t.Logf("%s is ready again after %v", n.Name, n.awaitReady(t, true, mended))
			}
			awaitShared(t, s.nodes, splitBackends, 2)
			t.Logf("the duties are divided again after %v", time.Since(mended).Round(10*time.Millisecond))
			l.end()
			t.Logf("healthy backends at least %v, fewer than all for %v", l.least, l.less)
			for i, n := range s.nodes {
				if l.least[i] == 0 || l.least[i] < splitBackends && i >= tc.cut && !tc.blips {
					t.Errorf("%s had only %d healthy backends", n.Name, l.least[i])
				}
			}
		})
	}
}
