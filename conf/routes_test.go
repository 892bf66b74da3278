package conf

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const routedPools = "[pool.p]\nbackends = ['10.0.0.1:1']\n[pool.q]\nbackends = ['10.0.0.2:1']\n"

// routed is a configuration whose routes stand on the lines from 4 on.
func routed(keys string, routes ...string) string {
	return "[listener.a]\naddress = ':1'\nroutes = [\n" + strings.Join(routes, ",\n") + "\n]\n" + keys + "\n" + routedPools
}

// TestRouteMistakes holds the whole text of each mistake in routes.
func TestRouteMistakes(t *testing.T) {
	const (
		names = `; needs a host name, such as "db.example.com", "*.example.com" or "*"`
		label = `; a name is labels of 1 to 63 letters, digits, "-" and "_" between dots, and the last one has a letter`
		once  = `; needs each pattern once, or with other protocols in alpn`
	)
	pattern := func(name, wrong string) [2]string {
		return [2]string{fmt.Sprintf("{ sni = ['%s'], pool = 'p' }", name),
			fmt.Sprintf(`lb.toml:4: listener.a.routes[0].sni[0]: found %q; %s`, name, wrong)}
	}
	for _, tt := range [][2]string{
		{`{ sni = ["db.example.com", "*.db.example.com"], pool = "q" }, { alpn = ["dot"], pool = "p" }, { sni = ["*"], pool = "q" }`, ""},
		{`{ sni = ["xn--bcher-kva.example", "a_b.C", "localhost"], alpn = ["h2", "http/1.1"], pool = "q" }`, ""},
		{`{ sni = ["a.b"], alpn = ["x"], pool = "q" }, { sni = ["a.b"], pool = "q" }, { sni = ["a.b"], alpn = ["y"], pool = "p" }`, ""},
		pattern("", "it is empty"+names),
		pattern("*.", "it is empty"+names),
		pattern("10.0.0.1", "clients name no server when they connect to an address"+names),
		pattern("[2001:db8::1]", "clients name no server when they connect to an address"+names),
		pattern("2001:db8::1", "clients name no server when they connect to an address"+names),
		pattern("10.0.0.1:443", "clients name no server when they connect to an address"+names),
		pattern("a.*.com", `a wildcard stands in front of a name, as "*."`+names),
		pattern("*a.com", `a wildcard stands in front of a name, as "*."`+names),
		pattern("*.*", `a wildcard stands in front of a name, as "*."`+names),
		pattern("bücher.example", `clients send such a name in its ASCII form, which begins with "xn--"`+names),
		pattern("a.com.", "clients send the name without the dot at the end"+names),
		pattern("a.com:443", "clients send the name without a port"+names),
		pattern("a..com", label[2:]+names),
		pattern(".com", label[2:]+names),
		pattern("a b.com", label[2:]+names),
		pattern("a.1", label[2:]+names),
		pattern(strings.Repeat("a", 64), label[2:]+names),
		{`{ sni = ["a.b"], pool = "r" }`, `lb.toml:4: listener.a.routes[0].pool: found "r"; there is no such pool; needs the NAME of a [pool.NAME] table`},
		{`{ sni = ["a.b"] }`, `lb.toml:4: listener.a.routes[0].pool: missing; needs the name of a pool`},
		{`{ pool = "p" }`, `lb.toml:4: listener.a.routes[0].sni: missing; needs a list of server names, such as ["db.example.com"], or the key alpn`},
		{`{ sni = [], pool = "p" }`, `lb.toml:4: listener.a.routes[0].sni: found an empty list; needs a list of server names, such as ["db.example.com"], or the key alpn`},
		{`{ alpn = [], pool = "p" }`, `lb.toml:4: listener.a.routes[0]: neither sni nor alpn says whom it is for; needs one of them; sni = ["*"] is for everybody`},
		{`{ alpn = [""], pool = "p" }`, `lb.toml:4: listener.a.routes[0].alpn[0]: found ""; no protocol of ALPN; needs 1 to 255 bytes, such as "h2", "http/1.1", "postgresql" or "dot"`},
		{`{ alpn = ["x", "x"], pool = "p" }`, `lb.toml:4: listener.a.routes[0].alpn[1]: found "x"; the list has it already`},
		{`{ sni = ["a.b", "A.b"], pool = "p" }`, `lb.toml:4: listener.a.routes[0].sni[1]: found "a.b"; listener.a.routes[0].sni[0] on line 4 has this pattern already` + once},
		{"{ sni = ['*.a'], pool = 'p' },\n{ sni = ['*.a'], pool = 'q' }", `lb.toml:5: listener.a.routes[1].sni[0]: found "*.a"; listener.a.routes[0].sni[0] on line 4 has this pattern already` + once},
		{"{ sni = ['*'], alpn = ['x'], pool = 'p' },\n{ alpn = ['y', 'x'], pool = 'q' }", `lb.toml:5: listener.a.routes[1]: found "*"; listener.a.routes[0].sni[0] on line 4 has this pattern already with alpn "x"` + once},
		{`{ sni = "a.b", pool = "p" }`, `lb.toml:4: listener.a.routes[0].sni: found the string "a.b"; needs a list of server names, such as ["db.example.com"], or the key alpn`},
	} {
		doc := routed("pool = 'p'", tt[0])
		if tt[1] == "" {
			wantErrors(t, doc)
		} else {
			wantErrors(t, doc, tt[1])
		}
	}
	const route = `{ sni = ["a.b"], pool = "p" }`
	wantErrors(t, routed("", route), `lb.toml:1: listener.a.pool: missing; needs the pool of clients that no route fits, or "" to refuse them, or a route with sni = ["*"]`)
	wantErrors(t, routed("", `{ sni = ["*"], alpn = ["x"], pool = "p" }`), `lb.toml:1: listener.a.pool: missing; needs the pool of clients that no route fits, or "" to refuse them, or a route with sni = ["*"]`)
	wantErrors(t, routed("", `{ sni = ["*"], pool = "p" }`))
	wantErrors(t, routed("pool = ''", route))
	wantErrors(t, routed("pool = 'r'", route), `lb.toml:6: listener.a.pool: found "r"; there is no such pool; needs the NAME of a [pool.NAME] table`)
	wantErrors(t, routed("protocol = 'udp'\npool = 'p'", route), `lb.toml:3: listener.a.routes: found a list; protocol is "udp"; allowed if protocol is "tcp"`)
	wantErrors(t, routed("pool = 'p'\nprofile = 'dns'\ncache = {}", route), `lb.toml:3: listener.a.routes: the listener answers DNS questions, and routes need a TLS ClientHello; needs profile = "" and no table cache`)
	wantErrors(t, routed("pool = 'p'\ninspect_timeout = '5ms'", route), `lb.toml:7: listener.a.inspect_timeout: found "5ms"; allowed is 10ms to 1h`)
	wantErrors(t, "[listener.a]\naddress = ':1'\nroutes = []\n"+routedPools, `lb.toml:1: listener.a.pool: missing; needs the name of a pool`)
}

