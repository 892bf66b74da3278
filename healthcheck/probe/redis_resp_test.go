package probe

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// goodRedis is the answer of a primary without replicas to PING and ROLE.
const goodRedis = "+PONG\r\n*3\r\n$6\r\nmaster\r\n:3129659\r\n*0\r\n"

// answerRedis returns a server that waits for the commands of a check and then sends answer, whatever they are.
func answerRedis(t *testing.T, answer string) healthcheck.Target {
	t.Helper()
	return serveDialogue(t, func(conn *net.TCPConn) {
		r := bufio.NewReader(conn)
		for line := ""; line != "ROLE\r\n"; {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, r)
	})
}

func TestRedisAnswers(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		goodRedis:      "",
		"":             "closed before the answer",
		"+PONG\r\n":    "closed before the answer",
		"+PONG":        "closed before the answer",
		"+PUNG\r\n":    `not a redis server: answered "PUNG"`,
		":1\r\n":       `not a redis server: answered nothing`,
		"$-1\r\n":      `not a redis server: answered nothing`,
		"$4\r\nPONG\n": "closed before the answer",
		"+PONG\n":      `not a redis server: answered "PONG"`,
		"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n": `not a redis server: answered "HTTP/1.1 400 Bad Request"`,
		"SSH-2.0-OpenSSH_9.2p1 Debian\r\n":                        `not a redis server: answered "SSH-2.0-OpenSSH_9.2p1 Debian"`,
		"\x15\x03\x01\x00\x02\x02\x50":                            `not a redis server: answered "\x15\x03\x01"`,
		strings.Repeat("x", 300): `not a redis server: answered "` +
			strings.Repeat("x", 100) + `"...`,
		"+" + strings.Repeat("x", 5000) + "\r\n": "not a redis server: answered a line without end",
		"$99999999999\r\n":                       "not a redis server: announced a reply of length 99999999999",
		"*99999999999\r\n":                       "not a redis server: announced a reply of length 99999999999",
		"$-2\r\n":                                "not a redis server: announced a reply of length -2",
		"$x\r\n":                                 `not a redis server: answered "x"`,
		"$1\r\nabc":                              "not a redis server: a reply is longer than announced",
		strings.Repeat("*1\r\n", 100):            "not a redis server: lists within lists",
		"+PONG\r\n*0\r\n":                        "not a redis server: role is no list",
		"+PONG\r\n:1\r\n":                        "not a redis server: role is no list",
		"+PONG\r\n*1\r\n*0\r\n":                  "not a redis server: role is no list",
		"+PONG\r\n*1\r\n$0\r\n\r\n":              "unknown role nothing",
		"+PONG\r\n*1\r\n$6\r\nmaster\r\n":        "",
		"+PONG\r\n*1\r\n$6\r\nwizard\r\n":        "", // of whom no role is wanted
		"-ERR \x1b[31mno\r\n":                    "answered with an error: ERR \\x1b[31mno",
		"-NOAUTH Authentication required.\r\n":   "the server wants a password",
		"-MASTERDOWN Link with MASTER is down\r\n-NOPERM role\r\n-NOPERM info\r\n": "replica: link to its primary is down",
		"-DENIED Redis is running in protected mode because":                       "closed before the answer",
		"-DENIED Redis is running in protected mode\r\n":                           "refused: the server is in protected mode",
		"-MISCONF Redis is configured to save\r\n" + goodRedis[7:]:                 "takes no writes: it cannot save its data",
		"-TRYAGAIN later\r\n" + goodRedis[7:]:                                      "answered with an error: TRYAGAIN later",
	} {
		_, err := Redis{}.Check(deadlineIn(t, patience), answerRedis(t, answer))
		if want == "" {
			must(t, err)
			continue
		}
		wantWords(t, err, want, nil)
	}
}

