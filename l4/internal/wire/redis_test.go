package wire

import (
	"slices"
	"strings"
	"testing"
)

// TestRedisCommand holds that both forms of a command are read, and that one in part is waited for.
func TestRedisCommand(t *testing.T) {
	for _, tc := range []struct{ command, name string }{
		{"*1\r\n$4\r\nPING\r\n", "PING"},
		{"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\n\r\n\r\n\r\n", "SET"},
		{"*0\r\n", ""},
		{"*-1\r\n", ""},
		{"*1\r\n$0\r\n\r\n", ""},
		{"PING\r\n", "PING"},
		{"GET  a\n", "GET"},
		{"\r\n", ""},
	} {
		for cut := range tc.command {
			if _, size, ok := ReadRedisCommand([]byte(tc.command[:cut])); size != 0 || !ok {
				t.Errorf("%q: %d bytes, %v", tc.command[:cut], size, ok)
			}
		}
		name, size, ok := ReadRedisCommand([]byte(tc.command + "*1\r\n"))
		if string(name) != tc.name || size != len(tc.command) || !ok {
			t.Errorf("%q: %q, %d bytes, %v", tc.command, name, size, ok)
		}
	}
	for _, bad := range []string{
		"*x\r\n", "*1048577\r\n", "*\r\n", "*99999999999999999999999999\r\n", "*1\r\nPING\r\n", "*1\r\nP",
		"*1\r\n$-1\r\n",
		"*1\r\n$999999999999\r\n", "*1\r\n$x\r\n", strings.Repeat("x", 64<<10), "*2\r\n$1\r\na\r\n\r\n",
	} {
		if _, size, ok := ReadRedisCommand([]byte(bad)); ok {
			t.Errorf("%.40q: %d bytes", bad, size)
		}
	}
}

// FuzzRedisCommand holds that a command is within what was sent, that bytes which were refused stay so whatever
// follows, and that a whole command stays what it was.
func FuzzRedisCommand(f *testing.F) {
	for _, command := range []string{"*1\r\n$4\r\nPING\r\n", "PING\r\n", "*-1\r\n", "*2\r\n$3\r\nGET\r\n$1\r\n",
		"\r\n", "*1\r\nx"} {
		f.Add([]byte(command), []byte("a\r\n"))
	}
	f.Fuzz(func(t *testing.T, stream, more []byte) {
		name, size, ok := ReadRedisCommand(stream)
		if size > len(stream) || len(name) > size || !ok && size != 0 {
			t.Fatalf("%q, %d of %d bytes, %v", name, size, len(stream), ok)
		}
		longerName, longer, longerOK := ReadRedisCommand(append(slices.Clone(stream), more...))
		if !ok && longerOK || size > 0 && (longer != size || string(longerName) != string(name)) {
			t.Fatalf("%q, %d bytes, %v; with more %q, %d bytes, %v", name, size, ok, longerName, longer, longerOK)
		}
	})
}
