package daemon

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/limeload/limeload-l4/conf"
)

// restartRows are the rows of a table whose first cell is a key.
var restartRows = regexp.MustCompile("(?m)^\\| `((?:global|log|admin)\\.[a-z_]+)` \\|")

// TestOperationsNamesRestartKeys holds the page on operation against what a process keeps for life.
func TestOperationsNamesRestartKeys(t *testing.T) {
	page, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, row := range restartRows.FindAllSubmatch(page, -1) {
		said = append(said, string(row[1]))
	}
	boot := parsed(t, "")
	next := *boot
	next.Global = conf.Global{Workers: 3, MaxSessions: 3, DrainTimeout: 1, DrainDelay: 1, StateFile: "x", Watch: true}
	next.Log = conf.Log{Level: "debug", Format: "console", Access: !boot.Log.Access}
	next.Admin.SocketMode = "0600"
	if kept := needsRestart(boot, &next); !slices.Equal(said, kept) {
		t.Errorf("the page says %v, and the process keeps %v", said, kept)
	}
}
