package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestErrorAt(t *testing.T) {
	c := mustParse(t, "[pool.p]\nbackends = [{ address = 'h:1' }]\n[listener.'a.b']\npool = 'p'\naddress = ':1'\n")
	err := c.ErrorAt(Path("listener", "a.b", "address"), os.NewSyscallError("bind", syscall.EADDRINUSE))
	if want := `lb.toml:5: listener."a.b".address: bind: address already in use`; err.Error() != want ||
		!errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// compareConfig ignores the positions, which other tests look at.
var compareConfig = cmp.Options{
	cmpopts.IgnoreUnexported(Config{}),
	cmpopts.EquateComparable(netip.AddrPort{}),
	cmpopts.EquateEmpty(),
}

func TestParse(t *testing.T) {
	doc := `[listener.z]
address = ":1"
pool = "y"
max_sessions = 1_000
keepalive = { idle = "30s" }
[listener.b]
address = "Localhost:2"
pool = "x"
[pool.y]
algorithm = "round_robin"
backends = [{ address = "[::ffff:10.0.0.1]:1" }, { address = "db.internal:2", weight = 0, name = "b2" }]
[pool.y.health]
rise = 1
[pool.w]
algorithm = "ring_hash"
slow_start = "1m"
hash_key = "client"
hash_balance = 1.25
zone = "a"
sticky = { ttl = "1h" }
queue = { max = 7 }
hold = { timeout = "15s" }
when_none = "all"
on_unhealthy = "close"
on_remove = "close"
backends = [{ address = "10.0.0.9:1", max_sessions = 9, tier = 2, zone = "a", mode = "maintenance" }]
[pool.w.discovery]
type = "srv"
name = "_pg._tcp.Db.internal."
resolver = "[::ffff:10.0.0.2]:53"
refresh = "1s"
on_error = "empty"
[pool.v.discovery]
type = "dns"
name = "db"
port = 5432
[pool.u]
backends = []
[pool.u.discovery]
type = "file"
file = "b.json"
[[pool.x.backends]]
address = "[fe80::1%eth0]:1"
[listener.a]
address = "[::]:3"
pool = "x"
`
	ms, s, m := Duration(time.Millisecond), Duration(time.Second), Duration(time.Minute)
	defaults := Listener{Protocol: "tcp", Permissions: "0660", Mode: 0o660, Backlog: 4096,
		HalfCloseTimeout: m, UserTimeout: 2 * m,
		Keepalive: Keepalive{Idle: m, Interval: 10 * s, Count: 6}, RefuseWith: "reset",
		ProxyProtocol:  ProxyProtocol{Accept: "off", Timeout: 3 * s},
		Limits:         Limits{ClientPrefix4: 32, ClientPrefix6: 64},
		InspectTimeout: 5 * s,
		FlowTimeout:    30 * s, FlowKey: "client", MaxFlows: 65536, ReceiveBuffer: 4 << 20, MaxUDPAnswer: 1232}
	pool := Pool{Algorithm: "least_conn", ConnectTimeout: 3 * s, Retries: 2, HashKey: "client_ip",
		Sticky: Sticky{MaxEntries: 100_000, Key: "client_ip"},
		Queue:  Queue{Timeout: 5 * s}, Hold: Hold{Max: 10_000},
		Drain: "plain", Rebalance: Rebalance{Rate: 1, MinAge: m}, Agent: Agent{Interval: 2 * s, Timeout: s},
		WhenNone: "refuse", OnUnhealthy: "keep",
		OnRemove: "drain"}
	pool.Breaker = Breaker{Failures: 5, Window: 30 * s, MinSamples: 20, OpenFor: 10 * s, MaxOpenFor: 5 * m, Trials: 1,
		MaxOpenShare: 0.5}
	y, v, u, x := pool, pool, pool, pool
	y.Name, y.Algorithm = "y", "round_robin"
	y.Backends = []Backend{
		{Name: "[::ffff:10.0.0.1]:1", Address: "[::ffff:10.0.0.1]:1", Weight: 1, Mode: "ready",
			Addr: netip.MustParseAddrPort("10.0.0.1:1")},
		{Name: "b2", Address: "db.internal:2", Mode: "ready"},
	}
	check := Check{Type: "tcp", Verify: true, Method: "GET", Path: "/", Status: []string{"200-399"},
		Expect: []string{"NOERROR"}, Transport: "udp",
		Database: "postgres", Role: "any", Statuses: []StatusRange{{200, 399}}}
	y.Health = &Health{Check: check, Interval: 2 * s, FastInterval: 500 * ms, Timeout: s, Rise: 1, Fall: 3, Jitter: 0.1,
		Initial: "unknown"}
	w := Pool{Name: "w", Algorithm: "ring_hash", ConnectTimeout: 3 * s, Retries: 2, SlowStart: m, HashKey: "client",
		HashBalance: 1.25, Zone: "a",
		Sticky: Sticky{TTL: 60 * m, MaxEntries: 100_000, Key: "client_ip"},
		Queue:  Queue{Max: 7, Timeout: 5 * s}, Hold: Hold{Timeout: 15 * s, Max: 10_000},
		Drain: "plain", Rebalance: Rebalance{Rate: 1, MinAge: m}, Agent: Agent{Interval: 2 * s, Timeout: s},
		WhenNone:    "all",
		OnUnhealthy: "close", OnRemove: "close",
		Breaker: pool.Breaker,
		Backends: []Backend{{Name: "10.0.0.9:1", Address: "10.0.0.9:1", Weight: 1, MaxSessions: 9, Tier: 2, Zone: "a",
			Mode: "maintenance",
			Addr: netip.MustParseAddrPort("10.0.0.9:1")}},
		Discovery: &Discovery{Type: "srv", Namespace: "/service/", Verify: true, Name: "_pg._tcp.Db.internal.",
			Resolver: "[::ffff:10.0.0.2]:53", Family: "any", Refresh: s, OnError: "empty"},
	}
	v.Name, v.Discovery = "v", &Discovery{Type: "dns", Namespace: "/service/", Verify: true, Name: "db", Port: 5432,
		Family: "any", Refresh: 30 * s, OnError: "keep"}
	u.Name, u.Discovery = "u", &Discovery{Type: "file", Namespace: "/service/", Verify: true, File: "b.json",
		Family: "any", Refresh: 30 * s, OnError: "keep"}
	x.Name = "x"
	x.Backends = []Backend{{Name: "[fe80::1%eth0]:1", Address: "[fe80::1%eth0]:1", Weight: 1, Mode: "ready",
		Addr: netip.MustParseAddrPort("[fe80::1%eth0]:1")}}
	z, b, a := defaults, defaults, defaults
	z.Name, z.Address, z.Pool = "z", Addresses{":1"}, "y"
	z.Binds = []Bind{{Port: 1, Addr: netip.MustParseAddrPort("[::]:1"), DualStack: true}}
	z.MaxSessions, z.Keepalive.Idle = 1000, 30*s
	b.Name, b.Address, b.Pool, b.Binds = "b", Addresses{"Localhost:2"}, "x", []Bind{{Port: 2}}
	a.Name, a.Address, a.Pool = "a", Addresses{"[::]:3"}, "x"
	a.Binds = []Bind{{Port: 3, Addr: netip.MustParseAddrPort("[::]:3")}}
	want := &Config{
		File:   "lb.toml",
		Global: Global{DrainTimeout: 30 * s, UDPOffload: true},
		Admin: Admin{Address: DefaultAdminAddress, SocketMode: "0660", Socket: "/run/limeload/admin.sock",
			Mode: 0o660},
		Log:       Log{Level: "info", Format: "json", Access: AccessAll, Probes: true},
		Listeners: []Listener{z, b, a},
		Pools:     []Pool{y, w, v, u, x},
	}
	for _, variant := range []string{doc, "\ufeff" + doc, strings.ReplaceAll(doc, "\n", "\r\n"),
		strings.TrimSuffix(doc, "\n")} {
		c, err := Parse("lb.toml", []byte(variant))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c, compareConfig); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		for path, line := range map[string]int{
			"listener.b.address":        7,
			"listener.b.backlog":        6, // left out
			"listener.z.keepalive.idle": 5,
			"pool.y.backends[1].weight": 11,
			"pool.y.backends[0].weight": 11,
			"pool.w.discovery.type":     28,
			"pool.v.backends":           33, // left out
			"pool.x.backends[0]":        42,
			"pool.x.backends[1]":        0,
			"log.level":                 1,
		} {
			if got := c.lines[path]; got != line {
				t.Errorf("%s is on line %d, want %d", path, got, line)
			}
		}
	}
}

