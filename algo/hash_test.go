package algo

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// TestHashAddrIsFixed holds values that must never change: a fleet that is upgraded one by one has to agree.
func TestHashAddrIsFixed(t *testing.T) {
	for addr, want := range map[string]uint64{
		"127.0.0.1":       0x228d5b5d61fc2162,
		"10.1.2.3":        0xde97033a93b2c827,
		"::1":             0x8b4fda8c892b50e,
		"2001:db8::1234":  0x70e8c62bba8e79b7,
		"255.255.255.255": 0x54fcf20490173a0b,
	} {
		if got := HashAddr(netip.MustParseAddr(addr)); got != want {
			t.Errorf("HashAddr(%s) = %#x, want %#x", addr, got, want)
		}
	}
	if got, want := HashAddr(netip.Addr{}), uint64(0xa706dd2f4d197e6f); got != want {
		t.Errorf("HashAddr of no address = %#x, want %#x", got, want)
	}
}

func TestHashAddrOfOneClient(t *testing.T) {
	for _, same := range [][2]string{
		{"192.0.2.1", "::ffff:192.0.2.1"},
		{"fe80::1", "fe80::1%eth0"},
	} {
		if a, b := HashAddr(netip.MustParseAddr(same[0])), HashAddr(netip.MustParseAddr(same[1])); a != b {
			t.Errorf("HashAddr(%s) = %#x, HashAddr(%s) = %#x, want the same", same[0], a, same[1], b)
		}
	}
}

// TestHashAddrSpreadsNeighbours puts 65,536 neighbouring addresses into 16 buckets. Of 4,096 expected in each, a fair
// throw is off by more than 8 percent (five standard deviations) about once in a million buckets.
func TestHashAddrSpreadsNeighbours(t *testing.T) {
	for name, base := range map[string]string{"IPv4": "10.0.0.0", "IPv6": "2001:db8::"} {
		var low, high [16]int
		addr := netip.MustParseAddr(base)
		for range 1 << 16 {
			h := HashAddr(addr)
			low[h%16]++
			high[h>>60]++
			addr = addr.Next()
		}
		for i := range low {
			for end, n := range map[string]int{"low": low[i], "high": high[i]} {
				if n < 4096*92/100 || n > 4096*108/100 {
					t.Errorf("%s: bucket %d of the %s bits has %d of 65536, want about 4096", name, i, end, n)
				}
			}
		}
	}
}

func TestMixIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint64().Draw(t, "a"), rapid.Uint64().Draw(t, "b")
		if (a == b) != (Mix(a) == Mix(b)) {
			t.Fatalf("Mix(%#x) = %#x, Mix(%#x) = %#x", a, Mix(a), b, Mix(b))
		}
	})
}

// TestHashNameIsFixed holds keys of names, which must never change, and that they are those of the same text.
func TestHashNameIsFixed(t *testing.T) {
	for _, name := range []string{"", "a", "example.com", "a.very.long.name.of.a.tenant.example.com"} {
		if got, want := HashName([]byte(name)), uint32(hashString(name)>>32); got != want || got == 0 {
			t.Errorf("the key of %q is %#x, want %#x", name, got, want)
		}
	}
	if got := HashName([]byte("example.com")); got != 0xbce14c22 {
		t.Errorf("the key of example.com is %#x", got)
	}
	name := []byte("a.very.long.name.of.a.tenant.example.com")
	if n := testing.AllocsPerRun(100, func() { HashName(name) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
