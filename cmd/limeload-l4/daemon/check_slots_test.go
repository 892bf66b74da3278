package daemon

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/healthcheck"
)

// TestCheckSlots shares out limits of descriptors.
func TestCheckSlots(t *testing.T) {
	for limit, want := range map[uint64]checkSlots{
		0:              {32, 4},
		200:            {32, 4},
		1024:           {64, 8},
		1 << 20:        {512, 32},
		math.MaxUint64: {512, 32},
	} {
		if got := checkSlotsFor(limit); got != want {
			t.Errorf("of %d descriptors: %+v, want %+v", limit, got, want)
		}
	}
	if got := checkSlotsFor(1024).descriptors(); got > 1024/8 {
		t.Errorf("the checks have %d of 1024 descriptors, want an eighth at most", got)
	}
}

// TestBlindnessIsLoggedOnceForAPool: 1,000 backends of one pool whose checks find nothing out cause one line.
func TestBlindnessIsLoggedOnceForAPool(t *testing.T) {
	var out bytes.Buffer
	d := &Daemon{log: zerolog.New(&out)}
	var all []healthcheck.Blindness
	for i := range 1000 {
		all = append(all, healthcheck.Blindness{
			Target: healthcheck.Target{ID: fmt.Sprintf("web/b%d", i), Group: "web", Name: fmt.Sprintf("b%d", i)},
			Since:  time.Now(), Reason: "cannot check: too many open files",
		})
	}
	d.logBlindness(append(all, healthcheck.Blindness{
		Target: healthcheck.Target{ID: "db/a", Group: "db", Name: "a"}, Since: time.Now(),
		Reason: "connected", Over: true,
	}))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, want := range []string{
		`"level":"warn","pool":"web","backend":"b0","backends":1000,"reason":"cannot check: too many open files"`,
		`"level":"info","pool":"db","backend":"a","backends":1,"reason":"connected"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line with %s in %q", want, lines)
		}
	}
	if len(lines) != 2 {
		t.Errorf("%d lines, want one for each pool", len(lines))
	}
}
