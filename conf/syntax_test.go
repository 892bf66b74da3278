package conf

import (
	"strings"
	"testing"
)

// TestSyntaxRemedies holds the remedies for typical mistakes of beginners in TOML.
func TestSyntaxRemedies(t *testing.T) {
	const (
		bad     = "lb.toml:2: not valid TOML: "
		newline = "expected a top-level item to end with a newline, comment, or EOF, but got "
	)
	for _, tt := range []struct{ doc, want string }{
		{"address = 127.0.0.1:80",
			bad + `Invalid float value: "127.0.0.1"; a text needs quotes: address = "127.0.0.1:80"`},
		{"address = :80 # all", bad + `expected value but found ':' instead; a text needs quotes: address = ":80"`},
		{"address = *:80", bad + `expected value but found '*' instead; a text needs quotes: address = "*:80"`},
		{"pool = redis", bad + `expected value but found "redis" instead; a text needs quotes: pool = "redis"`},
		{"idle_timeout = 30s", bad + newline + `'s' instead; a text needs quotes: idle_timeout = "30s"`},
		{"receive_buffer = 64KiB", bad + newline + `'K' instead; a text needs quotes: receive_buffer = "64KiB"`},
		{"state_file = /var/lib/x",
			bad + `expected value but found '/' instead; a text needs quotes: state_file = "/var/lib/x"`},
		{"level = info", bad + newline + `'o' instead; a text needs quotes: level = "info"`},
		{"watch = Yes", bad + `expected value but found "Yes" instead; needs watch = true`},
		{"watch = off", bad + `expected value but found "off" instead; needs watch = false`},
		{"address = \u201c:80\u201d",
			bad + "expected value but found '\u201c' instead; a text needs quotes: address = \":80\""},
		{"backends = [{ address = 10.0.0.1:1, weight = 2 }]",
			bad + `Invalid float value: "10.0.0.1"; a text needs quotes: address = "10.0.0.1:1"`},
		{"backends = [{ weight = 2, address = redis:1 }]",
			bad + `expected value but found "redis" instead; a text needs quotes: address = "redis:1"`},
		{`address: ":80"`, bad +
			`expected '.' or '=', but got ':' instead; needs KEY = VALUE, such as address = "..."`},
		{`address ":80"`, bad + `expected '.' or '=', but got '"' instead; needs KEY = VALUE, such as address = "..."`},
		{"bind *:80", bad + "expected '.' or '=', but got '*' instead; needs KEY = VALUE, or a table as in [listener.NAME]; `limeload-l4 example all` has them all"},
		{"listen web {", bad + "expected '.' or '=', but got 'w' instead; needs KEY = VALUE, or a table as in [listener.NAME]; `limeload-l4 example all` has them all"},
		{"retries = 1\n[pool.p]\nretries = 1\nretries = 2", "lb.toml:5: not valid TOML: line 4 has retries already"},
		{"[pool.p]\n[listener.a]\n[pool.p]", "lb.toml:4: not valid TOML: line 2 has [pool.p] already"},
		{"[pool.p.health]\n[pool.p]\n[pool.'p']", "lb.toml:4: not valid TOML: line 3 has [pool.p] already"},
		{"pool.p.queue = { max = 1, max = 2 }", bad + "line 2 has max already"},
		{"[pool.x]\nbackends = []\n[[pool.x.backends]]",
			"lb.toml:4: not valid TOML: line 3 has [[pool.x.backends]] already"},
		{"retries = 99999999999999999999", bad + "99999999999999999999 is out of range for int64"},
		{"max_sessions = 1,000,000", bad + newline + "',' instead; needs max_sessions = 1_000_000"},
		{"level = \u202e", bad + `expected value but found '\u202e' instead`},
		{"level = " + strings.Repeat("x", 600), bad + `expected value but found "` + strings.Repeat("x",
			maxMessage-len(`expected value but found "`)) + "..."},
	} {
		wantErrors(t, "# first\n"+tt.doc+"\n", tt.want)
	}
}
