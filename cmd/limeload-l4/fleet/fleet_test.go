package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// startNode starts a node of a fleet, which ends with the test.
func startNode(t *testing.T, endpoints []string, name string) *Fleet {
	t.Helper()
	f := New(Options{Name: "edge", Node: name, Instance: name, Endpoints: endpoints, Prefix: "/limeload/"})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		f.Leave(context.Background())
	})
	return f
}

// TestShared: what one node says and changes, the others know.
func TestShared(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	var nodes []*Fleet
	for i := range 3 {
		f := startNode(t, []string{server.Endpoint}, fmt.Sprintf("n%d", i))
		value, err := json.Marshal(Node{Instance: f.o.Instance})
		if err != nil {
			t.Fatal(err)
		}
		f.Say(Nodes+Key(f.Node()), value)
		nodes = append(nodes, f)
	}
	key := Changes + Key("backends", "main", "b/1", "mode")
	nodes[0].Change(key, Record{By: "root", Value: json.RawMessage(`"drain"`)})
	harness.Eventually(t, "all know", func() error {
		for _, f := range nodes {
			if n := f.Nodes(); len(n) != len(nodes) {
				return fmt.Errorf("%s knows %d nodes", f.Node(), len(n))
			}
			if r := f.Records(Changes)[key]; string(r.Value) != `"drain"` || r.Node != "n0" || r.Serial != 1 {
				return fmt.Errorf("%s has %v", f.Node(), r)
			}
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := nodes[0].Settle(ctx, key); err != nil {
		t.Error(err)
	}
}
