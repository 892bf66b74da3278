package probe

import (
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/healthcheck"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // see HTTP
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if left, err := unprovoked(); code == 0 && (err != nil || len(left) > 0) {
			fmt.Fprintf(os.Stderr, "failures in %s that no test provokes: %q, %v\n", healthDocument, left, err)
			code = 1
		}
		os.Exit(code)
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// target returns a target that no test connects to.
func target(id string) healthcheck.Target {
	return healthcheck.Target{ID: id, Addr: netip.MustParseAddrPort("127.0.0.1:1")}
}