func TestParseText(t *testing.T) {
	for _, tt := range []struct{ doc, want string }{
		{"a = 1\n\xff", `lb.toml:2: found the byte 0xff; needs a text file in UTF-8`},
		{"\xff\xfea\x00", `lb.toml:1: found the byte 0xff; needs a text file in UTF-8`}, // UTF-16
		{"# one\n# t\x00o", `lb.toml:2: found a NUL byte; needs a text file in UTF-8`},
		{"a\x00", `lb.toml:1: found a NUL byte; needs a text file in UTF-8`},
		{strings.Repeat("#", MaxFileBytes+1), `lb.toml: found more than 4MiB; needs a file of at most that size`},
		{"[log]\nlevel = \"info", `lb.toml:2: not valid TOML: unexpected EOF; expected '"'`},
		{"[log]\nlevel = debug",
			`lb.toml:2: not valid TOML: expected value but found "debug" instead; a text needs quotes: level = "debug"`},
		{"[log]\nlevel = \x1b[31m", `lb.toml:2: not valid TOML: TOML files cannot contain control characters: '0x1b'`},
		{"[log]\nlevel = \u202e", `lb.toml:2: not valid TOML: expected value but found '\u202e' instead`},
		{"[log]\n[log]\n", `lb.toml:2: not valid TOML: line 1 has [log] already`},
		{"[global]\nworkers = 1\n\nworkers = 2\n", `lb.toml:4: not valid TOML: line 2 has workers already`},
		{"[global]\nworkers = 99999999999999999999\n",
			`lb.toml:2: not valid TOML: 99999999999999999999 is out of range for int64`},
		{"[", `lb.toml:1: not valid TOML: unexpected end of table name (table names cannot be empty)`},
		{"a = " + strings.Repeat("[", MaxFileBytes-10), `lb.toml:1: tables and lists are nested more than 32 deep`},
		{"\n\n[a" + strings.Repeat(".a", MaxFileBytes/2-10) + "]",
			`lb.toml:3: tables and lists are nested more than 32 deep`},
		{"\na" + strings.Repeat(".a", MaxFileBytes/2-10) + " = 1",
			`lb.toml:2: tables and lists are nested more than 32 deep`},
		{"[a.a]\n" + strings.Repeat("x={", 1000), `lb.toml:2: tables and lists are nested more than 32 deep`},
	} {
		_, err := Parse("lb.toml", []byte(tt.doc))
		if err == nil || err.Error() != tt.want {
			t.Errorf("document %.60q:\ngot  %v\nwant %s", tt.doc, err, tt.want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lb.toml")
	if err := os.WriteFile(path, Reference, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || c.File != path {
		t.Errorf("Load gives %v, %v", c, err)
	}
	missing := filepath.Join(dir, "none.toml")
	_, err := Load(missing)
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != missing+": no such file or directory" {
		t.Errorf("a missing file gives %v", err)
	}
	if _, err := Load(dir); err == nil || err.Error() != dir+": is a directory" {
		t.Errorf("a directory gives %v", err)
	}
	large := filepath.Join(dir, "large.toml")
	if err := os.WriteFile(large, make([]byte, 10<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large); err == nil ||
		err.Error() != large+": found more than 4MiB; needs a file of at most that size" {
		t.Errorf("10 MiB give %v", err)
	}
	// Root may read any file, so what stands for an unreadable one is one that no user can read.
	const unreadable = "/proc/self/mem"
	if _, err := Load(unreadable); err == nil || err.Error() != unreadable+": input/output error" {
		t.Errorf("an unreadable file gives %v", err)
	}
}

// TestLargeFiles: the work grows with the file and not with its square, or the test would not
// end in time. An eighth of the bound keeps it to seconds under -race.
func TestLargeFiles(t *testing.T) {
	for _, piece := range []string{"k%d = 1\n", "[pool.p%d]\n", "[[pool]]\n#%d\n", "a%d.b.c = [{}]\n",
		"pool.p.b%d = {}\n"} {
		var b strings.Builder
		for i := 0; b.Len() < MaxFileBytes/8; i++ {
			fmt.Fprintf(&b, piece, i)
		}
		if _, err := Parse("lb.toml", []byte(b.String())); err == nil {
			t.Errorf("%q, repeated, is accepted", piece)
		}
	}
}

// TestParseBounds has files of allowed size with more than a configuration needs: they cause few mistakes.
func TestParseBounds(t *testing.T) {
	var pools, keys strings.Builder
	for i := range maxTables + 1 {
		fmt.Fprintf(&pools, "[pool.p%d]\n", i)
	}
	for i := range maxMistakes + 7 {
		fmt.Fprintf(&keys, "key%d = 1\n", i)
	}
	_, err := Parse("lb.toml", []byte(pools.String()))
	if errs := (Errors)(nil); !errors.As(err, &errs) || !slices.ContainsFunc(errs, func(e *Error) bool {
		return e.Error() == "lb.toml:1: pool: found 10001 tables; needs 10000 at most"
	}) || len(errs) > 3 {
		t.Errorf("too many pools: %d mistakes, %.300v", len(errs), err)
	}
	_, err = Parse("lb.toml", []byte(keys.String()))
	if errs := (Errors)(nil); !errors.As(err, &errs) || len(errs) != maxMistakes+1 ||
		errs[maxMistakes].Error() != "lb.toml:999: and 8 more mistakes" { // listener is missing, too
		t.Errorf("too many mistakes: %d, the last is %v", len(errs), errs[len(errs)-1])
	}
}
