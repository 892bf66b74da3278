package daemon

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
)

// nodesOf returns ready nodes n0, n1 and so on with these rates.
func nodesOf(rates ...float64) []fleet.Node {
	var all []fleet.Node
	for i, r := range rates {
		all = append(all, fleet.Node{Name: fmt.Sprintf("n%d", i), Ready: true, Rate: r})
	}
	return all
}

// divisions are those of n nodes.
func divisions(n int, byTraffic bool) []*division {
	var all []*division
	for _, node := range nodesOf(make([]float64, n)...) {
		all = append(all, &division{self: node.Name, byTraffic: byTraffic})
	}
	return all
}

// TestDivisionByNodes holds what share a node has as nodes come and go: a smaller one at once, a larger one only when
// the nodes have been the same for a while.
func TestDivisionByNodes(t *testing.T) {
	now := time.Now()
	d := division{self: "n0"}
	look := func(what string, after time.Duration, nodes []fleet.Node, want float64) {
		t.Helper()
		now = now.Add(after)
		d.look(nodes, now)
		if math.Abs(d.share-want) > 1e-9 {
			t.Errorf("%s: the share is %v, want %v", what, d.share, want)
		}
	}
	three := nodesOf(0, 0, 0)
	notReady := nodesOf(0, 0, 0)
	notReady[0].Ready, notReady[2].Ready = false, false
	look("before etcd has this node", 0, three[1:], 1.0/3)
	look("three nodes", time.Second, three, 1.0/3)
	look("a node comes", time.Second, nodesOf(0, 0, 0, 0), 1.0/4)
	look("it leaves", time.Second, three, 1.0/4)
	look("for 4 seconds", 4*time.Second, three, 1.0/4)
	look("for 5 seconds", time.Second, three, 1.0/3)
	look("etcd is empty", time.Second, nil, 1.0/3)
	look("and full again", 4*time.Second, three, 1.0/3)
	look("for a while", 9*time.Second, three, 1.0/3)
	look("nodes that are not ready do not count, but this one does", time.Second, notReady, 1.0/3)
	look("for a while", 6*time.Second, notReady, 1.0/2)
	d.pause()
	look("after a loss of the connection", time.Hour, nil, 1.0/2)
	look("the other one is back", time.Second, notReady, 1.0/2)
	look("for a while", 6*time.Second, notReady, 1.0/2)
	var many []fleet.Node
	for i := range 20_000 {
		many = append(many, fleet.Node{Name: fmt.Sprintf("m%d", i), Ready: true})
	}
	look("more nodes than there can be", time.Second, many, leastShare)
}

// TestDivisionByTraffic holds that the shares follow the traffic, add up to 1 all the time, and leave each node some.
func TestDivisionByTraffic(t *testing.T) {
	now := time.Now()
	nodes := divisions(4, true)
	look := func(what string, after time.Duration, said []fleet.Node, want ...float64) {
		t.Helper()
		var sum float64
		for until := now.Add(after); now.Before(until); {
			now, sum = now.Add(time.Second), 0
			for _, d := range nodes {
				d.look(said, now)
				sum += d.share
			}
			if math.Abs(sum-1) > 1e-9 {
				t.Fatalf("%s: the shares add up to %v", what, sum)
			}
		}
		for i, w := range want {
			if math.Abs(nodes[i].share-w) > 0.01 {
				t.Errorf("%s: node %d has %.3f, want %.3f", what, i, nodes[i].share, w)
			}
		}
	}
	even := 1.0 / 16
	look("no traffic", 10*time.Second, nodesOf(0, 0, 0, 0), 0.25, 0.25, 0.25, 0.25)
	look("one has all", time.Second, nodesOf(100, 0, 0, 0), 0.25+0.0952*(0.8125-0.25))
	look("for long", 90*time.Second, nodesOf(100, 0, 0, 0), even+0.75, even, even, even)
	look("two have it", 90*time.Second, nodesOf(30, 10, 0, 0), even+0.5625, even+0.1875, even, even)
	look("nonsense of one", 90*time.Second, nodesOf(30, -5, 0, 0), even+0.75, even, even, even)
	look("more of it", 90*time.Second, nodesOf(30, math.MaxFloat64, 0, 0), even, even+0.75, even, even)

	// A node that comes is heard of by all at once, and gets its part at once.
	d, comes := nodes[1], &division{self: "n4", byTraffic: true}
	said := nodesOf(30, 10, 0, 0, 0)
	d.look(said, now)
	comes.look(said, now)
	if comes.share != 0.05 || d.share > 0.05+0.1876 {
		t.Errorf("a node that comes has %v, and the one of before %v", comes.share, d.share)
	}
}