// TestRedisRelatives checks servers that are compatible with Redis. The answers to ROLE are written as in their source
// code.
func TestRedisRelatives(t *testing.T) {
	t.Parallel()
	role := func(words ...string) string { return "+PONG\r\n" + string(appendRESP(nil, words...)) }
	const (
		dragonfly     = "+PONG\r\n*2\r\n$6\r\nmaster\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n6380\r\n$11\r\nstable_sync\r\n"
		dragonflySole = "+PONG\r\n*2\r\n$6\r\nmaster\r\n*0\r\n"
		keyDBTwo      = "+PONG\r\n*2\r\n" +
			"*5\r\n$14\r\nactive-replica\r\n$1\r\na\r\n:1\r\n$9\r\nconnected\r\n:7\r\n" +
			"*5\r\n$14\r\nactive-replica\r\n$1\r\nb\r\n:1\r\n$10\r\nconnecting\r\n:-1\r\n"
	)
	keyDB := role("active-replica", "10.0.0.1", "6379", "connected", "7")
	keyDBDown := role("active-replica", "10.0.0.1", "6379", "connecting", "-1")
	for _, tt := range []struct {
		name, answer string
		wanted       healthcheck.Role
		want         string // "" if healthy
		role         healthcheck.Role
	}{
		{"dragonfly", dragonfly, healthcheck.RoleUnknown, "", healthcheck.RolePrimary},
		{"dragonfly", dragonfly, healthcheck.RolePrimary, "", healthcheck.RolePrimary},
		{"dragonfly", dragonfly, healthcheck.RoleReplica, "is a primary, wanted a replica", healthcheck.RolePrimary},
		{"dragonfly alone", dragonflySole, healthcheck.RolePrimary, "", healthcheck.RolePrimary},
		{"dragonfly's replica", role("replica", "10.0.0.1", "6379", "stable_sync"), healthcheck.RoleUnknown, "",
			healthcheck.RoleReplica},
		{"dragonfly's replica", role("replica", "10.0.0.1", "6379", "online"), healthcheck.RoleReplica, "",
			healthcheck.RoleReplica},
		{"dragonfly's replica", role("slave", "10.0.0.1", "6379", "stable_sync"), healthcheck.RoleReplica, "",
			healthcheck.RoleReplica},
		{"dragonfly's replica", role("replica", "10.0.0.1", "6379", "stable_sync"), healthcheck.RolePrimary,
			"is a replica, wanted a primary", healthcheck.RoleReplica},
		{"dragonfly's replica", role("replica", "10.0.0.1", "6379", "full_sync"), healthcheck.RoleReplica,
			"replica: link to its primary is down (full_sync)", healthcheck.RoleReplica},
		{"keydb", keyDB, healthcheck.RoleUnknown, "", healthcheck.RolePrimary},
		{"keydb", keyDB, healthcheck.RolePrimary, "", healthcheck.RolePrimary},
		{"keydb", keyDB, healthcheck.RoleReplica, "", healthcheck.RoleReplica},
		{"keydb without its peer", keyDBDown, healthcheck.RolePrimary, "", healthcheck.RolePrimary},
		{"keydb without its peer", keyDBDown, healthcheck.RoleReplica,
			"replica: link to its primary is down (connecting)", healthcheck.RoleReplica},
		{"keydb with two masters", keyDBTwo, healthcheck.RolePrimary, "", healthcheck.RolePrimary},
		{"keydb with two masters", keyDBTwo, healthcheck.RoleReplica,
			"replica: link to its primary is down (connecting)", healthcheck.RoleReplica},
		{"what is not made yet", role("wizard"), healthcheck.RoleUnknown, "", healthcheck.RoleUnknown},
		{"what is not made yet", role("wizard"), healthcheck.RolePrimary, `unknown role "wizard"`,
			healthcheck.RoleUnknown},
		{"what is not made yet", role("wizard"), healthcheck.RoleReplica, `unknown role "wizard"`,
			healthcheck.RoleUnknown},
	} {
		got, err := Redis{Role: tt.wanted}.Check(deadlineIn(t, patience), answerRedis(t, tt.answer))
		var kind error
		if strings.HasPrefix(tt.want, "is a ") {
			kind = healthcheck.ErrWrongRole
		}
		if tt.want != "" {
			wantWords(t, err, tt.want, kind)
		} else if err != nil {
			t.Errorf("%s, wanted %v: %v", tt.name, tt.wanted, err)
		}
		if (tt.want == "" || kind != nil) && got.Role != tt.role {
			t.Errorf("%s, wanted %v: is a %v, want %v", tt.name, tt.wanted, got.Role, tt.role)
		}
	}
}

// TestRedisClosedAtEachByte cuts a good answer short at each byte.
func TestRedisClosedAtEachByte(t *testing.T) {
	t.Parallel()
	for i := range len(goodRedis) {
		_, err := Redis{}.Check(deadlineIn(t, patience), answerRedis(t, goodRedis[:i]))
		wantWords(t, err, "closed before the answer", nil)
	}
}

