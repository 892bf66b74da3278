package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDiscoveryMistakes(t *testing.T) {
	const (
		head     = "listener.a = { pool = 'p', address = ':1' }\n[pool.p.discovery]\n" // two lines
		dns      = "type = 'dns'\nname = 'db.internal'\nport = 5432\n"
		srv      = "type = 'srv'\nname = '_pg._tcp.db.internal'\n"
		file     = "type = 'file'\nfile = '/etc/b.toml'\n"
		noType   = `type: missing; needs the kind of source: "dns", "srv", "file", "patroni", "sentinel" or "etcd"`
		noName   = `name: missing; needs the host name to ask for, such as "redis.internal"`
		noPort   = `port: missing; needs the backends' port, 1 to 65535`
		noFile   = `file: missing; needs the path of a list of backends`
		badName  = `; this is not a host name; needs one such as "redis.internal" or "_redis._tcp.internal"`
		resolver = `; needs "IP:PORT" or "[IPV6]:PORT" of a DNS server`
	)
	for _, tt := range []struct {
		doc  string
		want []string // each behind its line
	}{
		{dns, nil},
		{srv, nil},
		{file, nil},
		{"", []string{"2: " + noType}},
		{"name = 'h'\nport = 1\nfile = 'x'\nresolver = '10.0.0.1:53'\n", []string{"2: " + noType}},
		{"type = 'consul'\n", []string{`3: type: found "consul"; allowed is "dns", "srv", "file", "patroni", "sentinel" or "etcd"`}},
		{"type = 'dsn'\n", []string{`3: type: found "dsn"; allowed is "dns", "srv", "file", "patroni", "sentinel" or "etcd", did you mean "dns"?`}},
		{"type = ''\n", []string{`3: type: found ""; allowed is "dns", "srv", "file", "patroni", "sentinel" or "etcd"`}},
		{"type = 1\nname = 'a b'\n",
			[]string{`3: type: found the integer 1; needs the kind of source: "dns", "srv", "file", "patroni", "sentinel" or "etcd"`,
				`4: name: found "a b"` + badName}},
		{"type = 'dns'\n", []string{"2: " + noName, "2: " + noPort}},
		{"type = 'srv'\n", []string{"2: " + noName}},
		{"type = 'file'\n", []string{"2: " + noFile}},
		{dns + "file = 'x'\n", []string{`6: file: found the string "x"; type is "dns"; allowed if type is "file"`}},
		{srv + "file = ''\n", []string{`5: file: found the string ""; type is "srv"; allowed if type is "file"`}},
		{srv + "port = 53\n", nil},
		{srv + "port = 0\n", []string{`5: port: found 0; allowed is 1 to 65535`}},
		{file + "port = 0\n", []string{`5: port: found the integer 0; type is "file"; allowed if type is "dns" or "srv"`}},
		{srv + "family = 'ipv6'\nallow_loopback = true\n", nil},
		{dns + "family = 'any'\n", nil},
		{dns + "family = 'inet'\nallow_loopback = 1\n",
			[]string{`6: family: found "inet"; allowed is "any", "ipv4" or "ipv6", did you mean "ipv4"?`,
				`7: allow_loopback: found the integer 1; needs true or false`}},
		{file + "family = 'ipv4'\nallow_loopback = true\n", []string{
			`5: family: found the string "ipv4"; type is "file"; allowed if type is "dns" or "srv"`,
			`6: allow_loopback: found true; type is "file"; allowed if type is "dns", "srv" or "etcd"`}},
		{file + "name = 'a b'\nresolver = 53\n", []string{
			`5: name: found the string "a b"; type is "file"; allowed if type is "dns" or "srv"`,
			`6: resolver: found the integer 53; type is "file"; allowed if type is "dns" or "srv"`}},
		{"type = 'dns'\nname = ''\nport = 0\n",
			[]string{`4: name: found ""` + badName, `5: port: found 0; allowed is 1 to 65535`}},
		{"type = 'dns'\nname = '10.0.0.1'\nport = 65536\n", []string{`4: name: found "10.0.0.1"` + badName,
			`5: port: found 65536; allowed is 1 to 65535`}},
		{"type = 'srv'\nname = 'db.internal:53'\n", []string{`4: name: found "db.internal:53"` + badName}},
		{"type = 'file'\nfile = ''\n", []string{`4: file: found ""; needs the path of a list of backends`}},
		{dns + "resolver = '10.0.0.1:53'\n", nil},
		{srv + "resolver = '[fe80::1%eth0]:53'\n", nil},
		{dns + "resolver = ''\n", nil},
		{dns + "resolver = 'ns.internal:53'\n",
			[]string{`6: resolver: found "ns.internal:53"; "ns.internal" is a host name` + resolver}},
		{dns + "resolver = '10.0.0.1'\n", []string{`6: resolver: found "10.0.0.1"; the port is missing` + resolver}},
		{dns + "resolver = ':53'\n", []string{`6: resolver: found ":53"; the host is missing` + resolver}},
		{dns + "resolver = '0.0.0.0:53'\n",
			[]string{`6: resolver: found "0.0.0.0:53"; this address can be listened on but not connected to`}},
		{dns + "refresh = '100ms'\non_error = 'empty'\n", nil},
		{dns + "refresh = '99ms'\non_error = 'ignore'\n", []string{`6: refresh: found "99ms"; allowed is 100ms to 24h`,
			`7: on_error: found "ignore"; allowed is "keep" or "empty"`}},
		{file + "refresh = 5\n",
			[]string{`5: refresh: found the integer 5; needs a duration with a unit, such as "250ms", "2s" or "5m"`}},
		{dns + "ttl = '5s'\n", []string{`6: ttl: unknown key; allowed here: type, name, port, resolver, family, allow_loopback, refresh, on_error`}},
	} {
		var want []string
		for _, w := range tt.want {
			line, rest, _ := strings.Cut(w, " ")
			want = append(want, "lb.toml:"+line+" pool.p.discovery."+rest)
		}
		wantErrors(t, head+tt.doc, want...)
	}
	wantErrors(t, "listener.a = { pool = 'p', address = ':1' }\npool.p.discovery = 'dns'\n",
		`lb.toml:2: pool.p.discovery: found the string "dns"; needs a table`)
	wantErrors(t, head+dns+"[pool.p]\nbackends = []\n")
	wantErrors(t, head+dns+"[pool.p]\nbackends = 5\n",
		`lb.toml:7: pool.p.backends: found the integer 5; needs at least one backend, such as [{ address = "10.0.0.11:6379" }]`)
	wantErrors(t, head+dns+"[pool.p]\nbackends = [{}]\n",
		`lb.toml:7: pool.p.backends[0].address: missing; needs an address, such as "10.0.0.11:6379"`)
}

