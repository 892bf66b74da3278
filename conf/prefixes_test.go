package conf

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// readPrefixes returns the prefixes of a text.
func readPrefixes(text string) (prefixes []string, err error) {
	add := func(p netip.Prefix) { prefixes = append(prefixes, p.String()) }
	err = ReadPrefixes("deny.txt", strings.NewReader(text), add)
	return prefixes, err
}

func TestReadPrefixes(t *testing.T) {
	got, err := readPrefixes("\ufeff# a list\r\n\r\n10.0.0.0/8\r\n \t192.0.2.1 # one\n2001:db8::/32#\n\n#10.0.0.1/8\n" +
		"::ffff:198.51.100.0/120\n::1")
	if want := []string{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "198.51.100.0/24", "::1/128"}; err != nil ||
		!slices.Equal(got, want) {
		t.Errorf("got %q, error %v", got, err)
	}
	if got, err := readPrefixes(""); err != nil || got != nil {
		t.Errorf("an empty text has %q, error %v", got, err)
	}
	long := "10.0.0.0/8 #" + strings.Repeat("x", maxPrefixLine-len("10.0.0.0/8 #"))
	if got, err := readPrefixes(long + "\r\n" + long); err != nil || len(got) != 2 {
		t.Errorf("lines of %d bytes have %q, error %v", len(long), got, err)
	}
	lost := errors.New("lost")
	if err := ReadPrefixes("f", iotest.ErrReader(lost), nil); err != lost {
		t.Errorf("error %v", err)
	}
}

func TestPrefixMistakes(t *testing.T) {
	long := strings.Repeat("1", maxPrefixLine+1)
	cut := quote(long)
	for _, tt := range []struct{ line, want string }{
		{"10.0.0.1/8", `found "10.0.0.1/8"; it has bits behind the first 8; needs "10.0.0.0/8" or "10.0.0.1"`},
		{"10.0.0.0/33", `found "10.0.0.0/33"; ` + prefixNeeds},
		{"10.0.0.0/8 10.1.0.0/16", `found "10.0.0.0/8 10.1.0.0/16"; ` + prefixNeeds},
		{"10.0.0.0/8 ; SBL1", `found "10.0.0.0/8 ; SBL1"; a comment begins with "#"; ` + prefixNeeds},
		{"fe80::1%eth0", `found "fe80::1%eth0"; a prefix has no zone; ` + prefixNeeds + `, did you mean "fe80::1"?`},
		{"\x1b[31m", `found "\x1b[31m"; ` + prefixNeeds},
		{"10.0.0.0/8\x00", `found "10.0.0.0/8\x00"; it has a NUL byte; needs a text file in UTF-8`},
		{"# caf\xe9", `found "# caf\xe9"; it is not UTF-8; needs a text file in UTF-8`},
		{long, `found a line of more than 256 bytes, ` + cut + `; needs one prefix a line`},
		{strings.Repeat("1", 200<<10), `found a line of more than 256 bytes, ` + cut + `; needs one prefix a line`},
	} {
		got, err := readPrefixes("10.0.0.0/8\n" + tt.line + "\n10.1.0.0/16\n")
		if want := "deny.txt:2: " + tt.want; err == nil || err.Error() != want || len(got) != 1 {
			t.Errorf("got %q, error\n%v, want\n%s", got, err, want)
		}
	}
}

// TestManyPrefixMistakes holds that no more than ten are reported one by one.
func TestManyPrefixMistakes(t *testing.T) {
	for n, want := range map[int]string{1: "", 10: "", 11: "and 1 more mistakes", 5000: "and 4990 more mistakes"} {
		_, err := readPrefixes(strings.Repeat("10.0.0.0/8\nx\n", n))
		errs, ok := errors.AsType[Errors](err)
		if !ok || errs[0].Line != 2 {
			t.Fatalf("%d mistakes: %v", n, err)
		}
		last := errs[len(errs)-1]
		if want == "" && (len(errs) != n || last.Line != 2*n) || want != "" && (len(errs) != 11 || last.Message != want) {
			t.Errorf("%d mistakes: %v", n, err)
		}
	}
}

// millionPrefixes returns a text of a million lines.
func millionPrefixes() []byte {
	var b bytes.Buffer
	for i := range 1_000_000 {
		fmt.Fprintf(&b, "%d.%d.%d.0/24\n", 1+i>>16, i>>8&255, i&255)
	}
	return b.Bytes()
}

// TestReadMillionPrefixes holds that one mistake among a million lines is found, in time.
func TestReadMillionPrefixes(t *testing.T) {
	text := bytes.Replace(millionPrefixes(), []byte("\n8.161.32.0/24\n"), []byte("\n8.161.32.1/24\n"), 1)
	began, n := time.Now(), 0
	err := ReadPrefixes("deny.txt", bytes.NewReader(text), func(netip.Prefix) { n++ })
	want := `deny.txt:500001: found "8.161.32.1/24"; it has bits behind the first 24; needs "8.161.32.0/24" or ` +
		`"8.161.32.1"`
	if err == nil || err.Error() != want || n != 500_000 {
		t.Errorf("%d prefixes, error\n%v, want\n%s", n, err, want)
	}
	if took := time.Since(began); took > 20*time.Second { // a fifth of a second where nothing else runs
		t.Errorf("it took %v", took)
	}
}

// TestTooManyPrefixes holds that a file has a bound.
func TestTooManyPrefixes(t *testing.T) {
	line := []byte("::\n")
	n := 0
	err := ReadPrefixes("deny.txt", bytes.NewReader(bytes.Repeat(line, MaxPrefixes+5)), func(netip.Prefix) { n++ })
	if want := "deny.txt:10000001: found more than 10000000 prefixes; needs fewer in one file"; err == nil ||
		err.Error() != want || n != MaxPrefixes {
		t.Errorf("%d prefixes, error %v", n, err)
	}
}

func BenchmarkReadPrefixes(b *testing.B) {
	text := millionPrefixes()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := ReadPrefixes("f", bytes.NewReader(text), func(netip.Prefix) {}); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzReadPrefixes(f *testing.F) {
	for _, text := range []string{"", "10.0.0.0/8\r\n", "# x\n::1", "::ffff:0:0/96\n", "10.0.0.1/8", "a%b", "\x00\n\xff",
		strings.Repeat("1", 300)} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n := 0
		err := ReadPrefixes("f", bytes.NewReader(text), func(p netip.Prefix) {
			if n++; !p.IsValid() || p != p.Masked() || p.Addr().Zone() != "" || p.Addr().Is4In6() && p.Bits() >= 96 {
				t.Errorf("%v", p)
			}
		})
		if lines := bytes.Count(text, []byte("\n")) + 1; n > lines {
			t.Errorf("%d prefixes in %d lines", n, lines)
		}
		if err == nil {
			return
		}
		errs, ok := errors.AsType[Errors](err)
		if !ok || len(errs) == 0 || len(errs) > maxPrefixMistakes+1 {
			t.Fatalf("%T %v", err, err)
		}
		for _, e := range errs {
			if s := e.Error(); strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) || len(s) > 600 {
				t.Errorf("%q", s)
			}
		}
	})
}
