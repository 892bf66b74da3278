package wire

import (
	"net/netip"
	"testing"
)

// TestProxyV2 compares headers with the layout in the specification.
func TestProxyV2(t *testing.T) {
	const signature = "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
	for _, tc := range []struct{ client, local, want string }{
		{"192.0.2.1:258", "198.51.100.2:53", signature +
			"\x21\x12\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x01\x02\x00\x35"},
		{"[2001:db8::1]:65535", "[2001:db8::2]:1", signature + "\x21\x22\x00\x24" +
			"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
			"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xff\xff\x00\x01"},
		{"[::ffff:192.0.2.1]:258", "[::ffff:198.51.100.2]:53",
			signature + "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x01\x02\x00\x35"},
	} {
		got := AppendProxyV2([]byte("before"), netip.MustParseAddrPort(tc.client), netip.MustParseAddrPort(tc.local))
		if string(got) != "before"+tc.want {
			t.Errorf("%s to %s: %x", tc.client, tc.local, got)
		}
	}
}
