// Package counts is the guard of what does not drift with the machine: how many system calls and heap allocations the
// built binary makes for a request, a connection, a flow, a datagram and a DNS question. TestCounts compares them with
// testdata/counts.json. It compares no times; test/bench does.
//
// Each case does one unit of work after the other, and waits after each step until the balancer sleeps again. So
// nothing overlaps, and the counts are the same in every run. What really differs from run to run is not counted, or
// has a stated tolerance: see uncounted and tolerance.
//
// With -update the counts are written, also those of HAProxy and nginx, and with them the table in docs/performance.md.
package counts

import (
	"flag"
	"os"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// update makes TestCounts write what it finds.
var update = flag.Bool("update", false, "write testdata/counts.json and the table in docs/performance.md")

func TestMain(m *testing.M) { os.Exit(harness.Main(m, nil)) }

// check fails the test at once if err is not nil.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
