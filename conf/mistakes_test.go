package conf

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// base returns a configuration without a mistake, as tables and their lines.
func base() [][]string {
	return [][]string{
		{"[global]"},
		{"[log]"},
		{"[listener.a]", `address = "127.0.0.1:6379"`, `pool = "p"`},
		{"[pool.p]", `backends = [{ address = "10.0.0.1:1", name = "b1" }]`},
		{"[pool.p.health]"},
		{"[pool.p.breaker]"},
		{"[admin]"},
	}
}

// with returns base with one line more, in place of that of the same key if there is one, and
// the number of that line.
func with(table, line string) (doc string, at int) {
	var lines []string
	for _, t := range base() {
		if t[0] == "["+table+"]" {
			key, _, _ := strings.Cut(line, " ")
			replaced := false
			for i := range t {
				if strings.HasPrefix(t[i], key+" ") {
					t[i], replaced = line, true
					at = len(lines) + i + 1
				}
			}
			if !replaced {
				t = append(t, line)
				at = len(lines) + len(t)
			}
		}
		lines = append(lines, t...)
	}
	return strings.Join(lines, "\n") + "\n", at
}

// wantErrors compares the whole text of the errors; no lines mean no error.
func wantErrors(t *testing.T, doc string, want ...string) {
	t.Helper()
	_, err := Parse("lb.toml", []byte(doc))
	got := ""
	if err != nil {
		if _, ok := errors.AsType[Errors](err); !ok {
			t.Fatalf("Parse returned %T and not Errors", err)
		}
		got = err.Error()
	}
	if got != strings.Join(want, "\n") {
		t.Errorf("document:\n%s\ngot:\n%s\nwant:\n%s", doc, got, strings.Join(want, "\n"))
	}
}