func TestRedisByteByByte(t *testing.T) {
	t.Parallel()
	to := serveDialogue(t, func(conn *net.TCPConn) {
		_ = conn.SetNoDelay(true)
		for i := range len(goodRedis) {
			if _, err := io.WriteString(conn, goodRedis[i:i+1]); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // or the kernel puts them together again
		}
		_, _ = io.Copy(io.Discard, conn)
	})
	got, err := Redis{Role: healthcheck.RolePrimary}.Check(deadlineIn(t, patience), to)
	if err != nil || got.Offset != 3129659 {
		t.Errorf("check is %+v, %v", got, err)
	}
}

// TestRedisEndless checks servers that send without end, each in another way.
func TestRedisEndless(t *testing.T) {
	t.Parallel()
	for start, tt := range map[string]struct{ again, want string }{
		"":                       {"x", "not a redis server: answered \"xxx..."},
		"+":                      {"x", "not a redis server: answered a line without end"},
		"+PONG\r\n*20000\r\n":    {"$20\r\n01234567890123456789\r\n", "answered without end"},
		"+PONG\r\n$200000\r\n":   {"xxxxxxxxxx", "not a redis server: a reply is longer than announced"},
		"+PONG\r\n*60000\r\n":    {"*-1\r\n", "answered without end"},
		"+PONG\r\n*1\r\n*2\r\n+": {"x", "not a redis server: answered a line without end"},
	} {
		to := serveDialogue(t, func(conn *net.TCPConn) {
			_, err := io.WriteString(conn, start)
			for chunk := strings.Repeat(tt.again, 1000); err == nil; {
				_, err = io.WriteString(conn, chunk)
			}
		})
		_, err := Redis{}.Check(deadlineIn(t, patience), to)
		wantWords(t, err, tt.want, nil)
	}
}

// TestRedisReset checks a server that resets the connection.
func TestRedisReset(t *testing.T) {
	t.Parallel()
	to := serveDialogue(t, func(conn *net.TCPConn) {
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.SetLinger(0)
	})
	_, err := Redis{}.Check(deadlineIn(t, patience), to)
	wantWords(t, err, "reset before the answer", nil)
}

func TestRedisRefused(t *testing.T) {
	_, err := Redis{}.Check(deadlineIn(t, patience), refusing(t))
	wantWords(t, err, "connect refused", nil)
	to, other := answerRedis(t, goodRedis), refusing(t)
	if _, err := (Redis{Port: to.Addr.Port()}).Check(deadlineIn(t, patience), other); err != nil {
		t.Errorf("check of the other port: %v", err)
	}
}

// TestRedisPasswordStaysSecret checks servers that repeat the password. No error may show it.
func TestRedisPasswordStaysSecret(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	for _, answer := range []string{
		"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n", "-hunter2\r\n", "+hunter2\r\n",
		"$7\r\nhunter2\r\n",
		"hunter2\r\n", ":hunter2\r\n", "$hunter2\r\n", "$7\r\nhunter2", "+OK\r\n+hunter2\r\n", "+OK\r\nhunter2",
		"+hunter2\n",
		"*2\r\n$4\r\nAUTH\r\n$7\r\nhunter2\r\n",
	} {
		for _, c := range []Redis{{Password: password}, {User: "u", Password: password}} {
			_, err := c.Check(deadlineIn(t, patience), answerRedis(t, answer))
			documented(t, err)
			if err == nil || strings.Contains(err.Error(), "hunter") {
				t.Errorf("error for %q is %v", answer, err)
			}
		}
	}
}

