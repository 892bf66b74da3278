package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// listening is a configuration whose listener a has these lines, from line 2 on.
func listening(lines string) string {
	return "[listener.a]\n" + lines + "\npool = 'p'\n[pool.p]\nbackends = ['10.0.0.1:1']\n"
}

// bindsOf lists where the listeners of a configuration listen.
func bindsOf(c *Config) (texts []string) {
	for _, l := range c.Listeners {
		for _, b := range l.Binds {
			text := fmt.Sprintf("%d %s", b.Element, b.Addr)
			if b.DualStack {
				text += " dual"
			}
			texts = append(texts, text)
		}
	}
	return texts
}

// TestAddressLists holds that an address may be a list, and have a range of ports, and that names are resolved in any
// place.
func TestAddressLists(t *testing.T) {
	for _, tt := range []struct{ address, want string }{
		{`"10.0.0.1:5432"`, "0 10.0.0.1:5432"},
		{`["10.0.0.1:5432"]`, "0 10.0.0.1:5432"},
		{`["10.0.0.1:5432", "[2001:db8::1]:5432"]`, "0 10.0.0.1:5432, 1 [2001:db8::1]:5432"},
		{`[":53", "127.0.0.1:53"]`, "0 [::]:53 dual, 1 127.0.0.1:53"},
		{`":30000-30002"`, "0 [::]:30000 dual, 0 [::]:30001 dual, 0 [::]:30002 dual"},
		{`["lo:1-2", "127.0.0.2:1", "[::1]:7-7"]`, "0 127.0.0.1:1, 0 127.0.0.1:2, 1 127.0.0.2:1, 2 [::1]:7"},
		{`["lo:1", "lo:2"]`, "0 127.0.0.1:1, 1 127.0.0.1:2"},
	} {
		c := mustParse(t, listening("address = "+tt.address))
		if err := c.Resolve(t.Context(), hosts(map[string]string{"lo": "127.0.0.1"}), nil); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(bindsOf(c), ", "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.address, got, tt.want)
		}
		again := mustParse(t, string(c.Effective()))
		if !slices.Equal(again.Listeners[0].Address, c.Listeners[0].Address) || len(c.Compare(again)) > 0 {
			t.Errorf("%s: effective is %s", tt.address, c.Effective())
		}
	}
	one, other := mustParse(t, listening(`address = ":1"`)), mustParse(t, listening(`address = [":1", ":2-3"]`))
	if d := one.Compare(other); len(d) != 1 || d[0].From != `":1"` || d[0].To != `[":1", ":2-3"]` {
		t.Errorf("compared: %+v", d)
	}
	names := mustParse(t, listening(`address = ["lo:1", "lo:2-3", ":9"]`))
	if err := names.Resolve(t.Context(), hosts(map[string]string{"lo": "127.0.0.1"}), nil); err != nil {
		t.Fatal(err)
	}
	if got := names.Listeners[0].AddressText(); got != "lo:1 (127.0.0.1:1), lo:2-3 (127.0.0.1), :9" {
		t.Errorf("addresses are %s", got)
	}
	kept := mustParse(t, listening(`address = ["lo:1", "lo:2-3"]`))
	if err := kept.Resolve(t.Context(), hosts(nil), names); err != nil {
		t.Fatal(err)
	}
	if got := kept.Listeners[0].Binds[2].Addr; got != netip.MustParseAddrPort("127.0.0.1:3") {
		t.Errorf("a name that is not resolved any more: %s", got)
	}
}

