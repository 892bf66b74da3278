package conf

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEtcdMistakes(t *testing.T) {
	const head = "listener.a = { pool = 'p', address = ':1' }\n[pool.p.discovery]\ntype = 'etcd'\n"
	const good = "endpoints = ['https://10.0.0.1:2379']\nprefix = '/services/redis/'\n"
	const needs = `needs the beginning of the backends' keys, with a slash at its end, such as "/services/redis/"`
	for _, tt := range []struct {
		doc  string
		want []string // each behind its line
	}{
		{good, nil},
		{good + "user = 'u'\npassword_file = 'p'\nverify = false\nserver_name = 'etcd.internal'\nca = 'ca.pem'\n" +
			"cert = 'c.pem'\nkey = 'k.pem'\nallow_loopback = true\nrefresh = '1m'\non_error = 'empty'\n", nil},
		{"endpoints = ['http://etcd-1.internal:2379']\nprefix = 'redis/'\n", nil},
		{"", []string{`2: endpoints: missing; needs the addresses to ask, such as ["https://10.0.0.1:2379"] or ["10.0.0.1:26379"]`,
			`2: prefix: missing; needs the beginning of the backends' keys, such as "/services/redis/"`}},
		{"endpoints = ['10.0.0.1:2379']\nprefix = '/services/redis'\n", []string{
			`4: endpoints[0]: found "10.0.0.1:2379"; needs a URL with a host and a port, such as "https://10.0.0.1:2379"`,
			`5: prefix: found "/services/redis"; the slash at the end is missing; ` + needs}},
		{"endpoints = ['http://h:1']\nprefix = '/'\nca = 'x'\n", []string{
			`5: prefix: found "/"; ` + needs,
			`6: ca: found "x"; the discovery does not speak TLS; needs endpoints that begin with "https://"`}},
		{"endpoints = ['http://h:1']\nprefix = ''\n", []string{`5: prefix: found ""; ` + needs}},
		{"endpoints = ['http://h:1']\nprefix = '/a//b/'\n", []string{`5: prefix: found "/a//b/"; ` + needs}},
		{"endpoints = ['http://h:1']\nprefix = \"/a b/\"\n", []string{`5: prefix: found "/a b/"; ` + needs}},
		{good + "user = 'u'\nscope = 'main'\n", []string{
			`6: user: found "u"; its password_file is missing; needs both user and password_file, or none`,
			`7: scope: found the string "main"; type is "etcd"; allowed if type is "patroni"`}},
	} {
		var want []string
		for _, w := range tt.want {
			line, rest, _ := strings.Cut(w, " ")
			want = append(want, "lb.toml:"+line+" pool.p.discovery."+rest)
		}
		wantErrors(t, head+tt.doc, want...)
	}
}

func TestEtcdWarnings(t *testing.T) {
	const doc = "listener.a = { pool = 'p', address = ':1' }\n[pool.p.discovery]\ntype = 'etcd'\nprefix = '/a/'\n"
	for doc, want := range map[string]string{
		doc + "endpoints = ['https://10.0.0.1:1']\nuser = 'u'\npassword_file = 'p'\n": "",
		doc + "endpoints = ['https://10.0.0.1:1']\nverify = false\n": `lb.toml:6: pool.p.discovery.verify: found false; ` +
			`the discovery accepts any certificate: whoever answers in place of the endpoints decides where clients go`,
		doc + "endpoints = ['http://10.0.0.1:1']\nuser = 'u'\npassword_file = 'p'\n": `lb.toml:6: pool.p.discovery.user: ` +
			`found "u"; the password is sent without TLS: everybody on the way can read it`,
	} {
		if got := strings.Join(mustParse(t, doc).Warnings(), "\n"); got != want {
			t.Errorf("%s\nwarnings\n%s\nwant\n%s", doc, got, want)
		}
	}
}

