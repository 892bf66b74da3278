package conf

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestPortless holds which backends may lack the port, and that nothing else may.
func TestPortless(t *testing.T) {
	const needs = `; needs "HOST:PORT" or "[IPV6]:PORT"`
	for _, tt := range []struct{ listener, pool, want string }{
		{"", `backends = ["10.0.0.7", "[2001:db8::7]", "redis.internal", "Localhost"]`, ""},
		{"", `backends = ["10.0.0.7", "10.0.0.7:53"]`, ""},
		{"protocol = 'udp'", `backends = ["10.0.0.7"]`, ""},
		{"", `backends = ["10.0.0.7", "10.0.0.7"]`, `backends[1].address: found "10.0.0.7"; pool.p.backends[0] on line`},
		{"", `backends = ["[::ffff:10.0.0.7]", "10.0.0.7"]`, `has the same address`},
		{"", `backends = ["2001:db8::7"]`, `found "2001:db8::7"; the port is missing`},
		{"", `backends = ["10.0.0.7:"]`, `the port is ""`},
		{"", `backends = ["10.0.0.7:0"]`, `the port is "0"`},
		{"", `backends = ["[10.0.0.7"]`, `found "[10.0.0.7"`},
		{"", `backends = ["[]"]`, `found "[]"`},
		{"", `backends = [""]`, `found ""`},
		{"", `backends = ["0.0.0.0"]`, `this address can be listened on but not connected to`},
		{"", `backends = ["10.0.0.300"]`, `found "10.0.0.300"`},
		{"", `backends = [{ address = "10.0.0.7", check = "10.0.0.7" }]`, `check: found "10.0.0.7"; the port is missing`},
		{"profile = 'dns'", `backends = ["10.0.0.7"]`, `pool.p.backends[0].address: found "10.0.0.7"; ` +
			`the port is missing: listener.l asks it on behalf of all its clients together` + needs},
		{"", "backends = ['10.0.0.7']\n[listener.u]\naddress = 'unix:/run/s'\npool = 'p'", `pool.p.backends[0].address: ` +
			`found "10.0.0.7"; the port is missing: listener.u listens at a Unix socket, which has none` + needs},

		{"", "backends = ['10.0.0.1:1', '10.0.0.7']\nhealth = {}", `pool.p.health.port: pool.p.backends[1] has no port, ` +
			`and so the check has none; needs a port to check, or check = "IP:PORT" in pool.p.backends[1]`},
		{"", "backends = ['redis.internal']\nhealth = { type = 'redis' }", `pool.p.health.port: pool.p.backends[0] has`},
		{"", "backends = ['10.0.0.7']\nhealth = { type = 'any_of', checks = [{ type = 'icmp' }, { type = 'tcp' }] }",
			`pool.p.health.checks[1].port: pool.p.backends[0] has no port`},
		{"", "backends = ['10.0.0.7']\nhealth = { port = 80 }", ""},
		{"", "backends = [{ address = '10.0.0.7', check = '10.0.0.7:80' }]\nhealth = {}", ""},
		{"", "backends = ['10.0.0.7']\nhealth = { type = 'icmp' }", ""},
		{"", "backends = ['10.0.0.7']\nhealth = { type = 'exec', command = ['/bin/true'] }", ""},
	} {
		text := fmt.Sprintf("[listener.l]\naddress = ':53-54'\npool = 'p'\n%s\n[pool.p]\n%s\n", tt.listener, tt.pool)
		_, err := Parse("lb.toml", []byte(text))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: %v, want %q", tt.listener, tt.pool, err, tt.want)
		}
	}
}

// TestPortlessAddresses holds what such addresses are read as, and that a name without a port is looked up.
func TestPortlessAddresses(t *testing.T) {
	c := mustParse(t, `listener.l = { address = ":1", pool = "p" }
pool.p.backends = ["[2001:DB8::7]", "redis.internal"]`)
	lookup := func(_ context.Context, _, host string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.0.0.7")}, nil
	}
	if err := c.Resolve(t.Context(), lookup, nil); err != nil {
		t.Fatal(err)
	}
	ip, name := c.Pools[0].Backends[0], c.Pools[0].Backends[1]
	if ip.Addr != netip.AddrPortFrom(netip.MustParseAddr("2001:db8::7"), 0) || ip.Host() != "2001:db8::7" {
		t.Errorf("an IPv6 address is %v of %s", ip.Addr, ip.Host())
	}
	if name.Addr != netip.AddrPortFrom(netip.MustParseAddr("10.0.0.7"), 0) || name.Host() != "redis.internal" {
		t.Errorf("a name is %v of %s", name.Addr, name.Host())
	}
	if got := ResolvedText(name.Address, name.Addr); got != "redis.internal (10.0.0.7)" {
		t.Errorf("it is shown as %s", got)
	}
	if got := ResolvedText(ip.Address, ip.Addr); got != ip.Address {
		t.Errorf("the IPv6 address is shown as %s", got)
	}
	twice := mustParse(t, `listener.l = { address = ":1", pool = "p" }
pool.p.backends = ["10.0.0.7", "redis.internal"]`)
	if err := twice.Resolve(t.Context(), lookup, nil); err != nil || len(twice.Unresolved()) != 1 ||
		!strings.Contains(twice.Unresolved().Error(), "its address is 10.0.0.7; pool.p.backends[0]") {
		t.Errorf("a name of another backend's address: %v, %v", err, twice.Unresolved())
	}
}

// TestPortlessLoops holds that a backend without a port leads back through any port of its listeners.
func TestPortlessLoops(t *testing.T) {
	wantErrors(t, `listener.a = { pool = "p", address = "127.0.0.1:1-9" }
pool.p.backends = ["127.0.0.2", "127.0.0.1"]`,
		`lb.toml:2: pool.p.backends[1].address: found "127.0.0.1"; listener.a.address on line 1, "127.0.0.1:1-9", `+
			`listens there and sends its clients to this pool: each session makes another`)
	wantErrors(t, `listener.a = { pool = "p", address = "127.0.0.1:1-3" }
listener.b = { pool = "q", address = "127.0.0.2:3-5" }
pool.p.backends = ["127.0.0.2"]
pool.q.backends = ["127.0.0.1"]`,
		`lb.toml:3: pool.p.backends[0].address: found "127.0.0.2"; listener.b.address on line 2, "127.0.0.2:3-5", `+
			`listens there and its pool, "q", leads back to listener.a: each session makes another`,
		`lb.toml:4: pool.q.backends[0].address: found "127.0.0.1"; listener.a.address on line 1, "127.0.0.1:1-3", `+
			`listens there and its pool, "p", leads back to listener.b: each session makes another`)
	wantErrors(t, `listener.a = { pool = "p", address = "127.0.0.1:1-3" }
listener.b = { pool = "q", address = "127.0.0.2:4-5" }
pool.p.backends = ["127.0.0.2"]
pool.q.backends = ["127.0.0.1"]`)
}
