package wire

import (
	"encoding/binary"
	"slices"
	"testing"
)

// startup is a message of that length and code, filled with zeros.
func startup(length int, code uint32) []byte {
	m := make([]byte, max(length, 8))
	binary.BigEndian.PutUint32(m, uint32(length))
	binary.BigEndian.PutUint32(m[4:], code)
	return m
}

const (
	sslRequest    = 80877103
	gssRequest    = 80877104
	cancelRequest = 80877102
)

// TestPostgresRequest holds which messages begin a connection, and that one in part is waited for.
func TestPostgresRequest(t *testing.T) {
	for _, tc := range []struct {
		name    string
		message []byte
		want    PostgresRequest
	}{
		{"SSLRequest", startup(8, sslRequest), PostgresSSL},
		{"GSSENCRequest", startup(8, gssRequest), PostgresGSS},
		{"CancelRequest", startup(16, cancelRequest), PostgresCancel},
		{"CancelRequest with the longest key", startup(268, cancelRequest), PostgresCancel},
		{"StartupMessage", startup(41, 3<<16), PostgresStartup},
		{"StartupMessage of version 3.2", startup(41, 3<<16|2), PostgresStartup},
		{"the longest StartupMessage", startup(10_000, 3<<16), PostgresStartup},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for cut := range tc.message {
				if kind, size := ReadPostgresRequest(tc.message[:cut]); kind != PostgresNone || size != 0 {
					t.Fatalf("with %d bytes: %d, %d", cut, kind, size)
				}
			}
			kind, size := ReadPostgresRequest(append(tc.message, "more"...))
			if kind != tc.want || size != len(tc.message) {
				t.Errorf("got %d, %d bytes", kind, size)
			}
		})
	}
}

// TestPostgresRequestInvalid holds that what cannot become a request is found at once.
func TestPostgresRequestInvalid(t *testing.T) {
	for name, message := range map[string][]byte{
		"a TLS ClientHello":             {0x16},
		"HTTP":                          []byte("G"),
		"too long":                      {0, 0, 0x27, 0x11},
		"shorter than its head":         {0, 0, 0, 7},
		"version 2":                     startup(296, 2<<16),
		"an SSLRequest with a body":     startup(9, sslRequest),
		"a GSSENCRequest with a body":   startup(12, gssRequest),
		"a CancelRequest without key":   startup(12, cancelRequest),
		"a CancelRequest with too much": startup(269, cancelRequest),
	} {
		if kind, size := ReadPostgresRequest(message); kind != PostgresInvalid || size != 0 {
			t.Errorf("%s: %d, %d bytes", name, kind, size)
		}
	}
}

// TestAppendPostgresFatal holds the bytes of an ErrorResponse.
func TestAppendPostgresFatal(t *testing.T) {
	got := AppendPostgresFatal([]byte("before"), "57P03", "no")
	if want := "beforeE\x00\x00\x00\x1eSFATAL\x00VFATAL\x00C57P03\x00Mno\x00\x00"; string(got) != want {
		t.Errorf("got %q", got)
	}
}

// FuzzPostgresRequest holds that a request is within what was sent, that bytes which were refused stay so whatever
// follows, and that a whole message stays what it was.
func FuzzPostgresRequest(f *testing.F) {
	for _, m := range [][]byte{
		startup(8, sslRequest), startup(8, gssRequest), startup(16, cancelRequest), startup(41, 3<<16),
		{0x16, 3, 1}, nil,
	} {
		f.Add(m, []byte("\x00\x00\x00\x08"))
	}
	f.Fuzz(func(t *testing.T, stream, more []byte) {
		kind, size := ReadPostgresRequest(stream)
		if size > len(stream) || (size > 0) != (kind > PostgresInvalid) || size > 0 && size < 8 {
			t.Fatalf("%d with %d of %d bytes", kind, size, len(stream))
		}
		longer, longerSize := ReadPostgresRequest(append(slices.Clone(stream), more...))
		if kind != PostgresNone && (longer != kind || longerSize != size) {
			t.Fatalf("%d, %d bytes; with more %d, %d bytes", kind, size, longer, longerSize)
		}
		if kind == PostgresNone && len(stream) >= 10_000 {
			t.Fatalf("%d bytes, and waits for more", len(stream))
		}
	})
}
