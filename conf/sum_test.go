package conf

import (
	"strings"
	"testing"
)

// sumBase is a configuration of one node of a fleet.
const sumBase = `
[global]
workers = 2
state_file = "a.json"
[fleet]
name = "edge"
node = "a"
endpoints = ["https://10.0.0.1:2379"]
cert = "a.pem"
key = "a.key"
[admin]
address = "127.0.0.1:9000"
[metrics]
address = "10.0.0.1:9001"
[listener.db]
address = "10.0.0.1:5432"
pool = "db"
[listener.web]
address = [":80", "unix:/run/web.sock"]
pool = "web"
[pool.db]
algorithm = "maglev"
zone = "one"
source = ["10.0.0.1"]
backends = [{ address = "10.0.1.1:5432" }, { address = "10.0.1.2:5432", weight = 2 }]
[pool.db.health]
type = "tcp"
[pool.web]
backends = [{ address = "10.0.1.1:80" }]
`

// TestSum: what belongs to one node does not change the sum, and everything else does.
func TestSum(t *testing.T) {
	sum := func(doc string) string { return mustParse(t, doc).Sum() }
	want := sum(sumBase)
	if len(want) != sumDigits {
		t.Errorf("the sum is %q", want)
	}
	for _, tt := range []struct {
		from, to string
		same     bool
	}{
		{`workers = 2`, `workers = 8`, true},
		{`state_file = "a.json"`, ``, true},
		{`node = "a"`, `node = "b"`, true},
		{`"a.pem"`, `"b.pem"`, true},
		{`"a.key"`, `"b.key"`, true},
		{`"127.0.0.1:9000"`, `"unix:/run/a.sock"`, true},
		{`"10.0.0.1:9001"`, `"10.0.0.2:9001"`, true},
		{`"10.0.0.1:5432"`, `"10.0.0.2:5432"`, true},
		{`"10.0.0.1:5432"`, `["[2001:db8::1]:5432"]`, true},
		{`zone = "one"`, `zone = "two"`, true},
		{`source = ["10.0.0.1"]`, ``, true},
		{`algorithm = "maglev"`, "algorithm = \"maglev\"\nretries = 2", true}, // its default
		{"[pool.web]\nbackends = [{ address = \"10.0.1.1:80\" }]\n", "", true},
		{`weight = 2`, `weight = 2, tier = 0`, true},
		{"# nothing", "", true},

		{`"10.0.0.1:5432"`, `"10.0.0.1:5433"`, false},
		{`"unix:/run/web.sock"`, `"unix:/run/www.sock"`, false},
		{`algorithm = "maglev"`, `algorithm = "ring_hash"`, false},
		{`weight = 2`, `weight = 3`, false},
		{`"10.0.1.2:5432"`, `"10.0.1.3:5432"`, false},
		{`type = "tcp"`, `type = "tls"`, false},
		{"[pool.db.health]\ntype = \"tcp\"", ``, false},
		{`algorithm = "maglev"`, "algorithm = \"maglev\"\nretries = 3", false},
		{`https://10.0.0.1:2379`, `https://10.0.0.2:2379`, false},
		{`name = "edge"`, `name = "core"`, false},
		{`[admin]`, "[log]\nlevel = \"debug\"\n[admin]", false},
		{"[listener.web]", "[listener.www]", false},
	} {
		doc := strings.Replace(sumBase, tt.from, tt.to, 1)
		if strings.HasPrefix(tt.from, "[pool.web]") { // only elsewhere in the file
			doc = tt.from + doc
		}
		if got := sum(doc); (got == want) != tt.same {
			t.Errorf("%q in place of %q: sum %s, was %s", tt.to, tt.from, got, want)
		}
	}
}

// TestSumSeesVariables: values count, and not how the file says them.
func TestSumSeesVariables(t *testing.T) {
	doc := strings.Replace(sumBase, `weight = 2`, `weight = 2, name = "${LIMELOAD_SUM_TEST:-b}"`, 1)
	plain := strings.Replace(sumBase, `weight = 2`, `weight = 2, name = "b"`, 1)
	if a, b := mustParse(t, doc).Sum(), mustParse(t, plain).Sum(); a != b {
		t.Errorf("with a variable the sum is %s, without %s", a, b)
	}
}

// TestOwnKeys: the keys that belong to one node exist.
func TestOwnKeys(t *testing.T) {
	known := make(map[string]bool)
	for line := range strings.Lines(string(mustParse(t, sumBase).Effective())) {
		key, _, _ := strings.Cut(line, " ")
		known[key] = true
	}
	for _, key := range ownKeys() {
		last := strings.TrimSpace(key[strings.LastIndex(key, ".")+1:])
		if !known[last] && !known["["+last+"]\n"] {
			t.Errorf("there is no key %s", key)
		}
	}
}
