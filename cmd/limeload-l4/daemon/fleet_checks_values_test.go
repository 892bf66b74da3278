package daemon

import (
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/pool"
)

// TestCheckKeys: keys tell seats from duties, whatever bytes the names have.
func TestCheckKeys(t *testing.T) {
	t.Parallel()
	for _, d := range []dutyKey{{"web", "10.0.0.1:80"}, {"web", ""}, {"a/b", "unix:/x/%2F"}, {"ü", "\x00"}} {
		got, node, is := parseCheckKey(d.key("n1"))
		if !is || got != d || node != "n1" {
			t.Errorf("%+v becomes %+v of %q, %t", d, got, node, is)
		}
	}
	if d, node, is := parseCheckKey(fleet.Checks + fleet.Key("n1")); !is || d.pool != "" || node != "n1" {
		t.Errorf("a seat becomes %+v of %q, %t", d, node, is)
	}
	for _, parts := range [][]string{
		{""}, {"a", "b", "c", "d"}, {"", "b", "n1"}, {"a", "", "n1"}, {"a", "b", ""}, {"a", "\x1b[31mn1"},
		{strings.Repeat("n", 65)},
	} {
		if _, _, is := parseCheckKey(fleet.Checks + fleet.Key(parts...)); is {
			t.Errorf("%q is a key", parts)
		}
	}
}

// TestReports: what others say is bounded, printable, and known, or it is nothing.
func TestReports(t *testing.T) {
	t.Parallel()
	one, all := dutyKey{"web", "b"}, dutyKey{"web", ""}
	for text, tt := range map[string]struct {
		dutyKey
		is bool
	}{
		`{"sum":"s","backends":{"b":{"verdict":"healthy"}}}`:                               {one, true},
		`{"sum":"s","backends":{"b":{"verdict":"healthy"},"c":{"verdict":"wrong_role"}}}`:  {all, true},
		`{"sum":"s","backends":{"b":{"verdict":"healthy"},"c":{"verdict":"wrong_role"}} }`: {one, false},
		`{"sum":"s","backends":{"c":{"verdict":"healthy"}}}`:                               {one, false},
		`{"sum":"s","backends":{"b":{"verdict":"splendid"}}}`:                              {one, false},
		`{"sum":"s","backends":{"b":{"verdict":"verdict(9)"}}}`:                            {one, false},
		`{"sum":"s","backends":{"b":{"verdict":"unknown"}}}`:                               {one, false},
		`{"sum":"s","backends":{"b":{"verdict":"unknown"},"c":{"verdict":"wrong_role"}}}`:  {all, true},
		`{"sum":"s","backends":{}}`:                                                        {all, false},
		`{"sum":"s"}`:                                                                      {one, false},
		`null`:                                                                             {one, false},
		`[]`:                                                                               {one, false},
		`{"sum":"s","backends":{"b":{"verdict":"healthy"}}} x`:                             {one, false},
		`{"backends":{"b":{"verdict":"healthy","reason":"` + strings.Repeat("x", 70000) + `"}}}`: {one, false},
	} {
		if r := parseReport(tt.dutyKey, []byte(text)); (r != nil) != tt.is {
			t.Errorf("%.80s: %+v", text, r)
		}
	}
	hostile := `{"sum":"s","backends":{"b":{"verdict":"unhealthy","role":"king","reason":"\u001b[31m\nx` +
		strings.Repeat("ü", 200) + `"}}}`
	r := parseReport(one, []byte(hostile))
	if r == nil {
		t.Fatal("a report with a bad reason is none")
	}
	f := r.Backends["b"]
	if f.Role != "" || len(f.Reason) > maxReason || !strings.HasPrefix(f.Reason, "[31mx") ||
		strings.ContainsAny(f.Reason, "\x1b\n") {
		t.Errorf("role %q, reason %q", f.Role, f.Reason)
	}
	for _, text := range []string{`{}`, `null`, `{"pools":[]}`, `x`, ``} {
		if s := parseSeat([]byte(text)); s != nil {
			t.Errorf("%s is a seat: %+v", text, s)
		}
	}
}

// FuzzReports: nothing in etcd makes a report that the pool does not take.
func FuzzReports(f *testing.F) {
	f.Add("checks/web/b/n1", []byte(`{"sum":"s","backends":{"b":{"verdict":"healthy"}}}`))
	f.Add("checks/n1", []byte(`{"pools":{"web":"s"}}`))
	f.Add("checks/web/n1", []byte(`{"sum":"s","backends":{"b":{"verdict":"wrong_role","reason":"\u0000"}}}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		d, node, is := parseCheckKey(key)
		if !is {
			return
		}
		if node == "" || printable(node, maxNodeName) != node {
			t.Errorf("node %q", node)
		}
		_ = parseSeat(value)
		r := parseReport(d, value)
		if r == nil {
			return
		}
		for id, one := range r.Backends {
			if v, is := verdictOfWord(one.Verdict); !is || v > pool.Fallback || len(one.Reason) > maxReason ||
				printable(one.Reason, maxReason) != one.Reason {
				t.Errorf("%q: %+v", id, one)
			}
		}
	})
}