func TestRedisInfo(t *testing.T) {
	for text, want := range map[string]redisReport{
		"":                            {silence: -1},
		"# Replication\r\nrole:dog\r": {silence: -1},
		"role:replica\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:3\r\n":                      {role: healthcheck.RoleReplica, link: "connected", silence: 3 * time.Second},
		"role:active-replica\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:3\r\n":               {role: healthcheck.RoleReplica, active: true, link: "connected", silence: 3 * time.Second},
		"role:master\r\nconnected_slaves:3\r\nmaster_repl_offset:77\r\n":                                 {role: healthcheck.RolePrimary, replicas: 3, offset: 77, silence: -1},
		"role:master\r\nconnected_slaves:-3\r\nmaster_repl_offset:x\r\n":                                 {role: healthcheck.RolePrimary, silence: -1},
		"role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:3\r\n":                        {role: healthcheck.RoleReplica, link: "connected", silence: 3 * time.Second},
		"role:slave\r\nmaster_link_status:down\r\nmaster_link_down_since_seconds:-1\r\n":                 {role: healthcheck.RoleReplica, link: "down", silence: -1},
		"role:slave\r\nmaster_link_status:down\r\nmaster_sync_in_progress:1\r\n":                         {role: healthcheck.RoleReplica, link: "sync", silence: -1},
		"role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:999999999999999999\r\n":       {role: healthcheck.RoleReplica, link: "connected", silence: 876000 * time.Hour},
		"role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:99999999999999999999999\r\n:": {role: healthcheck.RoleReplica, link: "connected", silence: -1},
	} {
		got := redisReport{silence: -1}
		if got.addInfo(text); got != want {
			t.Errorf("report of %q is %+v, want %+v", text, got, want)
		}
	}
}

func TestAppendRESP(t *testing.T) {
	got := string(appendRESP(nil, "AUTH", "p\r\nw\x00", ""))
	if want := "*3\r\n$4\r\nAUTH\r\n$5\r\np\r\nw\x00\r\n$0\r\n\r\n"; got != want {
		t.Errorf("command is %q, want %q", got, want)
	}
}

// FuzzRESP reads replies to the end. It must come within the budget, with a short error, and be the same in whatever
// pieces the bytes come. If appendRESP can write a reply, it must write what was read.
func FuzzRESP(f *testing.F) {
	for _, s := range []string{
		goodRedis, "-LOADING Redis is loading the dataset in memory\r\n", "$-1\r\n*-1\r\n$0\r\n\r\n",
		"*2\r\n*1\r\n:1\r\n+a\r\n",
		"*1\r\n*1\r\n*1\r\n*1\r\n", "$99999999999\r\n", "*99999999\r\n", ":-9223372036854775808\r\n",
		"HTTP/1.1 400\r\n", "+a\n", "$1\r\nab\r\n",
		"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$10\r\nconnecting\r\n:-1\r\n",
		"*3\r\n$4\r\nAUTH\r\n$1\r\na\r\n$0\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		replies, err := readReplies(bytes.NewReader(b))
		sliced, slicedErr := readReplies(iotest.OneByteReader(bytes.NewReader(b)))
		var said *checkError
		if errors.As(err, &said) {
			if len(said.words) > longestQuote+100 {
				t.Errorf("error of %d bytes", len(said.words))
			}
		} else if err != io.EOF && err != io.ErrUnexpectedEOF {
			t.Errorf("error %v", err)
		}
		if len(replies) != len(sliced) || errors.As(err, new(*checkError)) != errors.As(slicedErr, new(*checkError)) {
			t.Errorf("%d replies and %v, byte by byte %d and %v", len(replies), err, len(sliced), slicedErr)
		}
		for _, v := range replies {
			report := redisReport{silence: -1}
			report.addInfo(v.text)
			if err := report.addRole(v); err == nil && report.role == healthcheck.RoleUnknown && report.strange == "" {
				t.Errorf("role of %+v is neither known nor refused", v)
			}
			_ = Redis{Role: healthcheck.RoleReplica, MaxLag: time.Second}.judge(report)
			checkRoundTrip(t, v)
		}
	})
}

func readReplies(r io.Reader) (replies []respValue, err error) {
	for reader := newRESPReader(r, false); ; {
		v, err := reader.read()
		if err != nil {
			return replies, err
		}
		replies = append(replies, v)
	}
}

// checkRoundTrip writes a list of bulk strings and reads it again.
func checkRoundTrip(t *testing.T, v respValue) {
	var words []string
	for _, item := range v.items {
		if item.kind != '$' {
			return
		}
		words = append(words, item.text)
	}
	if len(words) == 0 {
		return
	}
	again, err := newRESPReader(bytes.NewReader(appendRESP(nil, words...)), false).read()
	same := func(a, b respValue) bool { return a.kind == b.kind && a.text == b.text }
	if err != nil || !slices.EqualFunc(again.items, v.items, same) {
		t.Errorf("%q read again is %+v, %v", words, again, err)
	}
}
