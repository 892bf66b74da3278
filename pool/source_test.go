package pool

import (
	"net/netip"
	"slices"
	"testing"
)

// TestSources holds that a pool has the sources of each family apart, mapped addresses as IPv4, and others after
// Reconfigure; and that addresses which cannot be one are refused.
func TestSources(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("2001:db8::5")
	mapped := netip.MustParseAddr("::ffff:10.0.0.6")
	o := Options{Name: "p", Algorithm: "round_robin"}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	want := func(to netip.Addr, only bool, addrs ...netip.Addr) {
		t.Helper()
		if got, is := p.Sources(to); is != only || !slices.Equal(got, addrs) {
			t.Errorf("to %v: %v (%v), want %v (%v)", to, got, is, addrs, only)
		}
	}
	want(v4, false)
	o.Source = []netip.Addr{v4, v6, mapped}
	if err := p.Reconfigure(o); err != nil {
		t.Fatal(err)
	}
	want(v4, true, v4, mapped.Unmap())
	want(mapped, true, v4, mapped.Unmap())
	want(v6, true, v6)
	o.Source = []netip.Addr{v6}
	if err := p.Reconfigure(o); err != nil {
		t.Fatal(err)
	}
	want(v4, true) // and so nothing can be sent there
	if !slices.Equal(p.Source(), o.Source) {
		t.Errorf("Source returns %v", p.Source())
	}
	for _, bad := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		o.Source = []netip.Addr{v4, bad}
		if err := CheckOptions(o); err == nil {
			t.Errorf("%v passes for a source", bad)
		}
	}
}

// TestLoopbackCongestionControl holds that loopback has its own algorithm only as long as none is configured.
func TestLoopbackCongestionControl(t *testing.T) {
	for _, test := range []struct{ configured, loopback, other string }{{"", "reno", ""}, {"cubic", "cubic", "cubic"}} {
		p, err := New(Options{Name: "p", Algorithm: "round_robin", CongestionControl: test.configured,
			LoopbackCongestionControl: "reno"})
		if err != nil {
			t.Fatal(err)
		}
		for to, want := range map[string]string{
			"127.0.0.5": test.loopback, "::1": test.loopback, "10.0.0.5": test.other, "2001:db8::5": test.other,
		} {
			if got := p.CongestionControl(netip.MustParseAddr(to)); got != want {
				t.Errorf("configured %q, to %s: %q, want %q", test.configured, to, got, want)
			}
		}
	}
}

// TestTurn holds that a backend counts its turns.
func TestTurn(t *testing.T) {
	b := new(Backend)
	for want := range uint32(3) {
		if got := b.Turn(); got != want {
			t.Errorf("turn %d is %d", want, got)
		}
	}
}
