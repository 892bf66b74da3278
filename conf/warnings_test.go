package conf

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWarnings(t *testing.T) {
	c := mustParse(t, `listener.a = { pool = "p", address = ":1" }
listener.b = { pool = "loop", address = "127.0.0.1:2" }
pool.p.backends = [{ address = "h:1" }]
pool.loop.backends = [{ address = "127.0.0.1:4", weight = 0 }, { address = "127.0.0.1:3", weight = 0 }]
[pool."spare.one"]
backends = [{ address = "h:1" }]
[pool."spare.one".health]
timeout = "3s"
fast_interval = "5s"
`)
	want := []string{
		`lb.toml:4: pool.loop.backends: every backend has weight 0: all clients are refused`,
		`lb.toml:5: pool."spare.one": no listener uses this pool`,
		`lb.toml:8: pool."spare.one".health.timeout: found "3s"; longer than interval, 2s: a silent backend is checked less often than that`,
		`lb.toml:9: pool."spare.one".health.fast_interval: found "5s"; longer than interval, 2s, which is used instead`,
	}
	if diff := cmp.Diff(want, c.Warnings()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestOverlapWarnings has pairs of listeners on one port.
func TestOverlapWarnings(t *testing.T) {
	for _, tt := range []struct {
		all, one string
		overlap  bool
	}{
		{":1", "127.0.0.1:1", true},
		{":1", "[::1]:1", true},
		{":1", "127.0.0.1:2", false},
		{"0.0.0.0:1", "127.0.0.1:1", true},
		{"0.0.0.0:1", "[::1]:1", false},
		{"0.0.0.0:1", "[::]:1", false},
		{"[::]:1", "127.0.0.1:1", false},
		{"[::]:1", "[::1]:1", true},
		{":1", "[::ffff:127.0.0.1]:1", true},
		{"127.0.0.1:1", "127.0.0.2:1", false},
		{":1", "h:1", false}, // not resolved yet
	} {
		for _, protocols := range [][2]string{{"tcp", "tcp"}, {"udp", "udp"}, {"tcp", "udp"}} {
			c := mustParse(t, fmt.Sprintf("listener.a = { pool = 'p', address = '%s', protocol = '%s' }\n"+
				"listener.b = { pool = 'p', address = '%s', protocol = '%s' }\npool.p.backends = ['h:1']\n",
				tt.all, protocols[0], tt.one, protocols[1]))
			var want []string
			if tt.overlap && protocols[0] == protocols[1] {
				want = []string{fmt.Sprintf(`lb.toml:2: listener.b.address: found %q; listener.a.address on line 1, %q, includes this address: its clients there come to this listener`, tt.one, tt.all)}
			}
			if diff := cmp.Diff(want, c.Warnings()); diff != "" {
				t.Errorf("%v: -want +got\n%s", protocols, diff)
			}
		}
	}
	c := mustParse(t, "listener.a = { pool = 'p', address = ':1' }\nlistener.b = { pool = 'p', address = 'h:1' }\npool.p.backends = ['10.0.0.1:1']\n")
	if err := c.Resolve(t.Context(), hosts(map[string]string{"h": "127.0.0.1"}), nil); err != nil ||
		len(c.Warnings()) != 1 {
		t.Errorf("a resolved name: %q, error %v", c.Warnings(), err)
	}
}

// TestNameWarnings has names that resolve to addresses of this machine.
func TestNameWarnings(t *testing.T) {
	c := mustParse(t, "listener.a = { pool = 'p', address = ':1' }\npool.p.backends = [\n'localhost:2',\n'127.0.0.1:3',\n'db.internal:4',\n'meta.internal:5', 'ok.internal:6']\n")
	err := c.Resolve(t.Context(), hosts(map[string]string{
		"localhost": "127.0.0.1", "db.internal": "127.0.0.9", "meta.internal": "169.254.169.254",
		"ok.internal": "10.0.0.1"}), nil)
	if err != nil {
		t.Fatal(err)
	}
	const means = ", an address of this machine or its link: clients reach what listens there for this machine alone"
	want := []string{
		`lb.toml:5: pool.p.backends[2].address: found "db.internal:4"; the name came to 127.0.0.9` + means,
		`lb.toml:6: pool.p.backends[3].address: found "meta.internal:5"; the name came to 169.254.169.254` + means,
	}
	if diff := cmp.Diff(want, c.Warnings()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestCheckWarnings(t *testing.T) {
	c := mustParse(t, `listener.a = { pool = "p", address = ":1" }
listener.b = { pool = "q", address = ":2" }
pool.p.backends = [{ address = "h:1" }]
pool.q.backends = [{ address = "h:1" }]
[pool.p.health]
type = "redis"
tls = true
verify = false
[pool.q.health]
type = "any_of"
checks = [{ type = "https" },
  { type = "tls", verify = false }]
`)
	want := []string{
		`lb.toml:8: pool.p.health.verify: found false; the check accepts any certificate`,
		`lb.toml:12: pool.q.health.checks[1].verify: found false; the check accepts any certificate`,
	}
	if diff := cmp.Diff(want, c.Warnings()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestHealthWarnings holds the warning of each line of a health table; "" is none.
func TestHealthWarnings(t *testing.T) {
	for lines, want := range map[string]string{
		`stale_after = "3s"`:                                          `stale_after: found "3s"; shorter than two intervals and a timeout, 5s: one late check makes a verdict unknown`,
		`stale_after = "5s"`:                                          ``,
		`type = "icmp"`:                                               `type: found "icmp"; a host that answers says nothing of its services: a second check in all_of does`,
		"type = \"redis\"\nmax_lag = \"9s\"":                          `max_lag: found "9s"; an idle primary says something every 10s only: its replicas seem to lag in between`,
		"type = \"redis\"\nmax_lag = \"10s\"":                         ``,
		"type = \"http\"\nmethod = \"HEAD\"\nbody = \"x\"":            `body: found "x"; the answer to "HEAD" has no body: the check always fails`,
		"type = \"redis\"\nrole = \"primary\"":                        ``,
		"type = \"redis\"\nrole = \"primary\"\ninitial = \"healthy\"": `initial: found "healthy"; until the first check is done, replicas get the sessions of the primary`,
	} {
		got := mustParse(t, "listener.a = { pool = \"p\", address = \":1\" }\npool.p.backends = [{ address = \"h:1\" }]\n[pool.p.health]\n"+lines+"\n").Warnings()
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.HasSuffix(got[0], want)) {
			t.Errorf("%q warns %q, want %q", lines, got, want)
		}
	}
}

// TestPoolWarnings holds the warning of each line of a pool; discovery may provide what is missing.
func TestPoolWarnings(t *testing.T) {
	const (
		zone     = `lb.toml:4: pool.p.zone: found "a"; no backend has this zone: none is preferred`
		queue    = `lb.toml:4: pool.p.queue.max: found 5; no backend has max_sessions or max_rate: none is ever full, and nobody waits`
		hashKey  = `does not hash: this key changes nothing`
		refused  = `lb.toml:3: pool.p.backends: every backend has weight 0: all clients are refused`
		notReady = `lb.toml:3: pool.p.backends: no backend with a weight above 0 has mode "ready": all clients are refused`
	)
	for _, tt := range []struct{ backends, line, want string }{
		{`{ address = "h:1" }`, ``, ``},
		{`{ address = "h:1" }`, `zone = "a"`, zone},
		{`{ address = "h:1", zone = "b" }, { address = "h:2" }`, `zone = "a"`, zone},
		{`{ address = "h:1", zone = "b" }, { address = "h:2", zone = "a" }`, `zone = "a"`, ``},
		{`{ address = "h:1" }`, `queue = { max = 5 }`, queue},
		{`{ address = "h:1" }`, `queue = { timeout = "1s" }`, ``},
		{`{ address = "h:1" }, { address = "h:2", max_sessions = 1 }`, `queue = { max = 5 }`, ``},
		{`{ address = "h:1" }, { address = "h:2", max_rate = "1/s" }`, `queue = { max = 5 }`, ``},
		{`{ address = "h:1", weight = 0 }`, `retries = 1`, refused},
		{`{ address = "h:1", weight = 0, mode = "drain" }`, `retries = 1`, refused},
		{`{ address = "h:1", weight = 0 }, { address = "h:2", mode = "drain" }`, ``, notReady},
		{`{ address = "h:1", mode = "maintenance" }, { address = "h:2" }`, ``, ``},
		{`{ address = "h:1" }`, `when_none = "all"`, ``},
		{`{ address = "h:1" }`, `on_unhealthy = "close"`, ``},
		{`{ address = "h:1" }`, `hash_key = "client"`,
			`lb.toml:4: pool.p.hash_key: found "client"; algorithm "least_conn" ` + hashKey},
		{`{ address = "h:1" }`, "hash_key = \"client\"\nalgorithm = \"first\"",
			`lb.toml:4: pool.p.hash_key: found "client"; algorithm "first" ` + hashKey},
		{`{ address = "h:1" }`, "hash_key = \"client\"\nalgorithm = \"maglev\"", ``},
	} {
		for _, discovery := range []string{"", "[pool.p.discovery]\ntype = 'file'\nfile = 'x'\n"} {
			c := mustParse(t, "listener.a = { pool = 'p', address = ':1' }\n[pool.p]\nbackends = ["+tt.backends+"]\n"+
				tt.line+"\n"+discovery)
			var want []string
			if tt.want != "" && (discovery == "" || strings.Contains(tt.want, hashKey)) {
				want = []string{tt.want}
			}
			if diff := cmp.Diff(want, c.Warnings()); diff != "" {
				t.Errorf("backends %s, %s, %s: -want +got\n%s", tt.backends, tt.line, discovery, diff)
			}
		}
	}
}

// TestSilenceWarnings holds that a pool of several resolvers without checks causes a warning.
func TestSilenceWarnings(t *testing.T) {
	const want = `lb.toml:2: pool.p: listener.a asks these backends, and only a check notices one that falls silent: needs a table health, of type "dns"`
	for _, tt := range []struct {
		listener, pool string
		warns          bool
	}{
		{`profile = "dns"`, `backends = [{ address = "h:1" }, { address = "h:2" }]`, true},
		{`profile = "dns"`, `discovery = { type = "dns", name = "r.example", port = 53 }`, true},
		{`profile = "dns"`, `backends = [{ address = "h:1" }]`, false},
		{`profile = "dns"`, `backends = [{ address = "h:1" }, { address = "h:2" }], health = { type = "dns", query = "example.com A" }`, false},
		{`responses = 1`, `backends = [{ address = "h:1" }, { address = "h:2" }]`, false},
	} {
		got := mustParse(t, `listener.a = { pool = "p", address = ":1", protocol = "udp", `+tt.listener+
			" }\npool.p = { "+tt.pool+" }\n").Warnings()
		if tt.warns != (len(got) > 0) || tt.warns && got[0] != want {
			t.Errorf("%s, %s warns %q", tt.listener, tt.pool, got)
		}
	}
}
