package conf

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestUnixBackends reads backends that are Unix sockets, of the configuration and of a file.
func TestUnixBackends(t *testing.T) {
	const file = `
[listener.db]
address = ":5432"
pool = "db"
[pool.db]
backends = [
  { address = "unix:/run/postgresql/.s.PGSQL.5432" },
  { address = "unix:/run/with space:1/s", name = "b2", check = "10.0.0.1:8008" },
  { address = "10.0.0.2:5432" },
]
[pool.db.health]
`
	cfg, err := Parse("lb.toml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Resolve(t.Context(), nil, nil); err != nil || len(cfg.Unresolved()) > 0 {
		t.Fatalf("resolved: %v, unresolved: %v", err, cfg.Unresolved())
	}
	list, _, _ := strings.Cut(file[strings.Index(file, "backends ="):], "[pool")
	found, err := ParseBackends("backends.toml", []byte(list))
	if err != nil {
		t.Fatal(err)
	}
	for _, backends := range [][]Backend{cfg.Pools[0].Backends, found} {
		for i, want := range []struct{ name, path string }{
			{"unix:/run/postgresql/.s.PGSQL.5432", "/run/postgresql/.s.PGSQL.5432"},
			{"b2", "/run/with space:1/s"}, {"10.0.0.2:5432", ""},
		} {
			if b := backends[i]; b.Name != want.name || b.Path != want.path || b.Addr.IsValid() == (want.path != "") {
				t.Errorf("backend %d is %+v", i, b)
			}
		}
	}
	if w := cfg.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
}

// TestUnixListener reads listeners that are Unix sockets.
func TestUnixListener(t *testing.T) {
	const pools = "\npool = 'p'\n[pool.p]\nbackends = ['10.0.0.1:1']\n"
	c, err := Parse("lb.toml", []byte("[listener.l]\naddress = 'unix:/run/s'\npermissions = '0600'\ngroup = 'db'"+pools))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Resolve(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if l := c.Listeners[0]; !slices.Equal(l.Binds, []Bind{{Path: "/run/s"}}) || l.Mode != 0o600 || l.Group != "db" {
		t.Errorf("the listener is %+v", l)
	}
	for _, tt := range []struct{ keys, want string }{
		{`address = ":1"`, ``},
		{"address = ':1'\ngroup = 'db'", `listener.l.group: found "db"; no address is a Unix socket; ` +
			`needs address = "unix:PATH" beside it`},
		{"address = ':1'\npermissions = '0600'", `listener.l.permissions: found "0600"; no address is a Unix socket`},
		{"address = 'unix:/s'\npermissions = '1777'", `listener.l.permissions: found "1777"; needs permission bits`},
		{"address = 'unix:/s'\npermissions = 'rw'", `needs permission bits as chmod has them, such as "0660"`},
		{"address = 'unix:/s'\nprotocol = 'udp'", `found "unix:/s"; a Unix socket takes no datagrams`},
		{"address = 'unix:s'", `the path does not begin with '/'`},
		{"address = 'unix:/" + strings.Repeat("x", 103) + "'", `the path has 104 bytes; allowed are 103`},
		{"address = 'unix:/" + strings.Repeat("x", 102) + "'", ``},
		{"address = 'unix:/run/limeload/admin.sock'", `the control API listens there`},
		{"address = 'unix:/s'\nproxy_protocol = { accept = 'v2', trusted = ['10.0.0.1'] }",
			`listener.l.proxy_protocol.accept: found "v2"; clients of a Unix socket have no address`},
		{"address = 'unix:/s'\npool = 'p'\n[listener.m]\naddress = 'unix:/s'",
			`listener.l.address on line 2, "unix:/s", has this address already`},
		{"address = 'unix:/s'\npool = 'q'\n[pool.q]\nbackends = ['unix:/s']\n[listener.m]\naddress = ':9'",
			`pool.q.backends[0].address: found "unix:/s"; listener.l.address on line 2 listens there`},
	} {
		_, err := Parse("lb.toml", []byte("[listener.l]\n"+tt.keys+pools))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.keys, err, tt.want)
		}
	}
}

func TestUnixBackendMistakes(t *testing.T) {
	const needs = `needs "HOST:PORT", "[IPV6]:PORT", "HOST" for each client's port, or "unix:PATH"`
	long := "/" + strings.Repeat("x", maxSocketPath)
	for _, tt := range []struct{ listener, pool, want string }{
		{"", `backends = ["unix:/` + long[2:] + `"]`, ""},
		{"", `backends = ["unix:` + long + `"]`, `the path has 108 bytes; allowed are 107`},
		{"", `backends = ["unix:"]`, `the path does not begin with '/'; ` + needs},
		{"", `backends = ["unix:s"]`, `found "unix:s"; the path does not begin with '/'; ` + needs},
		{"", `backends = ["unix:@s"]`, `the path does not begin with '/'; ` + needs},
		{"", `backends = ["unix:/a\u0007"]`, `the path has characters that are not text; ` + needs},
		{"", `backends = ["unix:/a/../b"]`, `found "unix:/a/../b"; needs "unix:/b", the same path in short`},
		{"", `backends = ["unix:/a", "unix:/a"]`, `pool.p.backends[1].address: found "unix:/a"; pool.p.backends[0]`},
		{"", `backends = [{ address = "10.0.0.1:1", check = "unix:/a" }]`,
			`check: found "unix:/a"; needs "IP:PORT" or "[IPV6]:PORT", or "" for the backend's own`},
		{"", "backends = ['unix:/a']\nhealth = { type = 'udp' }", `pool.p.health.type: found "udp"; ` +
			`pool.p.backends[0] is a Unix socket and takes no datagrams; ` +
			`needs another type, or check = "IP:PORT" in pool.p.backends[0]`},
		{"", "backends = ['unix:/a']\nhealth = { type = 'icmp' }", `is a Unix socket and takes no datagrams`},
		{"", "backends = ['unix:/a']\nhealth = { type = 'dns', query = '.' }", `takes no datagrams`},
		{"", "backends = ['unix:/a']\nhealth = { type = 'dns', query = '.', transport = 'tcp' }", ``},
		{"", "backends = ['unix:/a']\nhealth = { port = 80 }", `pool.p.health.port: found 80; ` +
			`pool.p.backends[0] is a Unix socket and has no ports; needs 0, or check = "IP:PORT" in pool.p.backends[0]`},
		{"", "backends = [{ address = 'unix:/a', check = '10.0.0.1:1' }]\nhealth = { port = 80 }", ``},
		{"", "backends = ['unix:/a']\nhealth = { type = 'all_of', checks = [{ type = 'tcp' }, { type = 'http', port = 1 }] }",
			`pool.p.health.checks[1].port: found 1`},
		{`protocol = "udp"`, `backends = ["10.0.0.1:1", "unix:/a"]`, `pool.p.backends[1].address: found "unix:/a"; ` +
			`listener.l sends datagrams, and a Unix socket takes connections of TCP only; ` +
			`needs an IP address and a port, or another pool`},
		{"profile = 'dns'\ncache = {}", `backends = ["unix:/a"]`, `listener.l sends datagrams`},
		{"", "backends = ['unix:/a']\nsource = ['10.0.0.1']", ``},
	} {
		text := fmt.Sprintf("[listener.l]\naddress = ':53'\npool = 'p'\n%s\n[pool.p]\n%s\n", tt.listener, tt.pool)
		_, err := Parse("lb.toml", []byte(text))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s%s: %v, want %q", tt.listener, tt.pool, err, tt.want)
		}
	}
}
