package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestAccess reads who may come in, in all ways of writing.
func TestAccess(t *testing.T) {
	doc, _ := with("listener.a", `access = { allow = ["10.0.0.0/8", "::1", "::ffff:192.0.2.0/120"], `+
		`deny = ["10.66.0.0/16"], deny_file = "deny.txt" }`)
	a := mustParse(t, doc).Listeners[0].Access
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("192.0.2.0/24")}
	if !slices.Equal(a.AllowPrefixes, want) || !slices.Equal(a.DenyPrefixes, []netip.Prefix{
		netip.MustParsePrefix("10.66.0.0/16")}) || a.DenyFile != "deny.txt" {
		t.Errorf("%+v", a)
	}
	for _, tt := range []struct {
		table     string
		on, allow bool
	}{
		{`{}`, false, false},
		{`{ allow = [], deny = [] }`, false, false},
		{`{ deny = ["::/0"] }`, true, false},
		{`{ deny_file = "x" }`, true, false},
		{`{ allow_file = "x" }`, true, true},
		{`{ allow = ["::/0"] }`, true, true},
	} {
		doc, _ := with("listener.a", "access = "+tt.table)
		a := mustParse(t, doc).Listeners[0].Access
		if a.On() != tt.on || a.AllowOnly() != tt.allow {
			t.Errorf("%s: on %v, allow %v", tt.table, a.On(), a.AllowOnly())
		}
	}
}

// TestAccessMistakes holds what is said about mistakes in the table.
func TestAccessMistakes(t *testing.T) {
	const path = "listener.a.access"
	many := strings.Repeat(`"10.0.0.1", `, 1001)
	for _, tt := range []struct{ table, want string }{
		{`{ allow = ["10.0.0.0/8"], deny = ["10.0.0.0/16"] }`, ``},
		{`{ allow = "10.0.0.0/8" }`, `allow: found the string "10.0.0.0/8"; needs a list of strings`},
		{`{ allow = [` + many + `] }`, `allow: found a list of 1001; allowed is 0 to 1000; allow_file has room for more`},
		{`{ deny = ["10.0.0.1/8"] }`, `deny[0]: found "10.0.0.1/8"; it has bits behind the first 8; ` +
			`needs "10.0.0.0/8" or "10.0.0.1"`},
		{`{ deny = ["fe80::1%eth0"] }`, `deny[0]: found "fe80::1%eth0"; a prefix has no zone; ` + prefixNeeds +
			`, did you mean "fe80::1"?`},
		{`{ deny = ["fe80::%eth0/64"] }`, `deny[0]: found "fe80::%eth0/64"; a prefix has no zone; ` + prefixNeeds +
			`, did you mean "fe80::"?`},
		{`{ deny = ["example.com"] }`, `deny[0]: found "example.com"; ` + prefixNeeds},
		{`{ deny = ["10.0.0.0/33"] }`, `deny[0]: found "10.0.0.0/33"; ` + prefixNeeds},
		{`{ allow = ["::1", "10.0.0.7"], deny = ["::ffff:10.0.0.7/128"] }`, `deny[0]: found "::ffff:10.0.0.7/128"; ` + path +
			`.allow[1] on line 6 allows this prefix; needs to be in one of the lists alone`},
		{`{ allow_file = "x", deny_file = "x" }`, `deny_file: found "x"; allow_file on line 6 is the same file`},
		{`{ allow_files = "x" }`, `allow_files: unknown key, did you mean "allow_file"?`},
	} {
		doc, at := with("listener.a", "access = "+tt.table)
		if tt.want == "" {
			wantErrors(t, doc)
			continue
		}
		wantErrors(t, doc, fmt.Sprintf("lb.toml:%d: %s.%s", at, path, tt.want))
	}
}

// TestAccessWarnings holds when a denied prefix changes nothing.
func TestAccessWarnings(t *testing.T) {
	for _, tt := range []struct {
		table string
		warns []string // elements of deny
	}{
		{`{ deny = ["10.0.0.0/8"] }`, nil},
		{`{ allow = ["10.0.0.0/8"], deny = ["10.66.0.0/16"] }`, nil},
		{`{ allow = ["10.0.0.0/8"], deny = ["192.0.2.0/24", "10.0.0.1", "0.0.0.0/0", "::/0"] }`, []string{"0", "2", "3"}},
		{`{ allow = ["10.0.0.0/8"], allow_file = "x", deny = ["192.0.2.0/24"] }`, nil},
		{`{ allow_file = "x", deny = ["192.0.2.0/24"] }`, nil},
	} {
		doc, _ := with("listener.a", "access = "+tt.table)
		var got []string
		for _, w := range mustParse(t, doc).Warnings() {
			if _, after, is := strings.Cut(w, "listener.a.access.deny["); is {
				got = append(got, after[:1])
			}
		}
		if !slices.Equal(got, tt.warns) {
			t.Errorf("%s warns of %q, want %q", tt.table, got, tt.warns)
		}
	}
	for address, warns := range map[string]bool{`"unix:/run/a"`: true, `["unix:/run/a", ":1"]`: false} {
		doc := strings.Replace(profiled("[listener.a.access]", `deny_file = "x"`), `":1"`, address, 1)
		want := "lb.toml:4: listener.a.access: clients of a Unix socket have no address: this table changes nothing, and " +
			"permissions of the listener says who may connect"
		if got := mustParse(t, doc).Warnings(); warns != (len(got) > 0) || warns && got[0] != want {
			t.Errorf("%s warns of %q", address, got)
		}
	}
}
