package pool

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestValidZone(t *testing.T) {
	for _, zone := range []string{"eth0", "2", "eth0.100", "br-a1b2c3d4e5f6", "wg0", "veth1@x", "a_b+c"} {
		if !ValidZone(zone) {
			t.Errorf("%q is refused", zone)
		}
	}
	for _, zone := range []string{"", ".", "..", "eth 0", "a/b", "a:b", "a%b", "a]b", `a"b`, "a\\b", "eth0\x1b",
		"\x1b[31m", "a\nb", "\u202eeth0", "é", "a\x00", "a\x7f", strings.Repeat("a", 16)} {
		if ValidZone(zone) {
			t.Errorf("%q is taken", zone)
		}
		if zone == "" {
			continue
		}
		p, err := New(Options{Name: "p", Algorithm: "round_robin"})
		if err != nil {
			t.Fatal(err)
		}
		err = p.Add(Spec{ID: "b", Addr: At(netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(zone), 80)),
			Weight: 1})
		var invalid *InvalidBackendError
		if !errors.As(err, &invalid) || invalid.Field != "addr" {
			t.Errorf("a backend with the zone %q gives %v", zone, err)
		}
	}
}
