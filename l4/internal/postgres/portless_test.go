package postgres_test

import (
	"io"
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
)

// TestCancelWithoutPort holds that a cancel for a backend without a port goes to the port of its session, whatever port
// it has come to; and with a key that nobody knows, to the port that it has come to.
func TestCancelWithoutPort(t *testing.T) {
	one, two := serve(t, 4), serve(t, 4)
	local := netip.MustParseAddr("127.0.0.2")
	first := netip.AddrPortFrom(local, addrPort(one.address).Port())
	second := netip.AddrPortFrom(local, addrPort(two.address).Port())
	p := l4test.NewPool(t)
	at := pool.At(netip.AddrPortFrom(addrPort(one.address).Addr(), 0))
	if err := p.Add(pool.Spec{ID: "both", Addr: at, Weight: 1}); err != nil {
		t.Fatal(err)
	}
	x := startWith(t, p, func(spec *l4.ListenerSpec) {
		spec.Address, spec.More = first, []l4.Place{{Address: second}}
	}, one, two)
	send := func(to netip.AddrPort, text string) io.ReadCloser {
		c := l4test.Dial(t, to.String())
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		return c
	}
	session := l4test.Dial(t, second.String())
	if _, err := io.WriteString(session, startup); err != nil {
		t.Fatal(err)
	}
	key := readKey(t, session)
	for _, to := range []netip.AddrPort{first, second} {
		if _, err := io.ReadAll(send(to, cancelRequest(key))); err != nil {
			t.Fatal(err)
		}
		x.wantCancels(t, nil, []string{key})
	}
	if _, err := io.ReadAll(send(first, cancelRequest("forgedkey"))); err != nil {
		t.Fatal(err)
	}
	x.wantCancels(t, []string{"forgedkey"}, nil)
}
