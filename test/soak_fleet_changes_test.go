//go:build soak

package test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestSoakFleetChanges measures how long a drain takes to be in force on other nodes, with three members of etcd; and
// makes 1,008 changes on three nodes at once: all nodes end equal, and so does one that was stopped meanwhile.
func TestSoakFleetChanges(t *testing.T) {
	const backends, drains, changes = 100, 300, 1008
	w := fleetWorld{Etcd: harness.StartEtcdCluster(t, 3), Nodes: 4}
	for i := range backends {
		w.Backends = append(w.Backends, fmt.Sprintf("127.0.1.%d:1", i+1))
	}
	nodes := w.start(t)
	var delays []time.Duration
	for i := range drains {
		mode := []string{"drain", "ready"}[i%2]
		delays = append(delays, drainDelay(t, nodes, fmt.Sprintf("b%d", 1+i/2%backends), mode))
	}
	slices.Sort(delays)
	p99 := delays[len(delays)*99/100]
	t.Logf("%d drains and their ends, until in force on all %d nodes: median %s, p99 %s, most %s", drains, len(nodes),
		delays[len(delays)/2].Round(time.Millisecond), p99.Round(time.Millisecond),
		delays[len(delays)-1].Round(time.Millisecond))
	if p99 > time.Second {
		t.Errorf("p99 of the delay is %s", p99)
	}

	away := nodes[3]
	away.stop(t)
	began := time.Now()
	var changing sync.WaitGroup
	for i, n := range nodes[:3] {
		for part := range 4 {
			changing.Go(func() { changeAtRandom(t, n, uint64(4*i+part), changes/12, backends) })
		}
	}
	changing.Wait()
	took := time.Since(began)
	equal := func(nodes []*fleetNode) time.Duration {
		began := time.Now()
		harness.Eventually(t, "all nodes are equal", func() error { return differenceOf(t, nodes) })
		return time.Since(began)
	}
	after := equal(nodes[:3])
	t.Logf("%d changes on three nodes at once took %s; the nodes were equal %s after the last one", changes,
		took.Round(time.Millisecond), after.Round(time.Millisecond))
	began = time.Now()
	away.run(t)
	equal(nodes)
	t.Logf("the node that was away was equal %s after its start began", time.Since(began).Round(time.Millisecond))
}

// drainDelay sets a mode on the first node, and returns how long it takes until it is in force on all.
func drainDelay(t *testing.T, nodes []*fleetNode, backend, mode string) time.Duration {
	t.Helper()
	began := time.Now()
	var asked sync.WaitGroup
	asked.Go(func() {
		status, answer, err := nodes[0].TryAPI(t.Context(), "PATCH", "/v1/pools/all/backends/"+backend,
			[]byte(fmt.Sprintf(`{"mode": %q}`, mode)))
		if err != nil || status != http.StatusOK {
			t.Errorf("%d %s %v", status, answer, err)
		}
	})
	for _, n := range nodes[1:] {
		n.awaitBackend(t, backend, func(b fleetBackend) bool { return b.Mode == mode }, mode)
	}
	took := time.Since(began)
	asked.Wait()
	return took
}

// changeAtRandom makes n changes of one or two settings each.
func changeAtRandom(t *testing.T, node *fleetNode, seed uint64, n, backends int) {
	r := rand.New(rand.NewPCG(seed, 16))
	for range n {
		body := []string{
			fmt.Sprintf(`{"weight": %d}`, r.IntN(10)),
			fmt.Sprintf(`{"mode": %q}`, []string{"ready", "drain", "maintenance"}[r.IntN(3)]),
			fmt.Sprintf(`{"max_sessions": %d, "max_rate": "%d/s"}`, r.IntN(100), 1+r.IntN(9)),
		}[r.IntN(3)]
		path := fmt.Sprintf("/v1/pools/all/backends/b%d", 1+r.IntN(backends))
		if status, answer, err := node.TryAPI(t.Context(), "PATCH", path, []byte(body)); err != nil || status/100 != 2 {
			t.Errorf("%s: %s %s: %d %s %v", node.Name, path, body, status, answer, err)
		}
	}
}

// differenceOf returns in what the backends of nodes differ; nil if they are equal.
func differenceOf(t *testing.T, nodes []*fleetNode) error {
	t.Helper()
	var first []fleetBackend
	for i, n := range nodes {
		var list struct{ Backends []fleetBackend }
		n.Ask(t, "GET", "/v1/backends", nil, &list)
		if i == 0 {
			first = list.Backends
			continue
		}
		for k, b := range list.Backends {
			if b != first[k] {
				return fmt.Errorf("%s has %+v, and %s has %+v", nodes[0].Name, first[k], n.Name, b)
			}
		}
		if len(list.Backends) != len(first) {
			return errors.New(n.Name + " has another number of backends")
		}
	}
	return nil
}
