package conf

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// TestForeignWords holds the mistakes reported for words of HAProxy, nginx, Envoy and others.
func TestForeignWords(t *testing.T) {
	const (
		algorithms = `; allowed is "round_robin", "random", "least_conn", "p2c", "least_time", "first", "client_hash", "ring_hash" or "maglev", did you mean `
		roles      = `; allowed is "any", "primary" or "replica", did you mean `
	)
	for _, tt := range []struct{ table, line, want string }{
		{"listener.a", `maxconn = 100`, `maxconn: unknown key, did you mean "max_sessions"?`},
		{"global", `maxconn = 100`, `maxconn: unknown key, did you mean "max_sessions"?`},
		{"pool.p", `maxconn = 100`,
			`maxconn: unknown key; this is max_sessions, of [global], of a listener or of a backend`},
		{"pool.p", `backends = [{ address = "10.0.0.1:1", maxconn = 5 }]`,
			`backends[0].maxconn: unknown key, did you mean "max_sessions"?`},
		{"pool.p", `backends = [{ address = "10.0.0.1:1", backup = true }]`,
			`backends[0].backup: unknown key; this is tier = 1: such a backend is used when none of tier 0 is eligible`},
		{"pool.p", `backends = [{ address = "10.0.0.1:1", port = 5 }]`,
			`backends[0].port: unknown key; the port is part of address, "HOST:PORT"`},
		{"listener.a", `bind = ":80"`, `bind: unknown key, did you mean "address"?`},
		{"listener.a", `default_backend = "p"`, `default_backend: unknown key, did you mean "pool"?`},
		{"listener.a", `client_timeout = "5m"`, `client_timeout: unknown key, did you mean "idle_timeout"?`},
		{"pool.p", `timeout-server = "5m"`,
			`timeout-server: unknown key; this is idle_timeout of a [listener.NAME] table, for both sides`},
		{"pool.p", `balance = "source"`, `balance: unknown key, did you mean "algorithm"?`},
		{"listener.a", `balance = "source"`, `balance: unknown key; this is the algorithm of a [pool.NAME] table`},
		{"pool.p", `ip_hash = true`, `ip_hash: unknown key; this is algorithm = "client_hash" of a [pool.NAME] table`},
		{"pool.p", `servers = ["10.0.0.1:1"]`, `servers: unknown key, did you mean "backends"?`},
		{"pool.p.health", `inter = "2s"`, `inter: unknown key, did you mean "interval"?`},
		{"pool.p", `algorithm = "roundrobin"`, `algorithm: found "roundrobin"` + algorithms + `"round_robin"?`},
		{"pool.p", `algorithm = "leastconn"`, `algorithm: found "leastconn"` + algorithms + `"least_conn"?`},
		{"pool.p", `algorithm = "source"`, `algorithm: found "source"` + algorithms + `"client_hash"?`},
		{"pool.p", `algorithm = "ip_hash"`, `algorithm: found "ip_hash"` + algorithms + `"client_hash"?`},
		{"pool.p", `algorithm = "least-connections"`, `algorithm: found "least-connections"` + algorithms +
			`"least_conn"?`},
		{"pool.p.health", "role = \"master\"\ntype = \"redis\"", `role: found "master"` + roles + `"primary"?`},
		{"pool.p.health", "role = \"Read-Only\"\ntype = \"redis\"", `role: found "Read-Only"` + roles + `"replica"?`},
		{"pool.p", `backends = [{ address = "10.0.0.1:1", mode = "maint" }]`,
			`backends[0].mode: found "maint"; allowed is "ready", "drain" or "maintenance", did you mean "maintenance"?`},
		{"listener.a", `protocol = "http"`, `protocol: found "http"; allowed is "tcp", "udp" or "tcp+udp", did you mean "tcp"?`},
	} {
		doc, at := with(tt.table, tt.line)
		wantErrors(t, doc, fmt.Sprintf("lb.toml:%d: %s.%s", at, tt.table, tt.want))
	}
	for word, want := range map[string]string{
		"frontend": `unknown key, did you mean "listener"?`,
		"upstream": `unknown key, did you mean "pool"?`,
		"backend":  `unknown key, did you mean "pool"?`,
		"defaults": `unknown key; there is no table of defaults: each listener and pool has its own keys`,
	} {
		doc, _ := with("", "")
		wantErrors(t, doc+"["+word+".x]\n", fmt.Sprintf("lb.toml:11: %s: %s", word, want))
	}
}

// TestForeignWordsAreTranslated holds that each translation is one of our words, and that no translated word is.
func TestForeignWordsAreTranslated(t *testing.T) {
	keys, values := map[string]bool{}, map[string][]string{}
	for _, k := range knownKeys(reflect.TypeFor[Config](), "") {
		keys[k.key] = true
		values[k.key] = append(values[k.key], k.oneof...)
	}
	for word, f := range foreignKeys() {
		if len(f.ours) == 0 && f.hint == "" {
			t.Errorf("%s has no translation", word)
		}
		for _, ours := range f.ours {
			if !keys[ours] {
				t.Errorf("%s is translated to %s, which is no key", word, ours)
			}
		}
	}
	for key, words := range foreignValues() {
		for word, ours := range words {
			if !slices.Contains(values[key], ours) || slices.Contains(values[key], word) && key != "type" &&
				key != "protocol" && key != "mode" { // of which several tables have one
				t.Errorf("%s = %s is translated to %s", key, word, ours)
			}
		}
	}
}
