package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// pg returns Postgres messages from words, a type and the body of each: "Q:select 1". A zero byte is written as ~.
func pg(messages ...string) string {
	var b strings.Builder
	for _, m := range messages {
		kind, body, _ := strings.Cut(m, ":")
		b.WriteString(kind)
		b.Write(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))))
		b.WriteString(strings.ReplaceAll(body, "~", "\x00"))
	}
	return b.String()
}

// pgRequest returns a message without a type.
func pgRequest(code uint32, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return string(binary.BigEndian.AppendUint32(b, code)) + body
}

var (
	pgStartup = client(pgRequest(3<<16, "user\x00limeload\x00database\x00postgres\x00\x00"))
	pgSSL     = client(pgRequest(1234<<16|5679, ""))
	pgGSS     = client(pgRequest(1234<<16|5680, ""))
	pgReady   = server(pg("Z:I"))
	pgLogin   = server(pg("R:~~~~", "S:server_version~15~", "K:~~~~~~~~", "Z:I"))
	pgCopyIn  = server(pg("G:~~~"))
	pgError   = server(pg("E:SERROR~~"))
	pgDone    = server(pg("C:SELECT 1~"))
	pgBatch   = pg("P:~select~~~", "B:~~~~~~~~", "D:P~", "E:~~~~~")
)

// loggedIn is a session behind its login, and then what is given.
func loggedIn(session ...turn) []turn {
	return append([]turn{busy, pgStartup, busy, pgLogin, rests}, session...)
}

