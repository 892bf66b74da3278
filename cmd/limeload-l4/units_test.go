package main

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"
)

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", 1288490189: "1.2 GiB",
		1 << 50: "1.0 PiB", 1<<64 - 1: "16.0 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 4200 * time.Microsecond: "4.2ms", 1500 * time.Millisecond: "1.5s",
		9999 * time.Millisecond: "9.9s", 42500 * time.Millisecond: "42s", 192 * time.Second: "3m12s",
		time.Minute: "1m0s", time.Hour - 1: "59m59s", 5*time.Hour + 7*time.Minute: "5h7m",
		76*time.Hour + 59*time.Minute: "3d4h",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v is %q, want %q", int64(d), got, want)
		}
	}
}

// TestCleanJSON: the meaning of the JSON stays the same, and nothing in it controls a terminal.
func TestCleanJSON(t *testing.T) {
	got, err := cleanJSON("\x1b[31m\u009b31m\x7f\u202e<é>\U000e0001", "")
	if want := `"\u001b[31m\u009b31m\u007f\u202e<é>\udb40\udc01"` + "\n"; err != nil || string(got) != want {
		t.Errorf("%s %v, want %s", got, err, want)
	}
}

// TestCleanIsPrintable: for any text the result is printable, and what was printable stays the same.
func TestCleanIsPrintable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "text"))
		got := clean(text)
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q is not printable", got)
		}
		if again := clean(got); again != got {
			t.Fatalf("%q was printable and became %q", got, again)
		}
		if lines := cleanLines(text); strings.Count(lines, "\n") != strings.Count(text, "\n") {
			t.Fatalf("%q has other lines than %q", lines, text)
		}
	})
}
