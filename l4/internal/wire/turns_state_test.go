package wire

import (
	"math/rand/v2"
	"testing"
)

// TestTurnsState holds that another one goes on from any state as the first does.
func TestTurnsState(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"*1\r\n$4\r\nPING\r\n", "+PONG\r\n", "MULTI\r\n", "+OK\r\n", "EXEC\r\n", "*0\r\n",
		"$5\r\nhello\r\n", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "WATCH k\r\n"}
	for range 500 {
		var one, other RedisTurns
		for range 20 {
			p := []byte(pieces[r.IntN(len(pieces))])
			cut := r.IntN(len(p) + 1)
			client := p[0] != '+' && p[0] != '$' && r.IntN(4) > 0
			for _, part := range [][]byte{p[:cut], p[cut:]} {
				if !other.SetState(one.AppendState(nil)) {
					t.Fatalf("not a state: %+v", one)
				}
				if other != one {
					t.Fatalf("%+v became %+v", one, other)
				}
				if client {
					one.FromClient(part)
				} else {
					one.FromBackend(part)
				}
			}
		}
	}
	messages := []string{"\x00\x00\x00\x08\x00\x03\x00\x00", "Q\x00\x00\x00\x05\x00", "S\x00\x00\x00\x04",
		"Z\x00\x00\x00\x05I", "Z\x00\x00\x00\x05T", "R\x00\x00\x00\x08\x00\x00\x00\x00", "G\x00\x00\x00\x04"}
	for range 500 {
		var one, other PostgresTurns
		for i := range 20 {
			p := []byte(messages[r.IntN(len(messages))])
			if i == 0 {
				p = []byte(messages[0])
			}
			cut := r.IntN(len(p) + 1)
			for _, part := range [][]byte{p[:cut], p[cut:]} {
				if !other.SetState(one.AppendState(nil)) {
					t.Fatalf("not a state: %+v", one)
				}
				if other != one {
					t.Fatalf("%+v became %+v", one, other)
				}
				if p[0] == 0 || p[0] == 'Q' || p[0] == 'S' {
					one.FromClient(part)
				} else {
					one.FromBackend(part)
				}
			}
		}
	}
}

// FuzzTurnsState holds that no state of another process breaks what follows it.
func FuzzTurnsState(f *testing.F) {
	f.Add(new(PostgresTurns).AppendState(nil), []byte("Q\x00\x00\x00\x05\x00"), []byte("Z\x00\x00\x00\x05I"))
	f.Add(new(RedisTurns).AppendState(nil), []byte("PING\r\n"), []byte("+PONG\r\n"))
	f.Fuzz(func(t *testing.T, state, client, backend []byte) {
		sized := func(n int) []byte {
			b := make([]byte, n)
			copy(b, state)
			b[0] = turnsVersion
			return b
		}
		var p PostgresTurns
		if p.SetState(sized(postgresStateBytes)) {
			p.FromClient(client)
			p.FromBackend(backend)
		}
		var r RedisTurns
		if r.SetState(sized(redisStateBytes)) {
			r.FromClient(client)
			r.FromBackend(backend)
		}
	})
}