// TestMistakes makes one mistake at a time; want "" means that there is none.
func TestMistakes(t *testing.T) {
	const (
		durations   = `needs a duration with a unit, such as "250ms", "2s" or "5m"`
		addresses   = `; needs "HOST:PORT", "[IPV6]:PORT", ":PORT" for all addresses, or "unix:PATH"`
		backendAddr = `; needs "HOST:PORT", "[IPV6]:PORT", "HOST" for each client's port, or "unix:PATH"`
		rate        = `; needs a rate with a unit, such as "100/s" or "600/m burst 20"`
		rateBounds  = "; allowed is 1 or more, up to 1000000 a second, with a burst of 1 to 10000000"
		names       = "; needs 1 to 64 letters, digits, '_', '-' or '.'"
		algorithms  = `; allowed is "round_robin", "random", "least_conn", "p2c", "least_time", "first", "client_hash", "ring_hash" or "maglev"`
		admins      = `; needs "unix:PATH", "IP:PORT", "[IPV6]:PORT", or "" for none`
		lines       = `; needs "all", "errors", "1/N" with an N of 1 to 1000000, or "none"`
		noHash      = `does not hash; needs "client_hash", "ring_hash" or "maglev" as algorithm, or 0`
	)
	for _, tt := range []struct{ table, line, want string }{
		{"global", `workers = 1024`, ``},
		{"global", `workers = 1025`, `found 1025; allowed is 0 to 1024`},
		{"global", `workers = -1`, `found -1; allowed is 0 to 1024`},
		{"global", `workers = 1.0`, `found the number 1.0; needs a whole number, 0 to 1024`},
		{"global", `workers = "2"`, `found the string "2"; needs a whole number, 0 to 1024`},
		{"global", `workers = true`, `found true; needs a whole number, 0 to 1024`},
		{"global", `workers = 1979-05-27 07:32:00`, `found a date or time; needs a whole number, 0 to 1024`},
		{"global", `workers = [1]`, `found a list; needs a whole number, 0 to 1024`},
		{"global", `workers = { n = 1 }`, `found a table; needs a whole number, 0 to 1024`},
		{"global", `max_sessions = 9223372036854775807`, `found 9223372036854775807; allowed is 0 to 100000000`},
		{"global", `drain_timeout = "0s"`, ``},
		{"global", `drain_timeout = "25h"`, `found "25h"; allowed is 0s to 24h`},
		{"global", `drain_timeout = "-1s"`, `found "-1s"; allowed is 0s to 24h`},
		{"global", `drain_timeout = 30`, `found the integer 30; ` + durations},
		{"global", `drain_timeout = "30"`, `found the string "30"; ` + durations},
		{"global", `drain_timeout = "0"`, `found the string "0"; ` + durations},
		{"global", `drain_timeout = "5d"`, `found the string "5d"; ` + durations},
		{"global", `drain_timeout = ""`, `found the string ""; ` + durations},
		{"log", `access = true`, ``},
		{"log", `access = false`, ``},
		{"log", `access = "errors"`, ``},
		{"log", `access = "1/100"`, ``},
		{"log", `access = "1/1000000"`, ``},
		{"log", `access = "error"`, `found the string "error"` + lines + `, did you mean "errors"?`},
		{"log", `access = "1/1000001"`, `found the string "1/1000001"` + lines},
		{"log", `access = "1/0"`, `found the string "1/0"` + lines},
		{"log", `access = "1/+5"`, `found the string "1/+5"` + lines},
		{"log", `access = "2/3"`, `found the string "2/3"` + lines},
		{"log", `access = 100`, `found the integer 100` + lines},
		{"log", `level = "warning"`,
			`found "warning"; allowed is "trace", "debug", "info", "warn" or "error", did you mean "warn"?`},
		{"log", `level = "Debug"`,
			`found "Debug"; allowed is "trace", "debug", "info", "warn" or "error", did you mean "debug"?`},
		{"log", `level = 3`, `found the integer 3; needs "trace", "debug", "info", "warn" or "error"`},
		{"log", `format = "text"`, `found "text"; allowed is "json" or "console", did you mean "console"?`},
		{"log", `access = "yes"`, `found the string "yes"` + lines},
		{"global", `state_file = 1`, `found the integer 1; needs a string`},
		{"global", `watch = "yes"`, `found the string "yes"; needs true or false`},
		{"global", `udp_offload = false`, ``},
		{"global", `udp_offload = 0`, `found the integer 0; needs true or false`},
		{"admin", `address = ""`, ``},
		{"admin", `address = "unix:/tmp/a.sock"`, ``},
		{"admin", `address = "127.0.0.1:9000"`, ``},
		{"admin", `address = "[::1]:9000"`, ``},
		{"admin", `address = "unix:"`, `found "unix:"` + admins},
		{"admin", `address = "/run/a.sock"`, `found "/run/a.sock"; the port is missing` + admins},
		{"admin", `address = ":9000"`, `found ":9000"; the host is missing` + admins},
		{"admin", `address = "localhost:9000"`, `found "localhost:9000"; "localhost" is a host name` + admins},
		{"admin", `address = "unix:/` + strings.Repeat("a", 106) + `"`, ``},
		{"admin", `address = "unix:/` + strings.Repeat("a", 107) + `"`, `found "unix:/` + strings.Repeat("a", 58) +
			`"...; the path has 108 bytes; allowed are 107`},
		{"admin", `socket_mode = "0600"`, ``},
		{"admin", `socket_mode = "rw"`, `found "rw"; needs permission bits as chmod has them, such as "0660"`},
		{"admin", `socket_mode = "1777"`, `found "1777"; needs permission bits as chmod has them, such as "0660"`},
		{"listener.a", `protocol = "udp"`, ``},
		{"listener.a", `protocol = "sctp"`, `found "sctp"; allowed is "tcp", "udp" or "tcp+udp"`},
		{"listener.a", `flow_key = "client"`,
			`found the string "client"; protocol is "tcp"; allowed if protocol is "udp"`},
		{"pool.p", `send_proxy = "v2"`, ``},
		{"pool.p", `send_proxy = "v1"`, ``},
		{"pool.p", `send_proxy = "v3"`, `found "v3"; allowed is "", "v1" or "v2", did you mean "v1"?`},
		{"listener.a", `backlog = 0`, `found 0; allowed is 1 to 65535`},
		{"listener.a", `backlog = 65536`, `found 65536; allowed is 1 to 65535`},
		{"listener.a", `max_sessions = -1`, `found -1; allowed is 0 to 100000000`},
		{"listener.a", `idle_timeout = 15`, `found the integer 15; ` + durations},
		{"listener.a", `idle_timeout = "0s"`, ``},
		{"listener.a", `idle_timeout = "1us"`, `found "1us"; allowed is 1ms to 720h, or 0s`},
		{"listener.a", `half_close_timeout = "0s"`, `found "0s"; allowed is 1ms to 24h`},
		{"listener.a", `user_timeout = "2h30m0.0001s"`, `found "2h30m0.0001s"; needs a multiple of 1ms`},
		{"listener.a", `fast_open = true`, ``},
		{"listener.a", `fast_open = 256`, `found the integer 256; needs true or false`},
		{"listener.a", `congestion_control = "bbr"`, ``},
		{"listener.a", `congestion_control = "b/r"`, `found "b/r"; ` + congestionNeeds},
		{"pool.p", `congestion_control = "sixteen_letters_"`, `found "sixteen_letters_"; ` + congestionNeeds},
		{"listener.a", `refuse_with = "reste"`, `found "reste"; allowed is "reset", "close" or "protocol", did you mean "reset"?`},
		{"listener.a", `keepalive = { count = 5 }`, ``},
		{"listener.a", `keepalive = true`, `found true; needs a table`},
		{"listener.a", `pool = ""`, `found ""; there is no such pool; needs the NAME of a [pool.NAME] table`},
		{"listener.a", `pool = "redis"`, `found "redis"; there is no such pool; needs the NAME of a [pool.NAME] table`},
		{"listener.a", `pool = "pp"`, `found "pp"; there is no such pool, did you mean "p"?`},
		{"listener.a", `pool = 1`, `found the integer 1; needs the name of a pool`},
		{"listener.a", `address = 6379`,
			`found the integer 6379; needs an address, such as "127.0.0.1:6379", "[::]:6379" or ":6379"`},
		{"listener.a", `address = ""`, `found ""` + addresses},
		{"listener.a", `address = "127.0.0.1"`, `found "127.0.0.1"; the port is missing` + addresses},
		{"listener.a", `address = "[::1]"`, `found "[::1]"; the port is missing` + addresses},
		{"listener.a", `address = "::1"`, `found "::1"; the port is missing` + addresses},
		{"listener.a", `address = "::1:zz"`, `found "::1:zz"` + addresses},
		{"listener.a", `address = "[]:80"`, `found "[]:80"` + addresses},
		{"listener.a", `address = "http://x:80"`, `found "http://x:80"` + addresses + `, did you mean "x:80"?`},
		{"listener.a", `address = "6379"`, `found "6379"; the port is missing` + addresses + `, did you mean ":6379"?`},
		{"listener.a", `address = "tcp://*:80/"`, `found "tcp://*:80/"` + addresses + `, did you mean ":80"?`},
		{"listener.a", `address = "*:5000x"`, `found "*:5000x"; the port is "5000x"; allowed is 1 to 65535`},
		{"listener.a", `address = "2001:db8:2:3:4:5:6:7:6379"`, `found "2001:db8:2:3:4:5:6:7:6379"` + addresses +
			`, did you mean "[2001:db8:2:3:4:5:6:7]:6379"?`},
		{"listener.a", `address = "x y:80"`, `found "x y:80"; "x y" is neither an IP address nor a host name` +
			addresses},
		{"listener.a", `address = "[localhost]:80"`,
			`found "[localhost]:80"; "localhost" is neither an IP address nor a host name` + addresses},
		{"listener.a", `address = "10.0.0.256:80"`,
			`found "10.0.0.256:80"; "10.0.0.256" is neither an IP address nor a host name` + addresses},
		{"listener.a", `address = "*:80"`, `found "*:80"; "*" is neither an IP address nor a host name` + addresses +
			`, did you mean ":80"?`},
		{"listener.a", `address = ":0"`, `found ":0"; the port is "0"; allowed is 1 to 65535`},
		{"listener.a", `address = ":65536"`, `found ":65536"; the port is "65536"; allowed is 1 to 65535`},
		{"listener.a", `address = ":http"`, `found ":http"; the port is "http"; allowed is 1 to 65535`},
		{"listener.a", `address = ":+80"`, `found ":+80"; the port is "+80"; allowed is 1 to 65535`},
		{"listener.a", `address = "h:"`, `found "h:"; the port is ""; allowed is 1 to 65535`},
		{"listener.a", `address = "[fe80::1%eth0]:80"`, ``},
		{"listener.a", `address = "[fe80::1]:80"`,
			`found "[fe80::1]:80"; a link-local address needs its interface, as in fe80::1%eth0`},
		{"listener.a", `address = "[fe80::1%eth0.100]:80"`, ``},
		{"listener.a", `address = "[fe80::1%\u001b[2J]:80"`,
			`found "[fe80::1%\x1b[2J]:80"; the zone "\x1b[2J" is not the name of an interface`},
		{"listener.a", `address = "[fe80::1%\u202eeth0]:80"`,
			`found "[fe80::1%\u202eeth0]:80"; the zone "\u202eeth0" is not the name of an interface`},
		{"pool.p", `backends = [{ address = "[fe80::1%eth/0]:80" }]`,
			`[0].address: found "[fe80::1%eth/0]:80"; the zone "eth/0" is not the name of an interface`},
		{"listener.a", `address = "[::1%lo]:80"`, `found "[::1%lo]:80"; only a link-local address has a zone`},
		{"listener.a", `address = "224.0.0.1:80"`,
			`found "224.0.0.1:80"; a multicast or broadcast address is of no use here`},
		{"pool.p", `algorithm = "round_robbin"`, `found "round_robbin"` + algorithms + `, did you mean "round_robin"?`},
		{"pool.p", `algorithm = "sticky"`, `found "sticky"` + algorithms},
		{"pool.p", `algorithm = "maglev"`, ``},
		{"pool.p", `connect_timeout = "0s"`, `found "0s"; allowed is 1ms to 1h`},
		{"pool.p", `retries = 11`, `found 11; allowed is 0 to 10`},
		{"pool.p", `retries = -1`, `found -1; allowed is 0 to 10`},
		{"pool.p", `slow_start = "24h"`, ``},
		{"pool.p", `slow_start = "25h"`, `found "25h"; allowed is 0s to 24h`},
		{"pool.p", `slow_start = 30`, `found the integer 30; ` + durations},
		{"pool.p", `hash_key = "client"`, ``},
		{"pool.p", `hash_key = "name"`,
			`found "name"; allowed is "client_ip", "client", "sni" or "mqtt_client_id"`},
		{"pool.p", `hash_balance = 0`, ``},
		{"pool.p", `hash_balance = 0.0`, ``},
		{"pool.p", `hash_balance = 1.0`, `found 1.0; allowed is 1.01 to 100, or 0`},
		{"pool.p", `hash_balance = 101`, `found 101; allowed is 1.01 to 100, or 0`},
		{"pool.p", `hash_balance = nan`, `found NaN; allowed is 1.01 to 100, or 0`},
		{"pool.p", `hash_balance = "2"`, `found the string "2"; needs a number, 1.01 to 100, or 0`},
		{"pool.p", `hash_balance = 2`, `found 2.0; algorithm "least_conn" ` + noHash},
		{"pool.p", `zone = "eu-1.a"`, ``},
		{"pool.p", `zone = ""`, ``},
		{"pool.p", `zone = "a b"`, `found "a b"` + names + `, or ""`},
		{"pool.p", `sticky = { ttl = "1s", max_entries = 16_777_216 }`, ``},
		{"pool.p", `sticky = "1h"`, `found the string "1h"; needs a table`},
		{"pool.p", `sticky = { ttl = "10ms" }`, `.ttl: found "10ms"; allowed is 1s to 720h, or 0s`},
		{"pool.p", `sticky = { ttl = "721h" }`, `.ttl: found "721h"; allowed is 1s to 720h, or 0s`},
		{"pool.p", `sticky = { key = "cookie" }`, `.key: found "cookie"; allowed is "client_ip", "sni" or "mqtt_client_id"`},
		{"pool.p", `sticky = { max_entries = 0 }`, `.max_entries: found 0; allowed is 1 to 16777216`},
		{"pool.p", `sticky = { max_entries = 16_777_217 }`, `.max_entries: found 16777217; allowed is 1 to 16777216`},
		{"pool.p", `queue = { max = 1_000_000, timeout = "1h" }`, ``},
		{"pool.p", `queue = 5`, `found the integer 5; needs a table`},
		{"pool.p", `queue = { max = -1 }`, `.max: found -1; allowed is 0 to 1000000`},
		{"pool.p", `queue = { max = 1_000_001 }`, `.max: found 1000001; allowed is 0 to 1000000`},
		{"pool.p", `hold = { timeout = "15s", max = 1_000_000 }`, ``},
		{"pool.p", `hold = { timeout = "0s" }`, ``},
		{"pool.p", `hold = "15s"`, `found the string "15s"; needs a table`},
		{"pool.p", `hold = { timeout = "2h" }`, `.timeout: found "2h"; allowed is 1ms to 1h, or 0s`},
		{"pool.p", `hold = { max = 0 }`, `.max: found 0; allowed is 1 to 1000000`},
		{"pool.p", `queue = { timeout = "0s" }`, `.timeout: found "0s"; allowed is 1ms to 1h`},
		{"pool.p", `when_none = "all"`, ``},
		{"pool.p", `when_none = "any"`, `found "any"; allowed is "refuse" or "all"`},
		{"pool.p", `on_unhealthy = "close"`, ``},
		{"pool.p", `on_unhealthy = "drain"`, `found "drain"; allowed is "keep" or "close"`},
		{"pool.p", `on_remove = "close"`, ``},
		{"pool.p", `on_remove = "keep"`, `found "keep"; allowed is "drain" or "close"`},
		{"pool.p", `backends = []`,
			`found an empty list; needs at least one backend, such as [{ address = "10.0.0.11:6379" }]`},
		{"pool.p", `backends = {}`,
			`found a table; needs at least one backend, such as [{ address = "10.0.0.11:6379" }]`},
		{"pool.p", `backends = ["10.0.0.1:1"]`, ``},
		{"pool.p", `backends = ["10.0.0.1:1", { address = "10.0.0.2:1" }, "db.internal:1"]`, ``},
		{"pool.p", `backends = ["10.0.0.1:99999"]`,
			`[0].address: found "10.0.0.1:99999"; the port is "99999"; allowed is 1 to 65535`},
		{"pool.p", `backends = ["10.0.0.1:1", "10.0.0.1:1"]`,
			`[1].address: found "10.0.0.1:1"; pool.p.backends[0] on line 7 has the same address`},
		{"pool.p", `backends = [5]`, `[0]: found the integer 5; needs a table`},
		{"pool.p", `backends = "10.0.0.1:1"`,
			`found the string "10.0.0.1:1"; needs at least one backend, such as [{ address = "10.0.0.11:6379" }]`},
		{"pool.p", `backends = [{ weight = 1 }]`, `[0].address: missing; needs an address, such as "10.0.0.11:6379"`},
		{"pool.p", `backends = [{ address = ":1" }]`, `[0].address: found ":1"; the host is missing` + backendAddr},
		{"pool.p", `backends = [{ address = "6379" }]`, `[0].address: found "6379"; the port is missing` + backendAddr},
		{"pool.p", `backends = [{ address = "::1" }]`, `[0].address: found "::1"; the port is missing` + backendAddr},
		{"pool.p", `backends = [{ address = "0.0.0.0:1" }]`,
			`[0].address: found "0.0.0.0:1"; this address can be listened on but not connected to`},
		{"pool.p", `backends = [{ address = "h:1", weight = 256 }, { address = "h:2", weight = 0 }]`, ``},
		{"pool.p", `backends = [{ address = "h:1", weight = 257 }]`, `[0].weight: found 257; allowed is 0 to 256`},
		{"pool.p", `backends = [{ address = "h:1", weight = -1 }]`, `[0].weight: found -1; allowed is 0 to 256`},
		{"pool.p", `backends = [{ address = "h:1", name = "a/b" }]`, `[0].name: found "a/b"` + names},
		{"pool.p", `backends = [{ address = "h:1", name = "h:1" }]`, ``},
		{"pool.p", `backends = [{ address = "h:1", max_sessions = 100_000_000, tier = 65535, zone = "a", mode = "drain" }]`, ``},
		{"pool.p", `backends = [{ address = "h:1", max_sessions = -1 }]`,
			`[0].max_sessions: found -1; allowed is 0 to 100000000`},
		{"pool.p", `backends = [{ address = "h:1", max_sessions = 100_000_001 }]`,
			`[0].max_sessions: found 100000001; allowed is 0 to 100000000`},
		{"pool.p", `backends = [{ address = "h:1", max_rate = "500/s burst 50" }, { address = "h:2", max_rate = "" }]`, ``},
		{"pool.p", `backends = [{ address = "h:1", max_rate = "500" }]`, `[0].max_rate: found the string "500"` + rate},
		{"pool.p", `backends = [{ address = "h:1", max_rate = 500 }]`, `[0].max_rate: found the integer 500` + rate},
		{"pool.p", `backends = [{ address = "h:1", max_rate = "500/s burst 0" }]`,
			`[0].max_rate: found "500/s burst 0"` + rateBounds},
		{"pool.p", `backends = [{ address = "h:1", max_rate = "1000001/s" }]`, `[0].max_rate: found "1000001/s"` + rateBounds},
		{"pool.p", `backends = [{ address = "h:1", max_rate = { count = 5 } }]`, `[0].max_rate: found a table` + rate},
		{"pool.p", `backends = [{ address = "h:1", tier = -1 }]`, `[0].tier: found -1; allowed is 0 to 65535`},
		{"pool.p", `backends = [{ address = "h:1", tier = 65536 }]`, `[0].tier: found 65536; allowed is 0 to 65535`},
		{"pool.p", `backends = [{ address = "h:1", zone = "a b" }]`, `[0].zone: found "a b"` + names + `, or ""`},
		{"pool.p", `backends = [{ address = "h:1", mode = "maintenence" }]`,
			`[0].mode: found "maintenence"; allowed is "ready", "drain" or "maintenance", did you mean "maintenance"?`},
		{"pool.p", `backends = [{ address = "h:1" }, { address = "H:1" }]`,
			`[1].address: found "H:1"; pool.p.backends[0] on line 7 has the same address`},
		{"pool.p", `backends = [{ address = "h:1" }, { address = "h:1" }]`,
			`[1].address: found "h:1"; pool.p.backends[0] on line 7 has the same address`},
		{"pool.p", `backends = [{ address = "1.1.1.1:1" }, { address = "[::ffff:1.1.1.1]:1" }]`,
			`[1].address: found "[::ffff:1.1.1.1]:1"; pool.p.backends[0] on line 7 has the same address`},
		{"pool.p", `backends = [{ address = "h:1", name = "x" }, { address = "h:2", name = "x" }]`,
			`[1].name: found "x"; pool.p.backends[0] on line 7 has the same name`},
		{"pool.p", `backends = [{ address = "h:1", name = "h:1" }, { address = "h:2" }, { address = "h:3", name = "h.2" }]`, ``},
		{"pool.p.health", `type = "redis"`, ``},
		{"pool.p.health", `type = "Redis"`,
			`found "Redis"; allowed is "tcp", "tls", "http", "https", "grpc", "icmp", "udp", "dns", "postgres", "redis", "mysql", "mongodb", "mqtt", "amqp", "smtp", "ldap", "exec", "all_of" or "any_of", did you mean "redis"?`},
		{"pool.p.health", `rise = 0`, `found 0; allowed is 1 to 1000`},
		{"pool.p.health", `fall = 0`, `found 0; allowed is 1 to 1000`},
		{"pool.p.health", `interval = "1ms"`, `found "1ms"; allowed is 10ms to 24h`},
		{"pool.p.health", `fast_interval = "0s"`, `found "0s"; allowed is 10ms to 24h`},
		{"pool.p.health", `timeout = "2h"`, `found "2h"; allowed is 1ms to 1h`},
		{"pool.p.health", `timeout = "3s"`, ``},
		{"pool.p.health", `jitter = 0`, ``},
		{"pool.p.health", `jitter = 0.5`, ``},
		{"pool.p.health", `jitter = 1`, `found 1; allowed is 0 to 0.5`},
		{"pool.p.health", `jitter = -0.1`, `found -0.1; allowed is 0 to 0.5`},
		{"pool.p.health", `jitter = nan`, `found NaN; allowed is 0 to 0.5`},
		{"pool.p.health", `jitter = inf`, `found +Inf; allowed is 0 to 0.5`},
		{"pool.p.health", `jitter = "10%"`, `found the string "10%"; needs a number, 0 to 0.5`},
		{"pool.p.health", `initial = "unhealthy"`,
			`found "unhealthy"; allowed is "unknown" or "healthy", did you mean "healthy"?`},
		{"pool.p.health", `stale_after = "3s"`, ``},
		{"pool.p.health", `stale_after = "2s"`,
			`found "2s"; a verdict would be unknown again before the next check can end; needs interval plus timeout, 3s, or more, or 0s`},
		{"pool.p.breaker", `failures = 0`, ``},
		{"pool.p.breaker", `failures = -1`, `found -1; allowed is 0 to 1000000`},
		{"pool.p.breaker", `failure_ratio = 1.5`, `found 1.5; allowed is 0 to 1`},
		{"pool.p.breaker", `trials = 0`, `found 0; allowed is 1 to 1000`},
		{"pool.p.breaker", `max_open_share = 2`, `found 2; allowed is 0 to 1`},
		{"pool.p.breaker", `open_for = 10`,
			`found the integer 10; needs a duration with a unit, such as "250ms", "2s" or "5m"`},
		{"pool.p.breaker", `max_open_for = "5s"`, `found "5s"; needs open_for, 10s, or more`},
		{"pool.p.health", `port = 65536`, `found 65536; allowed is 0 to 65535`},
	} {
		t.Run(tt.line, func(t *testing.T) {
			doc, at := with(tt.table, tt.line)
			if tt.want == "" {
				wantErrors(t, doc)
				return
			}
			key, _, _ := strings.Cut(tt.line, " ")
			sep := ": "
			if strings.HasPrefix(tt.want, "[") || strings.HasPrefix(tt.want, ".") {
				sep = ""
			}
			wantErrors(t, doc, fmt.Sprintf("lb.toml:%d: %s.%s%s%s", at, tt.table, key, sep, tt.want))
		})
	}
}

