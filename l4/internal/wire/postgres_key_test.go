package wire

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// message is a message of a server.
func message(kind byte, body string) []byte {
	m := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))
	return append(m, body...)
}

// greeting is what a server sends, up to the key.
func greeting(key string) []byte {
	return slices.Concat(
		message('R', "\x00\x00\x00\x0asaslsasl"), message('R', "\x00\x00\x00\x00"),
		message('S', "server_version\x0018.1\x00"), message('N', "SNOTICE\x00"), message('K', key),
	)
}

const (
	shortKey = "\x00\x00\x12\x34abcd"
	ready    = "Z\x00\x00\x00\x05I"
)

var longKey = "\x00\x00\x12\x34" + strings.Repeat("k", 256)

// scan gives a scanner a stream in pieces of that size, and returns the key, and how many bytes it wanted.
func scan(stream []byte, size int) (key string, wanted int) {
	var s PostgresKeyScanner
	for p := range slices.Chunk(stream, size) {
		key, more := s.Scan(p)
		wanted += len(p)
		if key != "" || !more {
			return key, wanted
		}
	}
	return "", wanted + 1
}

// TestPostgresKey holds that the key is found in a stream in pieces of any size, whatever comes before it.
func TestPostgresKey(t *testing.T) {
	for name, before := range map[string]string{
		"":                          "",
		"TLS declined":              "N",
		"TLS and GSSAPI declined":   "NN",
		"another version":           string(message('v', "\x00\x03\x00\x00\x00\x00\x00\x00")),
		"a notice before the login": string(message('N', "SNOTICE\x00")),
		"declined, and a notice":    "N" + string(message('N', "SNOTICE\x00")),
	} {
		for _, key := range []string{shortKey, longKey} {
			stream := append([]byte(before), greeting(key)...)
			for size := 1; size <= len(stream)+6; size++ {
				got, wanted := scan(append(slices.Clone(stream), ready...), size)
				if got != key || wanted >= len(stream)+size {
					t.Fatalf("%s, by %d: %q after %d of %d bytes", name, size, got, wanted, len(stream))
				}
			}
		}
	}
}

// TestNoPostgresKey holds that a scanner gives up as soon as there can be no key, and at the latest after 64 KiB.
func TestNoPostgresKey(t *testing.T) {
	login := string(message('R', "\x00\x00\x00\x00"))
	for name, stream := range map[string]string{
		"TLS":                      "S",
		"GSSAPI":                   "G",
		"declined, and then TLS":   "NS",
		"declined too often":       "NNNR",
		"an error":                 "E",
		"the client is refused":    login + "E",
		"no key":                   login + "Z",
		"a result":                 login + "T",
		"a key before the login":   "K",
		"HTTP":                     "H",
		"a length of 3":            "R\x00\x00\x00\x03",
		"a length of 2 GiB":        "R\x80\x00\x00\x00",
		"a key of three bytes":     login + "K\x00\x00\x00\x0b",
		"a key of 257 bytes":       login + "K\x00\x00\x01\x09",
		"a notice without an end":  strings.Repeat(string(message('N', strings.Repeat("n", 1019))), 64) + "N",
		"one that is far too long": "N\x00\x01\x00\x05",
	} {
		if key, wanted := scan([]byte(stream), 1); key != "" || wanted != len(stream) {
			t.Errorf("%s: key %q, gave up after %d of %d bytes", name, key, wanted, len(stream))
		}
	}
}

// TestPostgresKeyAllocates holds that a stream without a key costs no memory.
func TestPostgresKeyAllocates(t *testing.T) {
	var s PostgresKeyScanner
	stream := greeting(longKey)
	if n := testing.AllocsPerRun(100, func() {
		s = PostgresKeyScanner{}
		s.Scan(stream[:len(stream)-265])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPostgresCancel holds that a CancelRequest is read as it is written.
func TestPostgresCancel(t *testing.T) {
	for _, key := range []string{shortKey, longKey} {
		m := AppendPostgresCancel(nil, key)
		kind, size := ReadPostgresRequest(m)
		if kind != PostgresCancel || size != len(m) || string(PostgresCancelKey(m)) != key {
			t.Errorf("key of %d bytes: %d, %d bytes, %q", len(key), kind, size, PostgresCancelKey(m))
		}
	}
}

// FuzzPostgresKey holds that a scanner finds the same in a stream whatever its pieces are, that a key has the size that
// a key has, and that an end comes.
func FuzzPostgresKey(f *testing.F) {
	f.Add(greeting(shortKey), uint8(1))
	f.Add(append([]byte("NN"), greeting(longKey)...), uint8(7))
	f.Add([]byte("NSR\x00\x00\x00\x08\x00\x00\x00\x00Z"), uint8(3))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		var whole PostgresKeyScanner
		want, more := whole.Scan(stream)
		if want != "" && (len(want) < minPostgresKey || len(want) > maxPostgresKey || more) {
			t.Fatalf("a key of %d bytes, more %v", len(want), more)
		}
		if more && len(stream) > maxPostgresGreeting {
			t.Fatalf("%d bytes, and wants more", len(stream))
		}
		var s PostgresKeyScanner
		var got string
		for p := range slices.Chunk(stream, 1+int(size)) {
			if got, _ = s.Scan(p); got != "" {
				break
			}
		}
		if got != want {
			t.Fatalf("in pieces of %d: %q, at once %q", 1+int(size), got, want)
		}
		if more {
			return
		}
		if key, more := whole.Scan(stream); key != "" || more {
			t.Fatal("a scanner that is over goes on")
		}
	})
}