// postgresSessions are sessions as clients and servers have them.
var postgresSessions = map[string][]turn{
	"password": {pgStartup, server(pg("R:~~~\x03")), busy, client(pg("p:secret~")),
		busy, pgLogin, rests},
	"refused": {pgStartup, server(pg("R:~~~\x03")), client(pg("p:x~")),
		server(pg("E:SFATAL~~")), busy},
	"no TLS":                              {pgSSL, busy, server("N"), busy, pgStartup, pgLogin, rests},
	"neither":                             {pgGSS, server("N"), pgSSL, server("N"), pgStartup, pgLogin, rests},
	"TLS":                                 {pgSSL, busy, server("S"), hidden, client("\x16\x03\x01"), hidden},
	"GSSAPI":                              {pgGSS, server("G"), hidden},
	"old server, or one that cannot fork": {pgSSL, server("Ecould not fork\n\x00"), hidden},
	"not waiting for the answer":          {pgSSL, pgStartup, hidden},
	"more behind the answer":              {pgSSL, server("NN"), hidden},
	"cancel":                              {client(pgRequest(1234<<16|5678, "pppp"+"kkkk")), hidden},
	"TLS at once":                         {client("\x16\x03\x01\x02\x00\x01\x00\x01"), hidden},
	"old protocol":                        {client(pgRequest(2<<16, strings.Repeat("x", 288))), hidden},
	"server first":                        {server(pg("E:SFATAL~~")), hidden},
	"query with the startup": {
		client(pgStartup.text + pg("Q:begin~")), pgLogin, busy, server(pg("C:BEGIN~", "Z:T")), busy,
	},

	"query": loggedIn(client(pg("Q:select 1~")), busy, server(pg("T:~~", "D:~~", "D:~~", "C:SELECT 2~")), busy,
		pgReady, rests),
	"transaction": loggedIn(client(pg("Q:begin~")), server(pg("C:BEGIN~", "Z:T")), busy,
		client(pg("Q:oops~")), pgError, server(pg("Z:E")), busy,
		client(pg("Q:rollback~")), server(pg("C:ROLLBACK~", "Z:I")), rests),
	"two queries": loggedIn(client(pg("Q:select 1~", "Q:select 2~")), pgDone, pgReady, busy, pgDone, pgReady, rests),
	"empty query": loggedIn(client(pg("Q:~")), server(pg("I", "Z:I")), rests),
	"function":    loggedIn(client(pg("F:~~~~~~~~~~")), busy, server(pg("V:~~~~", "Z:I")), rests),
	"extended": loggedIn(client(pgBatch), busy, client(pg("S")), busy,
		server(pg("1", "2", "n", "C:SELECT 0~")), busy, pgReady, rests),
	"extended with flush": loggedIn(client(pgBatch+pg("H")), server(pg("1", "2", "n", "C:SELECT 0~")), busy,
		client(pg("S")), busy, pgReady, rests),
	"flush alone": loggedIn(client(pg("H")), rests),
	"sync alone":  loggedIn(client(pg("S")), busy, pgReady, rests),
	"portal suspended": loggedIn(client(pgBatch+pg("S")), server(pg("1", "2", "T:~~", "D:~~", "s", "Z:I")), rests,
		client(pg("C:S~")), busy, client(pg("S")), server(pg("3", "Z:I")), rests),
	"pipeline": loggedIn(client(pgBatch+pg("S")+pgBatch+pg("S")), server(pg("1", "2")), busy, pgReady, busy,
		pgError, busy, pgReady, rests),
	"pipeline that goes on": loggedIn(client(pgBatch+pg("S")), client(pgBatch), server(pg("1", "2", "Z:I")), busy,
		client(pg("S")), pgReady, rests),
	"query in a batch that failed": loggedIn(client(pg("P:~oops~~~", "Q:select 1~", "S")), pgError, pgReady, busy,
		client(pg("Q:select 1~")), pgDone, pgReady, busy), // the server skips the first query, and that is not known
	"cut by the server": loggedIn(server(pg("E:SFATAL~C57P01~~")), busy),
	"terminate":         loggedIn(client(pg("X")), hidden),

	"at any time": loggedIn(server(pg("A:~~~~ch~x~")), rests, server(pg("S:a~b~")), rests, server(pg("N:SNOTICE~~")),
		rests, client(pg("Q:select 1~")), server(pg("N:SNOTICE~~")), pgDone, pgReady, server(pg("A:~~~~ch~x~")), rests),
	"listen": loggedIn(client(pg("Q:listen ch~")), server(pg("C:LISTEN~", "Z:I")), rests),

	"copy in": loggedIn(client(pg("Q:copy~")), pgCopyIn, busy, client(pg("d:1", "d:2")), busy, client(pg("c")), busy,
		server(pg("C:COPY 2~", "Z:I")), rests),
	"copy in given up": loggedIn(client(pg("Q:copy~")), pgCopyIn, client(pg("d:1", "f:no~")), pgError, pgReady, rests),
	"copy in with sync": loggedIn(client(pg("Q:copy~")), pgCopyIn, client(pg("d:1", "S", "H", "d:1", "c")),
		server(pg("C:COPY 2~", "Z:I")), rests),
	"two copies in a query": loggedIn(client(pg("Q:copy;copy~")), pgCopyIn, client(pg("d:1", "c")),
		server(pg("C:COPY 1~")), pgCopyIn, busy, client(pg("c")), server(pg("C:COPY 0~", "Z:I")), rests),
	"failed copy in": loggedIn(client(pg("Q:copy~")), pgCopyIn, client(pg("d:x")), pgError, busy,
		client(pg("d:y")), busy, pgReady, rests, client(pg("d:z", "c")), rests,
		client(pg("Q:copy~")), pgCopyIn, client(pg("c")), server(pg("C:COPY 0~", "Z:I")), rests),
	"failed copy in, and a query": loggedIn(client(pg("Q:copy~")), pgCopyIn, client(pg("d:x", "c", "Q:select 1~")),
		pgError, pgReady, busy, pgDone, pgReady, rests),
	"extended copy in": loggedIn(client(pgBatch+pg("S")), server(pg("1", "2", "n")), pgCopyIn, busy,
		client(pg("d:1", "c")), busy, server(pg("C:COPY 1~")), busy, client(pg("S")), busy, pgReady, rests),
	"extended copy in with flush": loggedIn(client(pgBatch+pg("H")), server(pg("1", "2", "n")), pgCopyIn, busy,
		client(pg("d:1", "c", "S")), server(pg("C:COPY 1~", "Z:I")), rests),
	"extended copy in that fails": loggedIn(client(pgBatch+pg("H")), server(pg("1", "2", "n")), pgCopyIn,
		client(pg("d:x")), pgError, client(pg("d:y", "c", "S")), busy, pgReady, rests),
	"extended copy in that fails, after a sync": loggedIn(client(pgBatch+pg("S")), server(pg("1", "2", "n")), pgCopyIn,
		client(pg("d:x", "c", "S")), pgError, hidden),
	"copy in behind an earlier batch": loggedIn(client(pgBatch+pg("S")+pgBatch+pg("S")), server(pg("1", "2", "Z:I")),
		server(pg("1", "2", "n")), pgCopyIn, client(pg("c", "S")), server(pg("C:COPY 0~", "Z:I")), rests),
	"copy in without waiting": loggedIn(client(pg("Q:copy~", "d:1", "c")), busy, pgCopyIn, busy,
		server(pg("C:COPY 1~", "Z:I")), rests),
	"copy in without waiting that fails": loggedIn(client(pg("Q:copy~", "d:1", "c")), pgError, busy, pgReady, rests,
		client(pg("Q:copy~")), pgCopyIn, busy, client(pg("c")), server(pg("C:COPY 0~", "Z:I")), rests),
	"copy in without waiting, and sync": loggedIn(client(pg("Q:copy~", "d:1", "c", "S")), pgCopyIn, busy,
		server(pg("C:COPY 1~", "Z:I")), busy, pgReady, rests),
	"two copies, without waiting for the first": loggedIn(client(pg("Q:copy;copy~", "c")), pgCopyIn,
		server(pg("C:COPY 0~")), pgCopyIn, busy, client(pg("c")), server(pg("C:COPY 0~", "Z:I")), rests),
	"two copies without waiting": loggedIn(client(pg("Q:copy;copy~", "c", "c")), hidden),
	"extended copy in without waiting": loggedIn(client(pgBatch+pg("d:1", "c")), busy, client(pg("S")), busy,
		server(pg("1", "2", "n")), pgCopyIn, busy, server(pg("C:COPY 1~", "Z:I")), rests),
	"extended copy in without waiting that fails": loggedIn(client(pgBatch+pg("d:1", "c", "S")),
		pgError, pgReady, rests),
	"sync before the data of a copy in":      loggedIn(client(pgBatch+pg("S", "c")), hidden),
	"query behind a copy in without waiting": loggedIn(client(pg("Q:copy~", "c", "Q:select 1~")), hidden),
	"replication after the end": loggedIn(client(pg("Q:START_REPLICATION 0/0~", "c")),
		server(pg("W:~~~")), hidden),
	"copy in in a pipeline": loggedIn(client(pg("Q:copy~", "S")), pgCopyIn, hidden),
	"query in a copy in": loggedIn(client(pg("Q:copy~")),
		pgCopyIn, client(pg("Q:select 1~")), hidden),
	"batch in a copy in": loggedIn(client(pg("Q:copy~")),
		pgCopyIn, client(pg("P:~~~~")), hidden),
	"copy in nobody wanted": loggedIn(pgCopyIn, hidden),
	"copy in twice":         loggedIn(client(pg("Q:copy~")), pgCopyIn, pgCopyIn, hidden),
	"ready in a copy in":    loggedIn(client(pg("Q:copy~")), pgCopyIn, pgReady, hidden),
	"copy out": loggedIn(client(pg("Q:copy~")), server(pg("H:~~~", "d:1", "d:2")), busy,
		server(pg("c", "C:COPY 2~", "Z:I")), rests),
	"replication": loggedIn(client(pg("Q:START_REPLICATION 0/0~")), server(pg("W:~~~")), busy,
		server(pg("d:wxxxxxxxx")), busy, client(pg("d:r")), busy, client(pg("c")), busy,
		server(pg("c", "C:COPY 0~", "Z:I")), rests),
	"query in replication": loggedIn(client(pg("Q:START_REPLICATION 0/0~")), server(pg("W:~~~")),
		client(pg("Q:x~")), hidden),
	"replication nobody wanted": loggedIn(server(pg("W:~~~")), hidden),

	"ready without a reason": loggedIn(pgReady, hidden),
	"unknown status":         loggedIn(client(pg("Q:select 1~")), server(pg("Z:X")), hidden),
	"long status":            loggedIn(client(pg("Q:select 1~")), server(pg("Z:II")), hidden),
	"no status":              loggedIn(client(pg("Q:select 1~")), server(pg("Z")), hidden),
	"unknown request":        loggedIn(client(pg("y:~")), hidden),
	"unknown reply":          loggedIn(server(pg("y:~")), hidden),
	"sync with a body":       loggedIn(client(pg("S:x")), hidden),
	"short length":           loggedIn(client("Q\x00\x00\x00\x03"), hidden),
	"negative length":        loggedIn(client("Q\xff\xff\xff\xff"), hidden),
	"long request":           loggedIn(client("d\x40\x00\x00\x04"), hidden),
	"longest request":        loggedIn(client("d\x40\x00\x00\x03"), busy),
	"short reply":            loggedIn(server("D\x00\x00\x00\x00"), hidden),
	"negative reply":         loggedIn(server("D\x80\x00\x00\x00"), hidden),
}

