package fleet

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// convergeSeed repeats a run of TestConverge.
var convergeSeed = flag.Uint64("converge-seed", 0, "the seed of TestConverge; 0: another one each time")

// TestConverge: whatever nodes change while they lose their connection, are restarted, or the store is wiped, all have
// the same in the end, and etcd has it too. Nothing that etcd has had is lost and, without a wipe, the latest change of
// each key holds.
func TestConverge(t *testing.T) {
	t.Parallel()
	for i := range 3 {
		seed := *convergeSeed
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			t.Logf("-converge-seed %d", seed)
			w := newChaos(t, seed+uint64(i))
			for round := range 4 {
				w.round(t, round%2 == 1)
			}
		})
	}
}

// A chaos is a fleet to which things happen at random.
type chaos struct {
	random *rand.Rand
	server *harness.Etcd
	links  []*harness.SlowLink
	urls   []string
	nodes  []*testNode
	starts int

	latest map[string]Record // of each key, of this round
	held   map[string]Record // the newest one of each key that etcd has had for certain
}

func newChaos(t *testing.T, seed uint64) *chaos {
	w := &chaos{random: rand.New(rand.NewPCG(seed, 1)), server: startEtcd(t), held: make(map[string]Record)}
	for i := range 3 + w.random.IntN(3) {
		link, url := linkTo(t, w.server)
		w.links, w.urls = append(w.links, link), append(w.urls, url)
		w.nodes = append(w.nodes, startNode(t, Options{Node: fmt.Sprintf("n%d", i), Endpoints: []string{url}}))
	}
	return w
}

// round lets things happen, and then waits until all is well.
func (w *chaos) round(t *testing.T, wipes bool) {
	w.latest = make(map[string]Record)
	for range 40 {
		i := w.random.IntN(len(w.nodes))
		switch action := w.random.IntN(20); {
		case action < 12:
			w.change(i)
		case action < 14:
			w.links[i].Cut()
			w.nodes[i].awaitDown(t)
		case action < 16:
			w.links[i].Mend()
		case action < 17:
			w.restart(t, i)
		case action < 18 && wipes:
			w.server.Do(t, "del", "--prefix", "/limeload/")
		default:
			w.nodes[i].awaitQuiet()
		}
	}
	for _, link := range w.links {
		link.Mend()
	}
	w.awaitEqual(t)
	all := w.nodes[0].Records("")
	for key, r := range w.held {
		if r.newer(all[key]) {
			t.Errorf("%s: %+v holds, but etcd has had %+v", key, all[key], r)
		}
	}
	if wipes {
		return
	}
	for key, want := range w.latest {
		if got := all[key]; got.At.Before(want.At) {
			t.Errorf("%s: the change %s of %s at %v holds, want %s of %s at %v",
				key, got.Value, got.Node, got.At, want.Value, want.Node, want.At)
		}
	}
}

// change changes a key on a node, and waits for etcd if that can be reached: the order of changes is then their order
// in time.
func (w *chaos) change(i int) {
	key := Changes + Key("backends", "main", fmt.Sprint(w.random.IntN(6)))
	value := fmt.Sprint(w.random.IntN(1000))
	r := Record{Value: []byte(value), Undone: w.random.IntN(5) == 0}
	w.latest[key] = w.nodes[i].Change(key, r)
	w.nodes[i].awaitQuiet()
	if w.nodes[i].Link().Up {
		if got := w.nodes[i].Records(key)[key]; got.newer(w.held[key]) {
			w.held[key] = got
		}
	}
}

// awaitQuiet waits until etcd has all changes of a node, as long as the node has a connection.
func (n *testNode) awaitQuiet() {
	for n.Link().Up && n.Stats().Pending > 0 {
		time.Sleep(time.Millisecond) // the connection may end at any time, of which nothing tells this goroutine
	}
}

// restart ends a node without leave, and starts it again from what it has saved.
func (w *chaos) restart(t *testing.T, i int) {
	n := w.nodes[i]
	n.kill()
	w.starts++
	next := newNode(Options{
		Node: n.o.Node, Instance: fmt.Sprint("start", w.starts), Before: n.o.Instance, Endpoints: []string{w.urls[i]},
	})
	w.nodes[i] = runNode(t, next, n.Saved())
}

// awaitEqual waits until all nodes and etcd have the same.
func (w *chaos) awaitEqual(t *testing.T) {
	t.Helper()
	awaitNodes(t, len(w.nodes), w.nodes...)
	harness.Eventually(t, "all have the same", func() error {
		for _, n := range w.nodes {
			if s := n.Stats(); s.Pending > 0 || s.Unsaid > 0 {
				return fmt.Errorf("%s: %+v, link %+v", n.o.Node, s, n.Link())
			}
		}
		want := w.nodes[0].Records("")
		for _, n := range w.nodes[1:] {
			got := n.Records("")
			for key := range want {
				if !got[key].same(want[key]) {
					return fmt.Errorf("%s: %+v at %s, %+v at %s", key, got[key], n.o.Node, want[key], w.nodes[0].o.Node)
				}
			}
			if len(got) != len(want) {
				return fmt.Errorf("%d records at %s, %d at %s", len(got), n.o.Node, len(want), w.nodes[0].o.Node)
			}
		}
		return w.compare(t, want)
	})
}

// compare returns what is not in etcd as it is in all nodes.
func (w *chaos) compare(t *testing.T, want map[string]Record) error {
	lines := strings.Split(strings.TrimSpace(w.server.Do(t, "get", "--prefix", "/limeload/edge/"+Changes)), "\n")
	found := 0
	for i := 0; i+1 < len(lines); i += 2 {
		key := strings.TrimPrefix(lines[i], "/limeload/edge/")
		r, is := parseRecord([]byte(lines[i+1]))
		if !is || !r.same(want[key]) {
			return fmt.Errorf("%s: etcd has %s, the nodes have %+v", key, lines[i+1], want[key])
		}
		found++
	}
	if found != len(want) {
		return fmt.Errorf("%d records in etcd, the nodes have %d", found, len(want))
	}
	return nil
}
