package conf

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		e    Error
		want string
	}{
		{Error{File: "lb.toml", Message: "is a directory"}, `lb.toml: is a directory`},
		{Error{File: "lb.toml", Line: 3, Message: "not valid TOML"}, `lb.toml:3: not valid TOML`},
		{Error{File: "lb.toml", Line: 9, Path: "a.b", Found: "300", Allowed: "allowed is 0 to 256"},
			`lb.toml:9: a.b: found 300; allowed is 0 to 256`},
		{Error{File: "lb.toml", Line: 9, Path: "a.b", Message: "unknown key", Nearest: "c"},
			`lb.toml:9: a.b: unknown key, did you mean "c"?`},
		{Error{File: "l\nb", Line: 9, Path: "a.b", Found: "1", Message: "too few", Allowed: "needs 2"},
			`l\nb:9: a.b: found 1; too few; needs 2`},
	} {
		if got := tt.e.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestErrorsUnwrap(t *testing.T) {
	err := error(Errors{{File: "a", Message: "x"}, {File: "b", Message: "y", err: fs.ErrNotExist}})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("errors.Is does not see the cause of one mistake")
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.File != "a" {
		t.Errorf("errors.As gives %v, want the first mistake", e)
	}
}

func TestPath(t *testing.T) {
	for _, tt := range []struct {
		keys []string
		want string
	}{
		{nil, ``},
		{[]string{"pool", "redis-1", "retries"}, `pool.redis-1.retries`},
		{[]string{"pool", "eu.redis"}, `pool."eu.redis"`},
		{[]string{"", "a\nb", "é"}, `""."a\nb"."é"`},
		{[]string{strings.Repeat("x", 65)}, `"` + strings.Repeat("x", 64) + `"...`},
	} {
		if got := Path(tt.keys...); got != tt.want {
			t.Errorf("Path(%q) = %s, want %s", tt.keys, got, tt.want)
		}
	}
}

// TestQuoteIsSafe: whatever the text, what a message says of it is one short line of
// printable characters.
func TestQuoteIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 1000),
			func(b []byte) string { return string(b) })).Draw(t, "text")
		for _, safe := range []string{quote(s), printable(s), Path(s)} {
			if !utf8.ValidString(safe) || strings.ContainsFunc(safe, unprintable) {
				t.Errorf("%q becomes %q", s, safe)
			}
			if len(safe) > 10*maxMessage+5 { // "\U0010ffff" for each byte at most
				t.Errorf("%d bytes become %d", len(s), len(safe))
			}
		}
	})
}