func TestParseBackend(t *testing.T) {
	at := netip.MustParseAddrPort("10.0.0.1:1")
	for _, tt := range []struct {
		value string
		want  Backend
	}{
		{`{"address": "10.0.0.1:1"}`, Backend{Name: "r1", Address: "10.0.0.1:1", Weight: 1, Mode: "ready", Addr: at}},
		{`"10.0.0.1:1"`, Backend{Name: "r1", Address: "10.0.0.1:1", Weight: 1, Mode: "ready", Addr: at}},
		{"\n {\"address\": \"10.0.0.1:1\",\n\"name\": \"b\", \"weight\": 0, \"tier\": 2, \"mode\": \"drain\", \"zone\": \"a\"}\n",
			Backend{Name: "b", Address: "10.0.0.1:1", Mode: "drain", Tier: 2, Zone: "a", Addr: at}},
		{`{"address": "unix:/run/x"}`, Backend{Name: "r1", Address: "unix:/run/x", Weight: 1, Mode: "ready", Path: "/run/x"}},
	} {
		got, err := ParseBackend("r1", []byte(tt.value))
		if err != nil {
			t.Errorf("%s: %v", tt.value, err)
		} else if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s\n%s", tt.value, diff)
		}
	}
	const needs = `needs the JSON of one backend, such as {"address": "10.0.0.11:6379"}`
	for _, tt := range []struct{ name, value, want string }{
		{"r1", "", `found ""; ` + needs},
		{"r1", "10.0.0.1:6379", `found "10.0.0.1:6379"; ` + needs},
		{"r1", `[{"address": "10.0.0.1:1"}]`, `found "[{\"address\": \"10.0.0.1:1\"}]"; ` + needs},
		{"r1", `{"address": "10.0.0.1:1"}, {"address": "10.0.0.2:1"}`, `not valid JSON: invalid character ',' after top-level value`},
		{"r1", `{"address": "10.0.0.1:1"`, `not valid JSON: unexpected end of JSON input`},
		{"r1", `{}`, `address: missing; needs an address, such as "10.0.0.11:6379"`},
		{"r1", "{\"address\": \"10.0.0.1:1\",\n\"wieght\": 2, \"tier\": -1}",
			`line 2: tier: found -1; allowed is 0 to 65535, line 2: wieght: unknown key, did you mean "weight"?`},
		{"r1", `{"address": "db.internal:1"}`, `address: found "db.internal:1"; "db.internal" is a host name; ` +
			`needs "IP:PORT", "[IPV6]:PORT", "IP" for each client's port, or "unix:PATH": it is discovery of type "dns" that resolves names`},
		{"r 1\n", `{"address": "10.0.0.1:1"}`, `name: found "r 1\n"; ` + nameNeeds},
		{"", `"10.0.0.1:1"`, ""},
		{"r1", "{\"address\": \"10.0.0.1:1\x00\"}", `found a NUL byte; needs a text file in UTF-8`},
		{"r1", `"\u001b[2J"`, `address: found "\x1b[2J"; `},
	} {
		_, err := ParseBackend(tt.name, []byte(tt.value))
		if tt.want == "" && err == nil { // a key that ends with a slash: the address is the name
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q: error\n%v, want\n%s", tt.value, err, tt.want)
		}
	}
}

// FuzzParseBackend: whatever a value is, a backend has an address and a name, and an error is of one line.
func FuzzParseBackend(f *testing.F) {
	for _, value := range []string{`{"address": "10.0.0.1:1"}`, `"[::1]:1"`, `{`, `},{`, `"`, "{\"address\":\n1}", `"unix:/x"`} {
		f.Add("r1", []byte(value))
	}
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		b, err := ParseBackend(name, value)
		switch {
		case err != nil && strings.ContainsFunc(err.Error(), func(c rune) bool { return c < ' ' }):
			t.Errorf("error %q", err)
		case err == nil && (b.Name == "" || !b.Addr.IsValid() && b.Path == ""):
			t.Errorf("backend %+v", b)
		}
	})
}
