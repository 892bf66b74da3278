package wire

import (
	"fmt"
	"strings"
	"testing"
)

// resp returns a command of Redis, made of the words of a text.
func resp(words string) string {
	var b strings.Builder
	args := strings.Fields(words)
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b.String()
}

var (
	redisOK     = server("+OK\r\n")
	redisQueued = server("+QUEUED\r\n")
	redisNo     = server("-ERR no\r\n")
)

// answered is a command that the server answers with OK.
func answered(command string) []turn { return []turn{client(resp(command)), busy, redisOK} }

func joined(parts ...[]turn) (session []turn) {
	for _, p := range parts {
		session = append(session, p...)
	}
	return session
}

// replyOf is a command with this reply, in RESP2 or RESP3, behind which the session is at rest.
func replyOf(reply string) []turn { return []turn{client(resp("GET a")), busy, server(reply), rests} }

// redisSessions are sessions as clients and servers have them.
var redisSessions = map[string][]turn{
	"nothing": {rests},
	"array":   {client(resp("SET a b")), busy, redisOK, rests},
	"inline": {client("SET a  b\r\n"), busy, redisOK, rests, client("ping\n"), busy,
		server("+PONG\r\n"), rests},
	"empty commands": {client("\r\n"), rests, client("*0\r\n"), rests, client("*-1\r\n"), rests,
		client(" \t\n"), rests},
	"empty argument": {client("*1\r\n$0\r\n\r\n"), busy, redisNo, rests},
	"pipeline": {client(resp("GET a") + "GET b\r\n" + resp("GET c")), redisOK, busy,
		server("$-1\r\n"), busy, redisOK, rests},
	"CR LF in a body": {client("*2\r\n$3\r\nGET\r\n$4\r\n\r\n\r\n\r\n"), server("$2\r\n\r\n\r\n"), rests},
	"partial command": {client("*2\r\n$3\r\nGET\r\n"), busy, client("$1\r\na\r\n"), busy, redisOK, rests},
	"partial reply": {client(resp("GET a")), server("*2\r\n$1\r\na\r\n"), busy,
		server("*1\r\n"), busy, server(":1\r\n"), rests},
	"long name":       {client(resp("PUNSUBSCRIBEX")), redisNo, rests, client("PUNSUBSCRIBEX\r\n"), redisNo, rests},
	"name with digit": {client(resp("MULTI1")), redisNo, rests},
	"prefix":          {client(resp("SUBSCRIB")), redisNo, rests},

	"transaction": joined(answered("MULTI"), []turn{busy, client(resp("SET a b")), redisQueued, busy,
		client(resp("EXEC")), busy, server("*1\r\n+OK\r\n"), rests}),
	"transaction in a pipeline": {client(resp("multi") + resp("SET a b") + resp("exec")), redisOK, redisQueued, busy,
		server("*1\r\n+OK\r\n"), rests},
	"nested transaction": joined(answered("MULTI"), []turn{client(resp("MULTI")), redisNo, busy, client("Exec\r\n"),
		server("-EXECABORT x\r\n"), rests}),
	"discarded": joined(answered("MULTI"), []turn{busy}, answered("DISCARD"), []turn{rests}),
	"discard refused": joined(answered("MULTI"), []turn{client(resp("DISCARD") + resp("GET a")), redisNo, busy,
		redisQueued, busy, client(resp("EXEC")), server("*1\r\n$-1\r\n"), rests}),
	"discard refused, in RESP3": joined(answered("MULTI"), []turn{client(resp("DISCARD")),
		server("!5\r\nERR x\r\n"), busy}),
	"discard without multi": {client(resp("DISCARD")), redisNo, rests},
	"exec with an argument": joined(answered("MULTI"), []turn{client(resp("EXEC a")), redisNo, busy}),
	"exec with an argument, inline": joined(answered("MULTI"), []turn{client("EXEC a\r\n"), redisNo, busy,
		client("EXEC \r\n"), redisNo, rests}),
	"watch": joined(answered("WATCH a"), []turn{busy}, answered("UNWATCH"), []turn{rests}),
	"watch and exec": joined(answered("WATCH a"), answered("MULTI"), []turn{busy,
		client(resp("EXEC")), server("*-1\r\n"), rests}),
	"exec alone":       joined(answered("WATCH a"), []turn{client(resp("EXEC")), redisNo, busy}),
	"unwatch in multi": joined(answered("MULTI"), []turn{client(resp("UNWATCH")), redisQueued, busy}),
	"unwatch refused":  joined(answered("WATCH a"), []turn{client(resp("UNWATCH")), redisNo, busy}),
	"reset": joined(answered("WATCH a"), answered("MULTI"), []turn{client(resp("RESET")),
		server("+RESET\r\n"), rests}),
	"blocking": {client(resp("BLPOP a 0")), busy, server("*2\r\n$1\r\na\r\n$1\r\nb\r\n"), rests},
	"scripts":  {client(resp("SCRIPT LOAD x")), busy, server("$1\r\nx\r\n"), rests},
	"ordinary": joined(answered("HELLO 3 AUTH u p"), answered("AUTH p"), answered("SELECT 1"),
		answered("CLIENT SETNAME x"), []turn{rests}),
	"client alone":      {client(resp("CLIENT")), redisNo, rests, client("client\r\n"), redisNo, rests},
	"inline client":     {client("CLIENT ID\r\n"), server(":1\r\n"), rests},
	"quoted later":      {client("SET a \"b c\"\r\n"), redisOK, rests},
	"reply alone":       {redisOK, hidden},
	"too many replies":  {client(resp("GET a")), redisOK, rests, redisOK, hidden},
	"reply off":         {client(resp("client reply off")), hidden},
	"reply skip":        {client(resp("CLIENT REPLY SKIP") + resp("GET a")), hidden},
	"reply off, inline": {client("client  reply off\r\n"), hidden},
	"script debug":      {client(resp("SCRIPT DEBUG YES")), hidden},

	"null of RESP3":   replyOf("_\r\n"),
	"number":          replyOf(":-1\r\n"),
	"double":          replyOf(",1.5\r\n"),
	"boolean":         replyOf("#t\r\n"),
	"big number":      replyOf("(3492890328409238509324850943850943825024385\r\n"),
	"error":           replyOf("-ERR x\r\n"),
	"blob error":      replyOf("!5\r\nERR x\r\n"),
	"verbatim":        replyOf("=7\r\ntxt:abc\r\n"),
	"empty string":    replyOf("$0\r\n\r\n"),
	"empty array":     replyOf("*0\r\n"),
	"null array":      replyOf("*-1\r\n"),
	"nested arrays":   replyOf("*3\r\n*2\r\n*0\r\n*-1\r\n:1\r\n*1\r\n$-1\r\n"),
	"map":             replyOf("%2\r\n+a\r\n*2\r\n:1\r\n:2\r\n+b\r\n%0\r\n"),
	"set":             replyOf("~2\r\n+a\r\n+b\r\n"),
	"attribute":       replyOf("|1\r\n+ttl\r\n:3\r\n$1\r\na\r\n"),
	"no attributes":   replyOf("|0\r\n$1\r\na\r\n"),
	"inner attribute": replyOf("*2\r\n|2\r\n+ttl\r\n:3\r\n+x\r\n*1\r\n:1\r\n$1\r\na\r\n:2\r\n"),
	"deep":            replyOf(strings.Repeat("*1\r\n", 5000) + ":1\r\n"),
	"attribute only":  {client(resp("GET a")), server("|1\r\n+ttl\r\n:3\r\n"), busy, server(":1\r\n"), rests},
	"pushes": {server(">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n"), rests, client(resp("GET a")),
		server(">2\r\n+invalidate\r\n_\r\n"), busy, redisOK, rests, server(">1\r\n"), busy, server("+x\r\n"), rests},
	"push within a reply": {client(resp("GET a")), server("*2\r\n>1\r\n"), hidden},
	"streamed string":     {client(resp("GET a")), server("$?\r\n"), hidden},
	"streamed array":      {client(resp("GET a")), server("*?\r\n"), hidden},
	"unknown type":        {client(resp("GET a")), server("x"), hidden},
	"negative string":     {client(resp("GET a")), server("$-2\r\n"), hidden},
	"negative map":        {client(resp("GET a")), server("%-1\r\n"), hidden},
	"huge string":         {client(resp("GET a")), server("$4294967295\r\n"), hidden},
	"large string":        {client(resp("GET a")), server("$4294967293\r\nxxx"), busy},
	"huge array":          {client(resp("GET a")), server("*4294967296\r\n"), hidden},
	"large array":         {client(resp("GET a")), server("*4294967295\r\n:1\r\n"), busy},
	"huge map":            {client(resp("GET a")), server("%4294967295\r\n"), hidden},
	"huge in sum":         {client(resp("GET a")), server("*4294967295\r\n*4294967295\r\n"), hidden},
	"no number":           {client(resp("GET a")), server("$\r\n"), hidden},
	"minus alone":         {client(resp("GET a")), server("$-\r\n"), hidden},
	"LF alone":            {client(resp("GET a")), server("$1\n"), hidden},

	"TLS":             {client("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), hidden},
	"quoted name":     {client("\"SUBSCRIBE\" a\r\n"), hidden},
	"quoted word":     {client("CLIENT 'REPLY' off\r\n"), hidden},
	"zero byte":       {client("MULTI\x00\r\n"), hidden},
	"bad count":       {client("*x\r\n"), hidden},
	"huge count":      {client("*99999999999\r\n"), hidden},
	"no dollar":       {client("*1\r\nPING\r\n"), hidden},
	"negative length": {client("*1\r\n$-1\r\n"), hidden},
	"huge length":     {client("*1\r\n$4294967294\r\n"), hidden},
	"large argument":  {client("*2\r\n$3\r\nSET\r\n$4294967293\r\nx"), busy},
	"CR without LF":   {client("*1\rx"), hidden},
	"two CRs":         {client("*1\r\r\n"), hidden},
	"many arguments":  {client("*2147483647\r\n$3\r\nDEL\r\n"), busy},
}

// TestRedisTurns holds what is known of a session after each turn, in whatever pieces the bytes come.
func TestRedisTurns(t *testing.T) { testSessions[RedisTurns](t, redisSessions) }

// FuzzRedisTurns holds what fuzzTurns says.
func FuzzRedisTurns(f *testing.F) { fuzzTurns[RedisTurns](f, redisSessions) }

// TestRedisTurnsEndless holds that sessions are not followed behind commands without exactly one reply each, in both
// forms and in any case.
func TestRedisTurnsEndless(t *testing.T) {
	for _, name := range strings.Fields("SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE " +
		"MONITOR SYNC PSYNC REPLCONF") {
		for _, command := range []string{resp(name + " a"), resp(strings.ToLower(name)), name + "\r\n",
			" " + strings.ToLower(name) + "\ta\n"} {
			session := []turn{rests, client(command), hidden, server(":1\r\n"), hidden}
			if err := play(&RedisTurns{}, session, func(int) int { return 1 }); err != nil {
				t.Errorf("%q: %v", command, err)
			}
		}
	}
}

// BenchmarkRedisTurns follows pairs of GET and its reply.
func BenchmarkRedisTurns(b *testing.B) {
	for _, size := range []int{3, 1024} {
		b.Run(fmt.Sprintf("values_of_%d", size), func(b *testing.B) {
			command := []byte(resp("GET key:000000000001"))
			reply := fmt.Appendf(nil, "$%d\r\n%s\r\n", size, strings.Repeat("x", size))
			b.SetBytes(int64(len(command) + len(reply)))
			var r RedisTurns
			for b.Loop() {
				r.FromClient(command)
				r.FromBackend(reply)
			}
			if !r.AtRest() {
				b.Error(state(&r))
			}
		})
	}
}
