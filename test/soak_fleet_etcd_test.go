//go:build soak

package test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestSoakFleetEtcd has etcd without a majority for a minute, under traffic through every node.
func TestSoakFleetEtcd(t *testing.T) {
	f := startEtcdFailures(t)
	f.change(t, f.nodes[0])
	f.everywhere(t)
	f.majorityLost(t, time.Minute)
	f.whole(t)
	f.everywhere(t)
	f.traffic.flows(t)
}

// TestSoakFleetCost prints what a node costs with and without a fleet: memory, threads and descriptors, once it has
// nothing to do.
func TestSoakFleetCost(t *testing.T) {
	server := harness.StartEtcd(t)
	info, err := os.Stat(harness.Binary(t, true))
	check(t, err)
	t.Logf("the binary has %d bytes", info.Size())
	backend := harness.Serve(t, harness.Echo).Address()
	measure := func(name, table string) float64 {
		config := world{Backends: []string{backend}}.config(t) + table
		b := harness.StartBalancerWith(t, harness.BalancerOptions{Config: config, Measured: true, Killed: true})
		time.Sleep(10 * time.Second) // a node at rest is what is measured
		figures := metrics(t, b)
		memory, routines := memoryOf(t, b.PID()), figures["go_goroutines"]
		t.Logf("%s: %.1f MiB of own memory, %.0f goroutines, %d descriptors", name, float64(memory)/(1<<20), routines,
			descriptorsOf(t, b.PID()))
		return routines
	}
	without := measure("without a fleet", "")
	fleet := fmt.Sprintf("[fleet]\nname = \"edge\"\nnode = \"n1\"\nendpoints = [%q]\n", server.Endpoint)
	if with := measure("in a fleet of one node", fleet); with <= without {
		t.Errorf("%.0f goroutines with a fleet, %.0f without: nothing of it runs", with, without)
	}
}
