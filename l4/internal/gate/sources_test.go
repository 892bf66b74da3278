package gate

import (
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// TestPortAddresses holds that the sources of UDP listeners add ports only if all of them have sources.
func TestPortAddresses(t *testing.T) {
	of := func(p sock.Protocol, sources ...string) Sharer {
		s := Sharer{Protocol: p}
		for _, a := range sources {
			s.Sources = append(s.Sources, netip.MustParseAddr(a))
		}
		return s
	}
	for _, tt := range []struct {
		among []Sharer
		want  int64
	}{
		{nil, 1},
		{[]Sharer{of(sock.UDP)}, 1},
		{[]Sharer{of(sock.TCP, "10.0.0.1", "10.0.0.2")}, 1},
		{[]Sharer{of(sock.UDP, "10.0.0.1")}, 1},
		{[]Sharer{of(sock.UDP, "10.0.0.1", "10.0.0.2"), of(sock.TCP)}, 2},
		{[]Sharer{of(sock.UDP, "10.0.0.1", "10.0.0.2"), of(sock.UDP, "10.0.0.2", "10.0.0.3")}, 3},
		{[]Sharer{of(sock.UDP, "10.0.0.1", "10.0.0.2"), of(sock.UDP)}, 1},
		{[]Sharer{of(sock.UDP, "10.0.0.1", "2001:db8::1", "2001:db8::2")}, 2},
	} {
		if got := portAddresses(tt.among); got != tt.want {
			t.Errorf("%+v: %d, want %d", tt.among, got, tt.want)
		}
	}
}
