package conf

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSource: what addresses connections to backends may come from.
func TestSource(t *testing.T) {
	for _, tt := range []struct{ source, backends, want string }{
		{`[]`, `["h:1"]`, ``},
		{`["10.0.0.5", "2001:db8::5", "fe80::1%eth0", "::ffff:10.0.0.6"]`, `["h:1", "10.0.0.1:1", "[2001:db8::1]:1"]`, ``},
		{`"10.0.0.5"`, `["h:1"]`, `pool.p.source: found the string "10.0.0.5"; needs a list of strings`},
		{`[1]`, `["h:1"]`, `pool.p.source[0]: found the integer 1; needs a string`},
		{`["10.0.0.5:0"]`, `["h:1"]`, `pool.p.source[0]: found "10.0.0.5:0"; ` + sourceNeeds},
		{`["10.0.0.0/24"]`, `["h:1"]`, `pool.p.source[0]: found "10.0.0.0/24"; ` + sourceNeeds},
		{`["eth0"]`, `["h:1"]`, `pool.p.source[0]: found "eth0"; ` + sourceNeeds},
		{`[""]`, `["h:1"]`, `pool.p.source[0]: found ""; ` + sourceNeeds},
		{`["0.0.0.0"]`, `["h:1"]`,
			`pool.p.source[0]: found "0.0.0.0"; this is every address; ` + sourceNeeds + `; without source the kernel chooses`},
		{`["224.0.0.1"]`, `["h:1"]`,
			`pool.p.source[0]: found "224.0.0.1"; a multicast or broadcast address is of no use here`},
		{`["fe80::1"]`, `["h:1"]`,
			`pool.p.source[0]: found "fe80::1"; a link-local address needs its interface, as in fe80::1%eth0`},
		{`["10.0.0.5", "::ffff:10.0.0.5"]`, `["h:1"]`,
			`pool.p.source[1]: found "::ffff:10.0.0.5"; pool.p.source[0] is the same address`},
		{`["2001:db8::5"]`, `["10.0.0.1:1"]`,
			`pool.p.backends[0].address: found "10.0.0.1:1"; source has no IPv4 address: nothing can be sent to it`},
		{`["10.0.0.5"]`, `["h:1", "[2001:db8::1]:1"]`,
			`pool.p.backends[1].address: found "[2001:db8::1]:1"; source has no IPv6 address: nothing can be sent to it`},
		{`["10.0.0.5", "oops"]`, `["[2001:db8::1]:1"]`, `pool.p.source[1]: found "oops"; ` + sourceNeeds},
	} {
		_, err := Parse("lb.toml", []byte("listener.l = { pool = 'p', address = ':1' }\n[pool.p]\nsource = "+tt.source+
			"\nbackends = "+tt.backends+"\n"))
		got := ""
		if err != nil {
			got = strings.TrimSpace(err.Error())
			_, got, _ = strings.Cut(got, ": ") // the file and line
		}
		if got != tt.want {
			t.Errorf("%s to %s:\n got %s\nwant %s", tt.source, tt.backends, got, tt.want)
		}
	}
	many := "[" + strings.Repeat(`"10.0.0.5", `, 65) + "]"
	_, err := Parse("lb.toml", []byte("listener.l = { pool = 'p', address = ':1' }\n[pool.p]\nsource = "+many+
		"\nbackends = ['h:1']\n"))
	if err == nil || !strings.Contains(err.Error(), "found a list of 65; allowed is 0 to 64") {
		t.Errorf("65 addresses: %v", err)
	}
}

// TestSourceAddrs: the addresses are there as such, in their order.
func TestSourceAddrs(t *testing.T) {
	c := mustParse(t, "listener.l = { pool = 'p', address = ':1' }\n"+
		"pool.p = { backends = ['h:1'], source = ['::ffff:10.0.0.6', '2001:db8::5'] }\n")
	want := []netip.Addr{netip.MustParseAddr("10.0.0.6"), netip.MustParseAddr("2001:db8::5")}
	if !slices.Equal(c.Pools[0].SourceAddrs, want) {
		t.Errorf("the addresses are %v", c.Pools[0].SourceAddrs)
	}
	next := mustParse(t, "listener.l = { pool = 'p', address = ':1' }\n"+
		"pool.p = { backends = ['h:1'], source = ['10.0.0.7'] }\n")
	diff := c.Compare(next)
	if len(diff) != 1 || Path(diff[0].Keys...) != "pool.p.source" || diff[0].To != `["10.0.0.7"]` {
		t.Errorf("a change of source is %+v", diff)
	}
}

// TestSourceWarnings: what can only be known when names are resolved, and what has no effect.
func TestSourceWarnings(t *testing.T) {
	c := mustParse(t, `listener.l = { pool = "p", address = ":1", protocol = "udp" }
pool.p.backends = ["h:1"]
pool.p.source = ["10.0.0.5"]
pool.p.congestion_control = "bbr"
`)
	c.Pools[0].Backends[0].Addr = netip.MustParseAddrPort("[2001:db8::1]:1")
	want := []string{
		`lb.toml:2: pool.p.backends[0].address: found "h:1"; source has no IPv6 address: nothing can be sent to it`,
		`lb.toml:4: pool.p.congestion_control: found "bbr"; the listeners of this pool speak udp: this key changes nothing`,
	}
	if diff := cmp.Diff(want, c.Warnings()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