// TestRoutedPools holds which pools a listener uses, and what else looks at all of them.
func TestRoutedPools(t *testing.T) {
	c := mustParse(t, routed("pool = 'p'", `{ sni = ["A.B"], pool = "q" }`, `{ sni = ["*"], pool = "q" }`))
	l := c.Listeners[0]
	if got := l.Pools(); !slices.Equal(got, []string{"p", "q"}) || l.DefaultPool() != "q" || l.Routes[0].SNI[0] != "a.b" {
		t.Errorf("pools %q, default %q, %+v", got, l.DefaultPool(), l.Routes)
	}
	want := []string{`lb.toml:7: listener.a.pool: found "p"; every client fits listener.a.routes[1]: nobody comes here`}
	if got := c.Warnings(); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	c = mustParse(t, routed("pool = 'p'\n", `{ sni = ["a.b"], pool = "q" }`))
	if got := c.Warnings(); len(got) > 0 || c.Listeners[0].DefaultPool() != "p" {
		t.Errorf("default %q, warnings %q", c.Listeners[0].DefaultPool(), got)
	}
	doc := routed("pool = 'p'", `{ sni = ["a.b"], pool = "q" }`)
	wantErrors(t, doc+"send_proxy = 'v2'\n")
	wantErrors(t, strings.Replace(doc, "10.0.0.2:1", "127.0.0.1:1", 1), `lb.toml:10: pool.q.backends[0].address: found "127.0.0.1:1"; listener.a.address on line 2, ":1", listens there and sends its clients to this pool: each session makes another`)

	for keys, want := range map[string]string{
		"hash_key = 'sni'":                       `pool.q.hash_key: found "sni"; algorithm "least_conn" does not hash: this key changes nothing`,
		"hash_key = 'sni'\nalgorithm = 'maglev'": "",
	} {
		got := mustParse(t, doc+keys+"\n").Warnings()
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.HasSuffix(got[0], want)) {
			t.Errorf("%s: warnings %q, want %q", keys, got, want)
		}
	}
	got := mustParse(t, "listener.a = { pool = 'p', address = ':1', inspect_timeout = '1s' }\n"+
		"[pool.p]\nbackends = ['10.0.0.1:1']\nalgorithm = 'maglev'\nhash_key = 'sni'\n").Warnings()
	if len(got) != 2 || !strings.Contains(got[0], "inspect_timeout: found \"1s\"; the listener has no routes") ||
		!strings.Contains(got[1], "listener.a has neither routes nor tls and reads no ClientHello") {
		t.Errorf("warnings %q", got)
	}
}

// TestRoutesCompared holds that a reload sees changed routes.
func TestRoutesCompared(t *testing.T) {
	from := mustParse(t, routed("pool = 'p'", `{ sni = ["a.b"], pool = "q" }`))
	for _, other := range []string{`{ sni = ["a.c"], pool = "q" }`, `{ sni = ["a.b"], pool = "p" }`,
		`{ sni = ["a.b"], alpn = ["x"], pool = "q" }`, `{ sni = ["a.b"], pool = "q" }, { sni = ["b"], pool = "q" }`} {
		got := from.Compare(mustParse(t, routed("pool = 'p'", other)))
		if len(got) != 1 || strings.Join(got[0].Keys, ".") != "listener.a.routes" {
			t.Errorf("%s: %+v", other, got)
		}
	}
	if got := from.Compare(mustParse(t, routed("pool = 'p'", `{ sni = ["A.b"], pool = "q" }`))); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}