// TestResolveWithDiscovery: the backends beside discovery are looked up, what it asks for is not.
func TestResolveWithDiscovery(t *testing.T) {
	c := mustParse(t, `listener.a = { pool = "p", address = ":1" }
pool.p.discovery = { type = "dns", name = "other", port = 1 }
pool.p.backends = [{ address = "db:1" }]
`)
	if err := c.Resolve(t.Context(), hosts(map[string]string{"db": "10.0.0.1"}), nil); err != nil {
		t.Fatal(err)
	}
	if got := c.Pools[0].Backends[0].Addr.String(); got != "10.0.0.1:1" {
		t.Errorf("the backend is at %s", got)
	}
}

func TestParseBackends(t *testing.T) {
	want := []Backend{
		{Name: "10.0.0.1:1", Address: "10.0.0.1:1", Weight: 1, Mode: "ready",
			Addr: netip.MustParseAddrPort("10.0.0.1:1")},
		{Name: "b2", Address: "[::ffff:10.0.0.2]:1", Weight: 0, MaxSessions: 9, MaxRate: Rate{500, time.Second, 50},
			Tier: 2, Zone: "a", Mode: "drain",
			Addr: netip.MustParseAddrPort("10.0.0.2:1")},
	}
	const list = `[{"address": "10.0.0.1:1"},
 {"name": "b2", "address": "[::ffff:10.0.0.2]:1", "weight": 0, "max_sessions": 9, "max_rate": "500/s burst 50", "tier": 2, "zone": "a", "mode": "drain"}]`
	for _, tt := range []struct {
		file, doc string
		want      []Backend
	}{
		{"b.toml", "[[backends]]\naddress = '10.0.0.1:1'\n[[backends]]\nname = 'b2'\naddress = '[::ffff:10.0.0.2]:1'\nweight = 0\nmax_sessions = 9\nmax_rate = '500/s burst 50'\ntier = 2\nzone = 'a'\nmode = 'drain'\n", want},
		{"b", "backends = [{ address = '10.0.0.1:1' }]", want[:1]},
		{"b.json", list, want},
		{"b", list, want},
		{"b.toml", "\ufeff\r\n\t" + list + "\n", want},
		{"b.json", `{"backends": ` + list + `}`, want},
		{"b", " {\"\\u0062ackends\":" + list + "}\r\n", want},
		{"b", "[ ]", []Backend{}},
		{"b", `{"backends":[]}`, []Backend{}},
		{"b", "backends = []", []Backend{}},
	} {
		got, err := ParseBackends(tt.file, []byte(tt.doc))
		if err != nil {
			t.Errorf("%s with %q: %v", tt.file, tt.doc, err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s with %q: -want +got\n%s", tt.file, tt.doc, diff)
		}
	}
}

func TestParseBackendsMistakes(t *testing.T) {
	const (
		needsList = `needs a list of backends, such as [{ address = "10.0.0.11:6379" }], or [] for none`
		needsIP   = `; needs "IP:PORT", "[IPV6]:PORT", "IP" for each client's port, or "unix:PATH": it is discovery of type "dns" that resolves names`
	)
	for _, tt := range []struct {
		doc  string // {"backends": is the JSON of backends =
		want []string
	}{
		{"[{},\n5]", []string{`1: backends[0].address: missing; needs an address, such as "10.0.0.11:6379"`,
			`2: backends[1]: found the integer 5; needs a table`}},
		// a table's header
		{"[5]", []string{`1: 5: unknown key; allowed here: backends`, `1: backends: missing; ` + needsList}},
		{`[{}]`, []string{`1: backends[0].address: missing; needs an address, such as "10.0.0.11:6379"`}},
		{`{}`, []string{`1: backends: missing; ` + needsList}},
		{``, []string{`1: backends: missing; ` + needsList}},
		{"# cut\nbackend = []", []string{`1: backends: missing; ` + needsList,
			`2: backend: unknown key, did you mean "backends"?`}},
		{"backends = 3", []string{`1: backends: found the integer 3; ` + needsList}},
		{`{"backends": null}`, []string{`1: backends: found null; ` + needsList}},
		{"{\n\"backends\":\n {}}", []string{`2: backends: found a table; ` + needsList}},
		{`[{"address": null, "weight": null}]`, []string{
			`1: backends[0].address: found null; needs an address, such as "10.0.0.11:6379"`,
			`1: backends[0].weight: found null; needs a whole number, 0 to 256`}},
		{"[{\"address\": \"db.internal:1\"},\n {\"address\": \":1\"}, {\"address\": \"h\"},\n{\"address\": \"0.0.0.0:1\"}]", []string{
			`1: backends[0].address: found "db.internal:1"; "db.internal" is a host name` + needsIP,
			`2: backends[1].address: found ":1"; the host is missing` + needsIP,
			`2: backends[2].address: found "h"; "h" is a host name` + needsIP,
			`3: backends[3].address: found "0.0.0.0:1"; this address can be listened on but not connected to`}},
		{"[[backends]]\naddress = 'h:1'\n",
			[]string{`2: backends[0].address: found "h:1"; "h" is a host name` + needsIP}},
		{"[{\"address\": \"10.0.0.1:1\",\n\"name\": \"a/b\"},\n{\"address\": \"10.0.0.1:1\",\n\"zone\": \"a b\"},\n{\"address\":\"10.0.0.2:1\",\"name\":\"x\"},\n{\"address\":\"10.0.0.3:1\",\"name\":\"x\"}]", []string{
			`2: backends[0].name: found "a/b"; needs 1 to 64 letters, digits, '_', '-' or '.'`,
			`3: backends[1].address: found "10.0.0.1:1"; backends[0] on line 1 has the same address`,
			`4: backends[1].zone: found "a b"; needs 1 to 64 letters, digits, '_', '-' or '.', or ""`,
			`6: backends[3].name: found "x"; backends[2] on line 5 has the same name`}},
		{"[{\"address\": \"10.0.0.1:1\", \"weight\": 1.0, \"tier\": 1e3},\n{\"address\": \"10.0.0.2:1\", \"weight\": 257, \"tier\": 99999999999999999999,\n\"max_sessions\": 1e999, \"max_rate\": \"5/d\", \"mode\": \"redy\"}]", []string{
			`1: backends[0].tier: found the number 1000.0; needs a whole number, 0 to 65535`,
			`1: backends[0].weight: found the number 1.0; needs a whole number, 0 to 256`,
			`2: backends[1].tier: found the number 1e+20; needs a whole number, 0 to 65535`,
			`2: backends[1].weight: found 257; allowed is 0 to 256`,
			`3: backends[1].max_rate: found the string "5/d"; needs a rate with a unit, such as "100/s" or "600/m burst 20"`,
			`3: backends[1].max_sessions: found the number 1e999; too large to be read`,
			`3: backends[1].mode: found "redy"; allowed is "ready", "drain" or "maintenance", did you mean "ready"?`}},
		{"{\"backends\": [\n{\"address\": \"10.0.0.1:1\",\n\"weight\": 300,\n\"weight\": 2}],\n\"backends\": [5]}",
			[]string{
				`4: backends[0].weight: line 3 has this key already`,
				`5: backends: line 1 has this key already`}},
		{"[{\"adress\": \"10.0.0.1:1\", \"a\\nb\": [{}]}]", []string{
			`1: backends[0]."a\nb": unknown key; allowed here: name, address, weight, max_sessions, max_rate, tier, zone, mode, check`,
			`1: backends[0].address: missing; needs an address, such as "10.0.0.11:6379"`,
			`1: backends[0].adress: unknown key, did you mean "address"?`}},
		{"[]]", []string{`1: not valid JSON: invalid character ']' after top-level value`}},
		{"{}\n{}", []string{`2: not valid JSON: invalid character '{' after top-level value`}},
		{"[{\"address\": \"10.0.0.1:1\"},\n]",
			[]string{`2: not valid JSON: invalid character ']' looking for beginning of value`}},
		{"{\"backends\": [],\n}",
			[]string{`2: not valid JSON: invalid character '}' looking for beginning of object key string`}},
		{"[{\"address\": \"10.0.\n0.1:1\"}]", []string{`1: not valid JSON: invalid character '\n' in string literal`}},
		{"[{\"address\": \"10.0.0.1:1\", // here\n\"x\": 1}]",
			[]string{`1: not valid JSON: invalid character '/' looking for beginning of object key string`}},
		{"[{\n", []string{`1: not valid JSON: unexpected end of JSON input`}},
		{"[{\"a\": \"\x00\"}]", []string{`1: found a NUL byte; needs a text file in UTF-8`}},
		{"[{\"a\":\n \"\xff\"}]", []string{`2: found the byte 0xff; needs a text file in UTF-8`}},
		{"[\n{\"a\":" + strings.Repeat("[", MaxFileBytes/2),
			[]string{`2: tables and lists are nested more than 32 deep`}},
		{"{\"a\":\n" + strings.Repeat("{\"a\":", 1000), []string{`2: tables and lists are nested more than 32 deep`}},
		{"\nbackends = nul", []string{`2: not valid TOML: expected value but found "nul" instead; a text needs quotes: backends = "nul"`}},
	} {
		var want []string
		for _, w := range tt.want {
			want = append(want, "b:"+w)
		}
		_, err := ParseBackends("b", []byte(tt.doc))
		if _, ok := errors.AsType[Errors](err); !ok || err.Error() != strings.Join(want, "\n") {
			t.Errorf("document:\n%.200s\ngot:\n%v\nwant:\n%s", tt.doc, err, strings.Join(want, "\n"))
		}
	}
}

// TestParseBackendsByName: what only the name of the file makes JSON.
func TestParseBackendsByName(t *testing.T) {
	for doc, want := range map[string]string{
		"":               "b.json:1: not valid JSON: unexpected end of JSON input",
		"\n backends":    "b.json:2: not valid JSON: invalid character 'b' looking for beginning of value",
		"\nnull\n":       "b.json:2: found null; needs a list of backends, or a table with the key \"backends\"",
		`"backends"`:     "b.json:1: found the string \"backends\"; needs a list of backends, or a table with the key \"backends\"",
		"[\n5]":          "b.json:2: backends[0]: found the integer 5; needs a table",
		`[["backends"]]`: "b.json:1: backends[0]: found a list; needs a table",
	} {
		if _, err := ParseBackends("b.json", []byte(doc)); err == nil || err.Error() != want {
			t.Errorf("%q gives %v, want %s", doc, err, want)
		}
	}
	large := make([]byte, MaxFileBytes+1)
	if _, err := ParseBackends("b.json", large); err == nil ||
		err.Error() != "b.json: found more than 4MiB; needs a file of at most that size" {
		t.Errorf("%d bytes give %v", len(large), err)
	}
}

// TestParseBackendsMany: ten thousand backends, as many as discovery takes, in either form.
func TestParseBackendsMany(t *testing.T) {
	var list strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&list, "{%q: \"10.0.%d.%d:1\"},\n", "address", i/250, i%250)
	}
	items := strings.TrimSuffix(list.String(), ",\n")
	for _, doc := range []string{"[" + items + "]", "backends = [" + strings.ReplaceAll(items, `"address":`,
		"address =") + "]"} {
		got, err := ParseBackends("b", []byte(doc))
		if err != nil || len(got) != 10_000 || got[9_999].Address != "10.0.39.249:1" {
			t.Errorf("%d backends, %.100v", len(got), err)
		}
	}
	for _, piece := range []string{"{},\n", "{\"k%d\": 1},\n", "[[]],\n", "%d,"} { // no work grows with the square
		var b strings.Builder
		for i := 0; b.Len() < MaxFileBytes/16; i++ {
			b.WriteString(strings.Replace(piece, "%d", fmt.Sprint(i), 1))
		}
		if _, err := ParseBackends("b.json", []byte("["+b.String()+"0]")); err == nil {
			t.Errorf("%q, repeated, is accepted", piece)
		}
	}
}
