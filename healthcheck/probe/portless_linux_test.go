package probe

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/limeload/limeload-l4/healthcheck"
)

// TestPortless holds that a check without a port finds nothing out about an address without one, and says so.
func TestPortless(t *testing.T) {
	to := healthcheck.Target{Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)}
	const words = "cannot check: the backend's address has no port, and the check has none"
	for _, c := range []healthcheck.Checker{TCP{}, UDP{}, HTTP{}, Redis{}} {
		_, err := c.Check(deadlineIn(t, patience), to)
		failsWith(t, err, words, healthcheck.ErrInconclusive)
	}
	env := Exec{}.environment(to)
	for _, want := range []string{"LIMELOAD_ADDRESS=127.0.0.1", "LIMELOAD_HOST=127.0.0.1", "LIMELOAD_PORT="} {
		if !slices.Contains(env, want) {
			t.Errorf("there is no %s in %q", want, env)
		}
	}
}
