package pool

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestAddressText(t *testing.T) {
	for _, text := range []string{
		"10.0.0.1:80", "[2001:db8::1]:80", "[fe80::1%eth0]:80", "10.0.0.1", "[2001:db8::1]", "[fe80::1%eth0]",
		"unix:/run/s", "unix:/run/with space/s:80",
		"unix:/" + strings.Repeat("x", MaxPathBytes-1),
	} {
		a, err := ParseAddress(text)
		if err != nil || a.String() != text || string(a.AppendTo(nil)) != text || !a.IsValid() || !a.connectable() {
			t.Errorf("%s is read as %v, %v", text, a, err)
		}
		marshalled, err := a.MarshalText()
		var again Address
		if err != nil || again.UnmarshalText(marshalled) != nil || again != a {
			t.Errorf("%s is %s, and read as %v", text, marshalled, again)
		}
	}
	for _, text := range []string{
		"", "h", "2001:db8::1", "[10.0.0.1]", "10.0.0.1:0", "10.0.0.1:", "[::1]:0", "[]", "unix:", "unix:run/s", "unix:@s", "unix:/run/../s", "unix:/run//s", "unix:/run/", "unix:/a\x00",
		"unix:/a\nb", "unix:/\xff", "unix:/" + strings.Repeat("x", MaxPathBytes),
	} {
		if a, err := ParseAddress(text); err == nil {
			t.Errorf("%q is read as %v", text, a)
		}
	}
	if empty := new(Address); empty.UnmarshalText(nil) != nil || empty.IsValid() || empty.connectable() {
		t.Errorf("an empty text is %v", empty)
	}
}

// TestAddressWithPort holds that only an IP address without a port gets one.
func TestAddressWithPort(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:443", "[::1]": "[::1]:443", "10.0.0.1:80": "10.0.0.1:80", "unix:/run/s": "unix:/run/s",
	} {
		a, err := ParseAddress(text)
		if got := a.WithPort(443); err != nil || got.String() != want || a.IsPortless() != (got != a) {
			t.Errorf("%s gets %v, want %s: %v", text, got, want, err)
		}
	}
	if none := (Address{}); none.WithPort(443) != none {
		t.Error("no address gets a port")
	}
}

// TestPortlessBackends holds that an address without a port is another one than the same with a port, and is taken once.
func TestPortlessBackends(t *testing.T) {
	p := newPool(t, "round_robin")
	ip := netip.MustParseAddr("10.0.0.1")
	one := Spec{ID: "a", Addr: At(netip.AddrPortFrom(ip, 0)), Weight: 1}
	other := Spec{ID: "b", Addr: At(netip.AddrPortFrom(ip, 80)), Weight: 1}
	if err := p.Add(one, other); err != nil {
		t.Fatal(err)
	}
	one.ID = "c"
	if err := p.Add(one); !errors.Is(err, ErrDuplicateAddress) {
		t.Errorf("the same address again: %v", err)
	}
}

func TestAddressOrder(t *testing.T) {
	want := []Address{
		{Path: "/a"}, {Path: "/b"}, At(netip.MustParseAddrPort("10.0.0.1:2")), At(netip.MustParseAddrPort("10.0.0.2:1")),
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	if slices.SortFunc(got, Address.Compare); !slices.Equal(got, want) {
		t.Errorf("in order: %v", got)
	}
}

// TestUnixBackends holds that a Unix socket is as good an address as another one: it is taken once, and a backend that
// moves to another one is replaced.
func TestUnixBackends(t *testing.T) {
	p := newPool(t, "round_robin")
	a := Spec{ID: "a", Addr: Address{Path: "/run/a"}, Weight: 1}
	if err := p.Add(a); err != nil {
		t.Fatal(err)
	}
	twin := a
	twin.ID = "b"
	if err := p.Add(twin); !errors.Is(err, ErrDuplicateAddress) || !strings.Contains(err.Error(), "unix:/run/a") {
		t.Errorf("a second one at the address: %v", err)
	}
	both := a
	both.ID, both.Addr.AddrPort = "c", netip.MustParseAddrPort("10.0.0.1:80")
	for _, bad := range []Spec{both, {ID: "d", Addr: Address{Path: "run/d"}, Weight: 1}} {
		var invalid *InvalidBackendError
		if err := p.Add(bad); !errors.As(err, &invalid) || invalid.Field != "addr" {
			t.Errorf("%v is added: %v", bad.Addr, err)
		}
	}
	if _, err := p.Reconcile(Configuration, []Spec{a}); err != nil {
		t.Fatal(err)
	}
	a.Addr.Path = "/run/b"
	r, err := p.Reconcile(Configuration, []Spec{a})
	if err != nil || r.Changed != 1 || p.Backends()[0].Addr != a.Addr {
		t.Errorf("after a move: %+v, %v, %v", r, p.Backends(), err)
	}
}