// TestAddressListMistakes holds that mistakes name the element and its line.
func TestAddressListMistakes(t *testing.T) {
	const needs = `; needs "HOST:PORT", "[IPV6]:PORT", ":PORT" for all addresses, or "unix:PATH"`
	for _, tt := range []struct {
		lines string
		want  []string
	}{
		{"address = []", []string{
			`2: listener.a.address: found an empty list; needs an address, such as "127.0.0.1:6379", "[::]:6379" or ":6379"`}},
		{"address = [':1',\n'x', 5]", []string{`3: listener.a.address[1]: found "x"; the port is missing` + needs,
			`3: listener.a.address[2]: found the integer 5; needs a string`}},
		{"address = ['10.0.0.2:1',\n':2',\n'0.0.0.0:2']", []string{
			`4: listener.a.address[2]: found "0.0.0.0:2"; listener.a.address[1] on line 3, ":2", has this address already`}},
		{"address = [':1-9',\n':5']", []string{
			`3: listener.a.address[1]: found ":5"; listener.a.address[0] on line 2, ":1-9", has this address already`}},
		{"address = [':1-9',\n':5-20']", []string{
			`3: listener.a.address[1]: found ":5-20"; listener.a.address[0] on line 2, ":1-9", has this address already`}},
		{"address = ['lo:1',\n'LO:1']", []string{
			`3: listener.a.address[1]: found "LO:1"; listener.a.address[0] on line 2, "lo:1", has this address already`}},
		{"address = ':9-8'", []string{
			`2: listener.a.address: found ":9-8"; the range ends before it begins, at 9; needs "FIRST-LAST"`}},
		{"address = ':9-'", []string{`2: listener.a.address: found ":9-"; the last port is ""; allowed is 1 to 65535`}},
		{"address = ':9-70000'", []string{
			`2: listener.a.address: found ":9-70000"; the last port is "70000"; allowed is 1 to 65535`}},
		{"address = ':0-5'", []string{`2: listener.a.address: found ":0-5"; the port is "0"; allowed is 1 to 65535`}},
		{"address = ':1-1025'", []string{
			`2: listener.a.address: found ":1-1025"; with it the listener has 1025 addresses and ports; allowed is 1024`}},
		{"address = [':1-1000',\n':2000-2099']", []string{
			`3: listener.a.address[1]: found ":2000-2099"; with it the listener has 1100 addresses and ports; allowed is 1024`}},
		{"address = [" + strings.Repeat("':1',", 65) + "]", []string{`2: listener.a.address: found a list of 65; allowed is 1 to 64`}},
	} {
		for i := range tt.want {
			tt.want[i] = "lb.toml:" + tt.want[i]
		}
		wantErrors(t, listening(tt.lines), tt.want...)
	}
	// between listeners
	wantErrors(t, "listener.b = { address = ['10.0.0.1:5', ':7'], pool = 'p' }\n"+listening("address = ['10.0.0.2:5',\n'10.0.0.1:4-6']"),
		`lb.toml:4: listener.a.address[1]: found "10.0.0.1:4-6"; listener.b.address[0] on line 1, "10.0.0.1:5", has this address already`)
}

// TestBothProtocols holds what a listener of both protocols may have.
func TestBothProtocols(t *testing.T) {
	const both = "address = ':53'\nprotocol = 'tcp+udp'\n"
	wantErrors(t,
		"[pool.p]\nbackends = ['10.0.0.1:1']\n[listener.a]\npool = 'p'\n"+both+
			"profile = 'dns'\nidle_timeout = '9s'\nflow_timeout = '9s'\nmax_sessions = 5\nmax_flows = 6\n[listener.a.cache]\nmax_entries = 10\n")
	wantErrors(t, listening(both), `lb.toml:3: listener.a.protocol: found "tcp+udp"; it is for name services; `+
		`needs profile = "dns" beside it, or a listener for each protocol`)
	wantErrors(t, listening(both+"profile = 'redis'"), `lb.toml:4: listener.a.profile: found "redis"; `+
		`protocol is "tcp+udp"; needs protocol = "tcp", or another profile`)
	for _, protocol := range []string{"tcp", "udp"} {
		wantErrors(t, "listener.b = { address = ':53', pool = 'p', protocol = '"+protocol+"' }\n"+listening(both+"profile = 'dns'"),
			`lb.toml:3: listener.a.address: found ":53"; listener.b.address on line 1, ":53", has this address already`)
	}
	c := mustParse(t, listening(both+"profile = 'dns'"))
	if l := &c.Listeners[0]; l.RefuseWith != "protocol" || !slices.Equal(l.Protocols(), []string{"tcp", "udp"}) {
		t.Errorf("refuse_with is %q, protocols are %q", l.RefuseWith, l.Protocols())
	}
}