func TestUnknownKeys(t *testing.T) {
	for _, tt := range []struct{ table, line, want string }{
		{"pool.p", `conect_timeout = "1s"`, `pool.p.conect_timeout: unknown key, did you mean "connect_timeout"?`},
		{"pool.p", `Retries = 1`, `pool.p.Retries: unknown key, did you mean "retries"?`},
		{"pool.p", `agent = { port = 65536 }`, `pool.p.agent.port: found 65536; allowed is 0 to 65535`},
		{"pool.p", `agent = { port = 1, interval = "1ms" }`, `pool.p.agent.interval: found "1ms"; allowed is 10ms to 24h`},
		{"pool.p", `quorum = {}`, `pool.p.quorum: unknown key; allowed here: algorithm, backends, connect_timeout, retries, slow_start, hash_key, hash_balance, zone, sticky, queue, hold, when_none, on_unhealthy, on_remove, drain, rebalance, agent, send_proxy, source, congestion_control, tls, health, breaker, discovery`},
		{"pool.p", `backends = [{ address = "h:1", teir = 1 }]`,
			`pool.p.backends[0].teir: unknown key, did you mean "tier"?`},
		{"pool.p", `queue = { size = 1 }`, `pool.p.queue.size: unknown key; allowed here: max, timeout`},
		{"listener.a", `keepalive = { idel = "1s" }`, `listener.a.keepalive.idel: unknown key, did you mean "idle"?`},
		{"log", `"le\nvel" = 1`, `log."le\nvel": unknown key, did you mean "level"?`},
		{"global", `"" = 1`, `global."": unknown key; allowed here: workers, max_sessions, drain_timeout, drain_delay, state_file, watch, udp_offload`},
	} {
		doc, at := with(tt.table, tt.line)
		wantErrors(t, doc, fmt.Sprintf("lb.toml:%d: %s", at, tt.want))
	}
	doc, _ := with("", "")
	wantErrors(t, doc+"[weather]\naddress = ''\n[limits]\n",
		"lb.toml:11: weather: unknown key; allowed here: include, global, log, admin, metrics, fleet, listener, pool",
		"lb.toml:13: limits: unknown key; allowed here: include, global, log, admin, metrics, fleet, listener, pool")
	wantErrors(t, "[listner.a]\n"+doc, `lb.toml:1: listner: unknown key, did you mean "listener"?`)
}

