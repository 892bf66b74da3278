package conf

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNearest(t *testing.T) {
	known := []string{"address", "pool", "backlog", "idle_timeout", "user_timeout", "half_close_timeout"}
	for _, tt := range []struct{ word, want string }{
		{"adress", "address"},
		{"addresss", "address"},
		{"addrses", "address"},
		{"Address", "address"},
		{"pol", "pool"},
		{"pools", "pool"},
		{"idel_timeout", "idle_timeout"},
		{"idle-timeout", "idle_timeout"},
		{"halfclose_timeout", "half_close_timeout"},
		{"routes", ""},
		{"", ""},
		{"x", ""},
		{strings.Repeat("x", 1<<20), ""},
	} {
		if got := nearest(tt.word, known); got != tt.want {
			t.Errorf("nearest(%.20q) = %q, want %q", tt.word, got, tt.want)
		}
	}
	if got := nearest("q", []string{"p"}); got != "" {
		t.Errorf("nearest(q) of p = %q, want none", got)
	}
}

func TestDistance(t *testing.T) {
	word := rapid.StringMatching(`[abc]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := distance(a, b)
		if (d == 0) != (a == b) {
			t.Errorf("distance(%q, %q) = %d", a, b, d)
		}
		if d != distance(b, a) {
			t.Errorf("distance(%q, %q) = %d but %d the other way", a, b, d, distance(b, a))
		}
		longer, shorter := max(len(a), len(b)), min(len(a), len(b))
		if d > longer || d < longer-shorter {
			t.Errorf("distance(%q, %q) = %d", a, b, d)
		}
	})
	if d := distance("idel", "idle"); d != 1 {
		t.Errorf("a swap counts %d", d)
	}
}
