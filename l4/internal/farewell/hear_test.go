package farewell

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/l4/internal/wire"
)

var (
	none = cause{text: `no backend of pool "db" is available`}
	full = cause{full: true, text: `all backends of pool "db" are full`}
)

// postgresMessage is a message of a length and a code, filled with zeros.
func postgresMessage(length int, code uint32) string {
	m := make([]byte, length)
	binary.BigEndian.PutUint32(m, uint32(length))
	binary.BigEndian.PutUint32(m[4:], code)
	return string(m)
}

var (
	ssl     = postgresMessage(8, 80877103)
	gss     = postgresMessage(8, 80877104)
	cancel  = postgresMessage(16, 80877102)
	startup = postgresMessage(41, 3<<16)
)

// TestHear holds what a client of each language is told, whether its bytes come at once or one by one.
func TestHear(t *testing.T) {
	noBackend := string(wire.AppendPostgresFatal(nil, "57P03", none.text))
	tooMany := string(wire.AppendPostgresFatal(nil, "53300", full.text))
	loading := "-LOADING no backend of pool \"db\" is available\r\n"
	postgresWith := func(c cause) func() speaker { return func() speaker { return &postgres{cause: c} } }
	redisWith := func(c cause) func() speaker { return func() speaker { return &redis{cause: c} } }
	dnsWith := func(c cause) func() speaker { return func() speaker { return &dns{why: c.dns()} } }
	query := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
	failed := "\x12\x34\x81\x82\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
	for _, tc := range []struct {
		name  string
		start func() speaker
		sends string
		gets  string
		ends  verdict
	}{
		{"postgres", postgresWith(none), startup, noBackend, said},
		{"postgres, full", postgresWith(full), startup, tooMany, said},
		{"postgres, TLS first", postgresWith(none), ssl + startup, "N" + noBackend, said},
		{"postgres, GSSAPI and TLS first", postgresWith(none), gss + ssl + startup, "NN" + noBackend, said},
		{"postgres, TLS and no more", postgresWith(none), ssl, "N", wait},
		{"postgres, TLS twice", postgresWith(none), ssl + ssl, "N", foreign},
		{"postgres, GSSAPI twice", postgresWith(none), gss + gss, "N", foreign},
		{"postgres, a cancel", postgresWith(none), cancel, "", said},
		{"postgres, a cancel after TLS", postgresWith(none), ssl + cancel, "N", said},
		{"postgres, part of a message", postgresWith(none), startup[:40], "", wait},
		{"postgres, a ClientHello", postgresWith(none), "\x16\x03\x01\x00", "", foreign},
		{"postgres, HTTP", postgresWith(none), "GET / HTTP/1.1\r\n\r\n", "", foreign},

		{"redis", redisWith(none), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", loading, said},
		{"redis, full", redisWith(full), "PING\r\n", "-ERR max number of clients reached\r\n", said},
		{"redis, a greeting", redisWith(none), "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", loading, wait},
		{"redis, a greeting and a command", redisWith(none), "auth x\r\nselect 1\r\nget a\r\n",
			strings.Repeat(loading, 3), said},
		{"redis, empty commands", redisWith(none), "\r\n*0\r\n\r\n", "", wait},
		{"redis, part of a command", redisWith(none), "*2\r\n$3\r\nGET\r\n$1\r\n", "", wait},
		{"redis, a large command", redisWith(none),
			"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5000\r\n" + strings.Repeat("x", 4999), loading, said},
		{"redis, no command", redisWith(none), "*1\r\nPING\r\n", "", foreign},

		{"dns", dnsWith(none), "\x00\x13" + query, "\x00\x13" + failed, said},
		{"dns, part of a question", dnsWith(none), "\x00\x13" + query[:18], "", wait},
		{"dns, an answer", dnsWith(none), "\x00\x13" + failed, "", foreign},
		{"dns, too short", dnsWith(none), "\x00\x02ab", "", foreign},
	} {
		for _, slowly := range []bool{false, true} {
			got, ends := tell(tc.start(), tc.sends, slowly)
			if got != tc.gets || ends != tc.ends {
				t.Errorf("%s, slowly %v: got %q, ends with %d, expected %q, %d",
					tc.name, slowly, got, ends, tc.gets, tc.ends)
			}
		}
	}
}

// tell gives a speaker a client's bytes, all at once or one by one until it has said its last word.
func tell(s speaker, sends string, slowly bool) (gets string, ends verdict) {
	piece := len(sends)
	if slowly {
		piece = 1
	}
	var heard, reply []byte
	for len(sends) > 0 && ends == wait {
		heard, sends = append(heard, sends[:piece]...), sends[piece:]
		var n int
		n, reply, ends = s.hear(heard, reply)
		heard = heard[n:]
	}
	return string(reply), ends
}

// TestPipelineBound holds that a pipeline of tiny messages cannot make a farewell say much.
func TestPipelineBound(t *testing.T) {
	for name, tc := range map[string]struct {
		speaker speaker
		message string
		most    int
	}{
		"redis":             {&redis{cause: none}, "x\n", 128 * 64},
		"redis's greetings": {&redis{cause: none}, "auth\n", 128 * 64},
		"dns":               {&dns{why: none.dns()}, "\x00\x0c\x12\x34" + strings.Repeat("\x00", 10), 128 * 64},
	} {
		_, reply, ends := tc.speaker.hear([]byte(strings.Repeat(tc.message, 10_000)), nil)
		if len(reply) > tc.most || ends != said {
			t.Errorf("%s: %d bytes, ends with %d", name, len(reply), ends)
		}
	}
}

// FuzzHear holds that no client makes a speaker go beyond what it has sent, or say anything unbounded.
func FuzzHear(f *testing.F) {
	f.Add(uint8(Postgres), ssl+startup)
	f.Add(uint8(Postgres), cancel)
	f.Add(uint8(Redis), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
	f.Add(uint8(DNS), "\x00\x02ab")
	f.Fuzz(func(t *testing.T, language uint8, sends string) {
		if len(sends) > maxPart {
			return
		}
		speakers := [...]func() speaker{
			func() speaker { return &postgres{cause: none} },
			func() speaker { return &redis{cause: none} },
			func() speaker { return &dns{why: none.dns()} },
		}
		start := speakers[int(language)%len(speakers)]
		n, reply, _ := start().hear([]byte(sends), nil)
		if n > len(sends) || len(reply) > len(sends)+maxReplies*128 {
			t.Fatalf("%d of %d bytes, %d said", n, len(sends), len(reply))
		}
		tell(start(), sends, true)
	})
}
