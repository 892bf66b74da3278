//go:build netns

package l4_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestNetnsLoop holds which addresses are this host's, and that a session which comes back by one of those is refused.
func TestNetnsLoop(t *testing.T) {
	connectFarEnd(t)
	expect := func(address string, want bool) {
		t.Helper()
		if got := sock.IsLocal(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is this host's: %v, want %v", address, got, want)
		}
	}
	for _, a := range []string{"10.77.0.1", "10.77.0.11", "::ffff:10.77.0.11", "fd77::1", "fd77::11", "127.0.0.5"} {
		expect(a, true)
	}
	for _, a := range []string{"10.77.0.2", "10.77.0.3", "fd77::2", "192.0.2.9"} {
		expect(a, false)
	}

	for _, address := range []string{"10.77.0.1", "10.77.0.11", "fd77::11"} {
		p := newPool(t)
		all := spec(p)
		all.Address, all.DualStack = netip.MustParseAddrPort("[::]:7000"), true
		own := netip.AddrPortFrom(netip.MustParseAddr(address), all.Address.Port())
		s := start(t, l4.Options{Loops: 2, MaxSessions: 100}, all)
		if err := p.Add(pool.Spec{ID: "own", Addr: pool.At(own), Weight: 1}); err != nil { // while it runs
			t.Fatal(err)
		}
		if !refusedWithReset(t, own.String()) {
			t.Errorf("%s: the client got an orderly end", own)
		}
		eventually(t, "all sessions are over", func() bool { return s.Sessions() == 0 })
		if info := s.Listeners()[0]; info.Accepted != 2 || info.Ended[tally.Loop] != 1 {
			t.Errorf("%s: %d sessions, %d of them refused; want 2 and 1", own, info.Accepted, info.Ended[tally.Loop])
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	for _, file := range []string{"/proc/sys/net/ipv4/ip_nonlocal_bind", "/proc/sys/net/ipv6/ip_nonlocal_bind"} {
		if err := os.WriteFile(file, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.WriteFile(file, []byte("0"), 0) }()
	}
	for _, a := range []string{"10.77.0.1", "fd77::1"} {
		expect(a, true)
	}
	for _, a := range []string{"10.77.0.2", "fd77::2"} {
		expect(a, false)
	}
}