func TestShapes(t *testing.T) {
	const noListener = "listener: missing; needs at least one [listener.NAME] table"
	pool := "[pool.p]\nbackends = [{ address = '10.0.0.1:1' }]\n" // two lines
	for _, tt := range []struct {
		doc  string
		want []string
	}{
		{"", []string{"lb.toml:1: " + noListener}},
		{"\ufeff# nothing\r\n", []string{"lb.toml:1: " + noListener}},
		{pool, []string{"lb.toml:1: " + noListener}},
		{"# one\n[listener]\n",
			[]string{"lb.toml:2: listener: found an empty table; needs at least one [listener.NAME] table"}},
		{"listener = 3", []string{"lb.toml:1: listener: found the integer 3; needs tables with names, such as [listener.NAME]"}},
		{"[[listener]]", []string{"lb.toml:1: listener: found a list of tables; needs tables with names, such as [listener.NAME]"}},
		{"[listener]\na = 3", []string{"lb.toml:2: listener.a: found the integer 3; needs a table"}},
		{"[listener.a]", []string{
			`lb.toml:1: listener.a.address: missing; needs an address, such as "127.0.0.1:6379", "[::]:6379" or ":6379"`,
			`lb.toml:1: listener.a.pool: missing; needs the name of a pool`}},
		{"listener.a = { pool = 'p', address = ':1' }\n[[pool.p]]\n",
			[]string{"lb.toml:2: pool.p: found a list of tables; needs a table"}},
		{"listener.a = { pool = 'p', address = ':1' }\n[pool]\np = [1]\n",
			[]string{"lb.toml:3: pool.p: found a list; needs a table"}},
		{"listener.a = { pool = 'p', address = ':1' }\n[pool.p]\n",
			[]string{`lb.toml:2: pool.p.backends: missing; needs at least one backend, such as [{ address = "10.0.0.11:6379" }]`}},
		{"listener.a = { pool = 'p', address = ':1' }\n[[pool.p.backends]]\naddress = 'h:1'\n[[pool.p.backends]]\n",
			[]string{`lb.toml:4: pool.p.backends[1].address: missing; needs an address, such as "10.0.0.11:6379"`}},
		{"log = []\nlistener.a = { pool = 'p', address = ':1' }\n" + pool,
			[]string{"lb.toml:1: log: found a list; needs a table"}},
		{"[listener.\"a b\"]\npool = 'p'\naddress = ':1'\n" + pool,
			[]string{`lb.toml:1: listener."a b": found the name "a b"; needs 1 to 64 letters, digits, '_', '-' or '.'`}},
		{"[listener.'']\npool = 'p'\naddress = ':1'\n" + pool,
			[]string{`lb.toml:1: listener."": found the name ""; needs 1 to 64 letters, digits, '_', '-' or '.'`}},
		{"[listener.'a.b']\npool = 'p'\naddress = 'x'\n" + pool,
			[]string{`lb.toml:3: listener."a.b".address: found "x"; the port is missing; needs "HOST:PORT", "[IPV6]:PORT", ":PORT" for all addresses, or "unix:PATH"`}},
	} {
		wantErrors(t, tt.doc, tt.want...)
	}
	long := strings.Repeat("x", 65)
	wantErrors(t, "[listener."+long+"]\npool = 'p'\naddress = ':1'\n"+pool,
		fmt.Sprintf(`lb.toml:1: listener.%q...: found the name %[1]q...; needs 1 to 64 letters, digits, '_', '-' or '.'`, long[:64]))
}

