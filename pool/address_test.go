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
		"10.0.0.1:80", "[2001:db8::1]:80", "[fe80::1%eth0]:80", "unix:/run/s", "unix:/run/with space/s:80",
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
		"", "10.0.0.1", "unix:", "unix:run/s", "unix:@s", "unix:/run/../s", "unix:/run//s", "unix:/run/", "unix:/a\x00",
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
