package daemon

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
)

// restartRows matches the rows of a table whose first cell is a key.
var restartRows = regexp.MustCompile("(?m)^\\| `((?:global|log|admin)\\.[a-z_]+)` \\|")

// TestConfLimits compares the limits for backends in the file with those of package pool, which conf does not import.
func TestConfLimits(t *testing.T) {
	backend := reflect.TypeFor[conf.Backend]()
	tag := func(field, key string) string {
		f, _ := backend.FieldByName(field)
		return strings.ReplaceAll(f.Tag.Get(key), "_", "")
	}
	for field, most := range map[string]int{"Weight": pool.MaxWeight, "MaxSessions": pool.MaxSessionLimit,
		"Tier": pool.MaxTier} {
		if low, high := tag(field, "min"), tag(field, "max"); low != "0" || high != strconv.Itoa(most) {
			t.Errorf("the file allows %s to be %q to %q, and the pool 0 to %d", field, low, high, most)
		}
	}
	for _, text := range []string{"", "1/h burst 10000000", "7/m", "100/s", "1000000/s burst 5", "60000000/m", "0/s",
		"1000001/s", "3600000001/h", "5", "5/d", "5/s burst 0", "5/s burst 10000001", "5/s burst", "1.5/s", " 5/s"} {
		var r conf.Rate
		l, err := pool.ParseMaxRate(text)
		if (err == nil) != (r.UnmarshalText([]byte(text)) == nil) || l != rateLimit(r) || pool.CheckMaxRate(l) != nil {
			t.Errorf("%q is %+v in the file, and %+v, %v for the pool", text, r, l, err)
		}
	}
	var modes []string
	for _, m := range pool.Modes() {
		modes = append(modes, m.String())
	}
	if said := tag("Mode", "oneof"); said != strings.Join(modes, ",") {
		t.Errorf("the file allows the modes %s, and the pool %v", said, modes)
	}
}

// TestOperationsNamesRestartKeys compares the page on operation with the keys that need a restart.
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
	next.Log = conf.Log{Level: "debug", Format: "console", Access: conf.AccessErrors}
	next.Admin.SocketMode = "0600"
	if kept := needsRestart(boot, &next); !slices.Equal(said, kept) {
		t.Errorf("the page says %v, and the process keeps %v", said, kept)
	}
}
