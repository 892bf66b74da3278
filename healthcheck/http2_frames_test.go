package healthcheck

import (
	"io"
	"strings"
	"testing"
)

func TestFrameFilter(t *testing.T) {
	const settings, unknown, data = "\x00\x00\x02\x04\x00\x00\x00\x00\x00ab", "\x00\x00\x03\x42\x00\x00\x00\x00\x00abc",
		"\x00\x00\x01\x00\x00\x00\x00\x00\x01x"
	long := "\x00\x40\x01\x42\x00\x00\x00\x00\x00" + strings.Repeat("y", 1<<14+1)
	for in, want := range map[string]string{
		"":                                  "",
		settings + data:                     settings + data,
		settings + unknown + data + unknown: settings + data,
		unknown + settings:                  unknown + settings,
		"HTTP/1.1 400 Bad Request\r\n":      "HTTP/1.1 400 Bad Request\r\n",
		settings + long + unknown:           settings + long + unknown,
		settings + "\x00\x00\x00":           settings,
	} {
		for _, sizes := range [][]byte{nil, {255}, {7, 0, 3}} {
			f := &frameFilter{Conn: &chunks{b: []byte(in), sizes: sizes}}
			if got, _ := io.ReadAll(f); string(got) != want {
				t.Errorf("%.60q comes as %.60q, want %.60q", in, got, want)
			}
		}
	}
}

func FuzzFrameFilter(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x42\x00\x00\x00\x00\x00x"), []byte{3})
	f.Fuzz(func(t *testing.T, b, sizes []byte) {
		got, _ := io.ReadAll(&frameFilter{Conn: &chunks{b: b, sizes: sizes}})
		whole, _ := io.ReadAll(&frameFilter{Conn: &chunks{b: b, sizes: []byte{255}}})
		if string(got) != string(whole) || len(got) > len(b) {
			t.Errorf("%q comes as %q in pieces, as %q at once", b, got, whole)
		}
	})
}