// TestPostgresTurns holds what is known of a session after each turn, in whatever pieces the bytes come.
func TestPostgresTurns(t *testing.T) { testSessions[PostgresTurns](t, postgresSessions) }

// FuzzPostgresTurns holds what fuzzTurns says.
func FuzzPostgresTurns(f *testing.F) { fuzzTurns[PostgresTurns](f, postgresSessions) }

// TestPostgresTurnsWithin holds that a session is not at rest within any message.
func TestPostgresTurnsWithin(t *testing.T) {
	for _, text := range []string{pg("Q:select 1~"), pg("S"), pg("P:~x~~~"), pg("d:xxx")} {
		for cut := 1; cut < len(text); cut++ {
			var p PostgresTurns
			if err := play(&p, loggedIn(client(text[:cut]), busy), func(n int) int { return n }); err != nil {
				t.Errorf("%q: %v", text[:cut], err)
			}
		}
	}
}

// rows returns a result of at least so many bytes, in rows of this size.
func rows(total, size int) []byte {
	row := pg("D:" + strings.Repeat("x", size-5))
	return []byte(strings.Repeat(row, (total+size-1)/size))
}

// TestTurnsAllocate holds that following a session allocates nothing.
func TestTurnsAllocate(t *testing.T) {
	var p PostgresTurns
	result, query := append(rows(4096, 64), pg("C:SELECT~", "Z:I")...), []byte(pg("Q:select~"))
	p.FromClient([]byte(pgStartup.text))
	p.FromBackend([]byte(pgLogin.text))
	var r RedisTurns
	command, reply := []byte("*2\r\n$6\r\nclient\r\n$2\r\nid\r\nping a\r\n"), []byte("*2\r\n$1\r\na\r\n:1\r\n+PONG\r\n")
	if n := testing.AllocsPerRun(100, func() {
		p.FromClient(query)
		p.FromBackend(result)
		r.FromClient(command)
		r.FromBackend(reply)
	}); n != 0 || !p.AtRest() || !r.AtRest() {
		t.Errorf("%v allocations, %s, %s", n, state(&p), state(&r))
	}
}

// BenchmarkPostgresTurns follows results in pieces of 16 KiB.
func BenchmarkPostgresTurns(b *testing.B) {
	for _, size := range []int{32, 128, 1024, 16384} {
		b.Run(fmt.Sprintf("rows_of_%d", size), func(b *testing.B) {
			p := PostgresTurns{stage: postgresTyped}
			result := rows(16384, size)
			b.SetBytes(int64(len(result)))
			for b.Loop() {
				p.FromBackend(result)
			}
		})
	}
}