// TestUDPMistakes makes one mistake at a time in a listener of UDP.
func TestUDPMistakes(t *testing.T) {
	for line, want := range map[string]string{
		`flow_timeout = "99ms"`:                        `flow_timeout: found "99ms"; allowed is 100ms to 24h`,
		`flow_key = "packet"`:                          ``,
		`flow_key = "port"`:                            `flow_key: found "port"; allowed is "client", "client_ip" or "packet"`,
		`max_flows = 0`:                                `max_flows: found 0; allowed is 1 to 10000000`,
		`receive_buffer = "1MiB"`:                      ``,
		`receive_buffer = 1`:                           `receive_buffer: found the integer 1; needs a size with a unit, such as "64KiB" or "10MB"`,
		`send_buffer = "0B"`:                           ``,
		`profile = "dns"`:                              ``,
		`profile = "redis"`:                            `profile: found "redis"; protocol is "udp"; needs protocol = "tcp", or another profile`,
		`cache = {}`:                                   ``,
		`cache = { max_ttl = "1500ms" }`:               `cache.max_ttl: found "1500ms"; needs a multiple of 1s`,
		`cache = { min_ttl = "2h", max_ttl = "1h" }`:   `cache.max_ttl: found "1h"; needs min_ttl, 2h, or more`,
		`cache = { max_entries = 0 }`:                  `cache.max_entries: found 0; allowed is 1 to 10000000`,
		`max_udp_answer = "4KiB"`:                      `max_udp_answer: found "4KiB"; profile is ""; needs profile = "dns" beside it`,
		"profile = \"dns\"\nmax_udp_answer = \"4KiB\"": ``,
		"cache = {}\nmax_udp_answer = \"4KiB\"":        ``,
		`max_udp_answer = "100B"`:                      `max_udp_answer: found "100B"; allowed is 512B to 65535B`,
		`cache = { failure_ttl = "6m" }`:               `cache.failure_ttl: found "6m"; allowed is 0s to 5m`,
		`backlog = 10`:                                 `backlog: found the integer 10; protocol is "udp"; allowed if protocol is "tcp"`,
		`keepalive = { count = 1 }`:                    `keepalive: found a table; protocol is "udp"; allowed if protocol is "tcp"`,
	} {
		text := "[listener.a]\naddress = \":53\"\nprotocol = \"udp\"\npool = \"p\"\n" + line +
			"\n[listener.b]\naddress = \":53\"\npool = \"p\"\n[pool.p]\nbackends = [{ address = \"10.0.0.1:53\" }]\n"
		if want == "" {
			wantErrors(t, text)
		} else {
			wantErrors(t, text, "lb.toml:5: listener.a."+want)
		}
	}
}

