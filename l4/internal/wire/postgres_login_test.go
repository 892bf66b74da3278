package wire

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// sasl is an AuthenticationSASL message with these mechanisms.
func sasl(mechanisms ...string) string {
	return string(message('R', "\x00\x00\x00\x0a"+strings.Join(mechanisms, "\x00")+"\x00\x00"))
}

// TestRemovePostgresBinding holds that only mechanisms with channel binding are removed, from a list that is whole.
func TestRemovePostgresBinding(t *testing.T) {
	version := string(message('v', "\x00\x03\x00\x00\x00\x00\x00\x00"))
	both, one := sasl("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"), sasl("SCRAM-SHA-256")
	for name, tc := range map[string]struct{ from, to string }{
		"both":                {both, one},
		"the other way round": {sasl("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"), one},
		"behind a version":    {version + both, version + one},
		"something follows":   {both + "more", one + "more"},
		"none":                {one, one},
		"nothing else":        {sasl("SCRAM-SHA-256-PLUS"), sasl("SCRAM-SHA-256-PLUS")},
		"a password in clear": {string(message('R', "\x00\x00\x00\x03")), string(message('R', "\x00\x00\x00\x03"))},
		"an error":            {string(message('E', "SFATAL\x00\x00")), string(message('E', "SFATAL\x00\x00"))},
		"a list without end": {
			string(message('R', "\x00\x00\x00\x0aA-PLUS\x00B")), string(message('R', "\x00\x00\x00\x0aA-PLUS\x00B")),
		},
		"a length of 3":        {"R\x00\x00\x00\x03\x00\x00\x00\x0a", "R\x00\x00\x00\x03\x00\x00\x00\x0a"},
		"a length of 4 GiB":    {"R\xff\xff\xff\xff\x00\x00\x00\x0a", "R\xff\xff\xff\xff\x00\x00\x00\x0a"},
		"TLS, which is no 'R'": {"\x16\x03\x03\x00\x05hello", "\x16\x03\x03\x00\x05hello"},
		"nothing":              {"", ""},
	} {
		if got := RemovePostgresBinding([]byte(tc.from)); string(got) != tc.to {
			t.Errorf("%s: %q, want %q", name, got, tc.to)
		}
	}
	for size := range len(both) {
		if got := RemovePostgresBinding([]byte(both[:size])); string(got) != both[:size] {
			t.Errorf("%d bytes: %q", size, got)
		}
	}
}

// FuzzRemovePostgresBinding holds that nothing is added, and that what was removed once is not there a second time.
func FuzzRemovePostgresBinding(f *testing.F) {
	f.Add([]byte(sasl("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")))
	f.Add([]byte(sasl("-PLUS", "-PLUS", "") + "more"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		once := slices.Clone(RemovePostgresBinding(slices.Clone(stream)))
		if len(once) > len(stream) {
			t.Fatalf("%q became %q", stream, once)
		}
		if twice := RemovePostgresBinding(slices.Clone(once)); !bytes.Equal(once, twice) {
			t.Fatalf("%q became %q and then %q", stream, once, twice)
		}
	})
}
