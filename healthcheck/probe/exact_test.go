package probe

import (
	"net"
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/healthcheck"
)

// TestExactAddress: a target with an exact address is checked there, whatever port the checker has. In composites,
// checks with a port use that port.
func TestExactAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	at := netip.MustParseAddrPort(l.Addr().String())
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed.Close()
	nobody := netip.MustParseAddrPort(closed.Addr().String())

	exact := healthcheck.Target{ID: "a", Addr: at, Exact: true}
	for name, c := range map[string]healthcheck.Checker{
		"a port that nobody listens on": TCP{Port: nobody.Port()}, "none": TCP{},
	} {
		if _, err := c.Check(deadlineIn(t, patience), exact); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = AllOf{TCP{}, TCP{Port: nobody.Port()}}.Check(deadlineIn(t, patience), exact)
	failsWith(t, err, "check 2 of 2: connect refused")
	_, err = TCP{Port: nobody.Port()}.Check(deadlineIn(t, patience), healthcheck.Target{ID: "a", Addr: at})
	failsWith(t, err, "connect refused")
}