// TestCacheOfTCP holds that a cache of a TCP listener takes the profile, and that a profile which is a mistake is that
// alone.
func TestCacheOfTCP(t *testing.T) {
	for lines, want := range map[string]string{
		`profile = "dns"`:                              ``,
		"profile = \"dns\"\ncache = {}":                ``,
		"profile = \"dnz\"\ncache = {}":                `lb.toml:4: listener.a.profile: found "dnz"; allowed is "", "postgres", "redis" or "dns", did you mean "dns"?`,
		`cache = {}`:                                   `lb.toml:4: listener.a.cache: found a table; protocol is "tcp" and profile is ""; needs profile = "dns" beside it`,
		"profile = \"\"\ncache = { max_entries = 10 }": `lb.toml:5: listener.a.cache: found a table; protocol is "tcp" and profile is ""; needs profile = "dns" beside it`,
	} {
		text := "[listener.a]\naddress = \":53\"\npool = \"p\"\n" + lines +
			"\n[pool.p]\nbackends = [{ address = \"10.0.0.1:53\" }]\n"
		if want == "" {
			wantErrors(t, text)
		} else {
			wantErrors(t, text, want)
		}
	}
}

// TestAdminToken holds that an address that others can reach requires a token.
func TestAdminToken(t *testing.T) {
	const rest = "\n[listener.a]\naddress = \":1\"\npool = \"p\"\n[pool.p]\nbackends = [{ address = \"127.0.0.1:2\" }]\n"
	const want = "lb.toml:1: admin.token_file: the admin address can be reached from other machines; " +
		"needs the path of a file with a token, or an address on loopback"
	for text, wrong := range map[string]bool{
		`address = "0.0.0.0:9"`: true, `address = "[::]:9"`: true, `address = "10.0.0.1:9"`: true,
		`address = "127.9.9.9:9"`: false, `address = "[::ffff:127.0.0.1]:9"`: false,
		"address = \"[::]:9\"\ntoken_file = \"/t\"": false,
	} {
		cfg, err := Parse("lb.toml", []byte("[admin]\n"+text+rest))
		if wrong && (err == nil || err.Error() != want) || !wrong && (err != nil || !cfg.Admin.Bind.IsValid()) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestHashBalance holds that with a mistaken algorithm hash_balance is no further mistake.
func TestHashBalance(t *testing.T) {
	for _, tt := range []struct {
		algorithm string
		mistake   bool
	}{
		{"round_robin", true}, {"random", true}, {"least_conn", true}, {"p2c", true}, {"least_time", true},
		{"first", true},
		{"client_hash", false}, {"ring_hash", false}, {"maglev", false},
	} {
		doc, at := with("pool.p", "hash_balance = 1.01\nalgorithm = '"+tt.algorithm+"'")
		if !tt.mistake {
			wantErrors(t, doc)
			continue
		}
		wantErrors(t, doc, fmt.Sprintf(`lb.toml:%d: pool.p.hash_balance: found 1.01; algorithm %q does not hash; needs "client_hash", "ring_hash" or "maglev" as algorithm, or 0`, at, tt.algorithm))
	}
	doc, at := with("pool.p", "hash_balance = 1.01\nalgorithm = 3")
	_, err := Parse("lb.toml", []byte(doc))
	if errs, _ := errors.AsType[Errors](err); len(errs) != 1 || errs[0].Path != "pool.p.algorithm" ||
		errs[0].Line != at+1 {
		t.Errorf("a mistaken algorithm gives %v", err)
	}
}

func TestListenerConflicts(t *testing.T) {
	for _, tt := range []struct {
		a, b     string
		conflict bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true},
		{"127.0.0.1:1", "127.0.0.1:2", false},
		{"127.0.0.1:1", "[::ffff:127.0.0.1]:1", true},
		{"[::1]:1", "[0:0::1]:1", true},
		{":1", ":1", true},
		{":1", "0.0.0.0:1", true},
		{":1", "[::]:1", true},
		{":1", ":2", false},
		{"0.0.0.0:1", "[::]:1", false},
		{"[::]:1", "[::]:1", true},
		{"0.0.0.0:1", "127.0.0.1:1", false},
		{":1", "[::1]:1", false},
		{"localhost:1", "LOCALHOST:1", true},
		{"localhost:1", "127.0.0.1:1", false}, // Resolve will see
		{"[fe80::1%a]:1", "[fe80::1%b]:1", false},
	} {
		for _, turn := range [][2]string{{tt.a, tt.b}, {tt.b, tt.a}} {
			doc := fmt.Sprintf("listener.a = { pool = 'p', address = '%s' }\nlistener.b = { pool = 'p', address = "+
				"'%s' }\npool.p.backends = [{ address = 'h:1' }]\n", turn[0], turn[1])
			if !tt.conflict {
				wantErrors(t, doc)
				continue
			}
			wantErrors(t, doc, fmt.Sprintf(`lb.toml:2: listener.b.address: found %q; listener.a.address on line 1, %q, has this address already`, turn[1], turn[0]))
		}
	}
}

// TestAllAtOnce has mistakes of every stage but syntax in one file.
func TestAllAtOnce(t *testing.T) {
	wantErrors(t, `[global]
workers = "four"
[pool.redis]
conect_timeout = "3s"
backends = [
  { address = "10.0.0.11:6379" },
  { address = "10.0.0.11:6379",
    weight = 300 }, # TOML 1.1 lets inline tables span lines
]
health.rise = 0
[listener.redis]
pool = "rediss"
idle_timeout = 15
`,
		`lb.toml:2: global.workers: found the string "four"; needs a whole number, 0 to 1024`,
		`lb.toml:4: pool.redis.conect_timeout: unknown key, did you mean "connect_timeout"?`,
		`lb.toml:7: pool.redis.backends[1].address: found "10.0.0.11:6379"; pool.redis.backends[0] on line 6 has the same address`,
		`lb.toml:8: pool.redis.backends[1].weight: found 300; allowed is 0 to 256`,
		`lb.toml:10: pool.redis.health.rise: found 0; allowed is 1 to 1000`,
		`lb.toml:11: listener.redis.address: missing; needs an address, such as "127.0.0.1:6379", "[::]:6379" or ":6379"`,
		`lb.toml:12: listener.redis.pool: found "rediss"; there is no such pool, did you mean "redis"?`,
		`lb.toml:13: listener.redis.idle_timeout: found the integer 15; needs a duration with a unit, such as "250ms", "2s" or "5m"`,
	)
}
