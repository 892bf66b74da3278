package probe

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// The answers of a healthy server.
var (
	mysqlGood = mysqlPacket(0, mysqlGreetingBody("8.4.3", mysqlNative, false)) +
		mysqlPacket(2, "\x00\x00\x00\x02\x00\x00\x00")
	mysqlGoodAnswers = mysqlAnswer("Variable_name|Value", "read_only|OFF", "gtid_executed|u:1-77") +
		mysqlAnswer("Variable_name|Value", "Rpl_semi_sync_source_clients|2")
)

// answerMySQL returns a server that sends answer, whatever it gets.
func answerMySQL(t *testing.T, answer string) healthcheck.Target {
	t.Helper()
	return serveDialogue(t, func(conn *net.TCPConn) {
		_, _ = io.WriteString(conn, answer)
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	})
}

// TestMySQLAnswers checks answers that real servers rarely or never send.
func TestMySQLAnswers(t *testing.T) {
	t.Parallel()
	const nonsense = "not a mysql server: nonsense in the answer to a query"
	login := func(body string) string {
		return mysqlPacket(0, mysqlGreetingBody("8.4.3", mysqlCaching, false)) + mysqlPacket(2, body)
	}
	for answer, want := range map[string]string{
		mysqlGood + mysqlGoodAnswers: "",
		"":                           "closed before the answer",
		"x":                          "closed before the answer",
		"HTTP/1.1 400 Bad\r\n":       `not a mysql server: answer begins with "HTTP/"`,
		"SSH-2.0-OpenSSH_9.2\r\n":    `not a mysql server: answer begins with "SSH-2"`,
		mysqlPacket(0, "\x09old"):    `not a mysql server: answer begins with "\x04\x00\x00\x00\t"`,
		mysqlPacket(0, "\x0a"):       "not a mysql server: nonsense in the greeting",
		mysqlPacket(3, "\x0a"):       "not a mysql server: sent packet 3 instead of 0",
		mysqlERRPacket(0, 1040, "Too many connections"):                                    "too many connections: Too many connections",
		mysqlERRPacket(1, 1040, "#08004Too many connections"):                              "too many connections: Too many connections",
		mysqlERRPacket(0, 1129, "Host '::1' is blocked because of many connection errors"): "the server blocks this host: Host '::1' is blocked because of many connection errors",
		mysqlERRPacket(0, 1, "hm"):                                                         "answered with an error: hm",
		login("\x02"):                                                                      "not a mysql server: unexpected packet at login",
		login("\x01\x05"):                                                                  "not a mysql server: unexpected packet at login",
		login("\x01\x04") + mysqlPacket(4, "\x01no key"):                                   "not a mysql server: nonsense in the public key",
		login("\xfe"):                                                            "the server wants an authentication not known here",
		login("\x00") + "\xff\xff\xff\x01":                                       "not a mysql server: announced a packet of 16777215 bytes",
		login("\x00") + "\x00\x00\x00\x01":                                       "not a mysql server: announced a packet of 0 bytes",
		mysqlGood:                                                                "closed before the answer",
		mysqlGood + mysqlPacket(1, "\xfbfile"):                                   "not a mysql server: unexpected answer to a query",
		mysqlGood + mysqlPacket(1, "\xfd\x01"):                                   nonsense,
		mysqlGood + mysqlPacket(1, "\x01") + mysqlPacket(2, "\xfe"):              nonsense,
		mysqlGood + mysqlPacket(1, "\x01") + mysqlPacket(2, "\x03de"):            nonsense,
		mysqlGood + mysqlAnswer("one"):                                           nonsense,
		mysqlGood + mysqlAnswer("one|two", "1"):                                  nonsense,
		mysqlGood + mysqlAnswer("one|two", "1|2|3"):                              nonsense,
		mysqlGood + mysqlERRPacket(1, 1053, "#08S01Server shutdown in progress"): "shutting down: Server shutdown in progress",
		mysqlGood + mysqlERRPacket(1, 1047, "#08S01WSREP has not yet prepared node for application use"): "not accepting queries: WSREP has not yet prepared node for application use",
		mysqlGood + mysqlERRPacket(1, 3024, "#HY000Query execution was interrupted"):                     "query cancelled: Query execution was interrupted",
		mysqlGood + mysqlERRPacket(1, 9999, "#HY000\x1byou said hunter2"):                                `answered with an error: \x1byou said ***`,
	} {
		got, err := MySQL{User: "u", Password: "hunter2"}.Check(deadlineIn(t, patience), answerMySQL(t, answer))
		if want != "" {
			wantWords(t, err, want, nil)
		} else if err != nil || got.Role != healthcheck.RolePrimary || got.Offset != 77 || got.Replicas != 2 ||
			got.Detail != "primary with 2 replicas" {
			t.Errorf("check is %+v, %v", got, err)
		}
	}
	for code, want := range map[int]string{
		1045: "authentication refused",
		1130: "not allowed to log in: no",
		3955: "not allowed to log in: no",
		1049: "no such database: no",
		1227: "not permitted: no",
		2059: "the server wants an authentication not known here",
	} {
		_, err := MySQL{User: "u"}.Check(deadlineIn(t, patience), answerMySQL(t, mysqlERRPacket(0, code, "no")))
		wantRefusal(t, err, want)
	}
}

// TestMySQLStates checks what servers say of themselves that the tests do not start.
func TestMySQLStates(t *testing.T) {
	t.Parallel()
	galera := func(state, comment, component, ready string) map[string]string {
		return map[string]string{
			"SHOW GLOBAL VARIABLES": mysqlAnswer("Variable_name|Value", "read_only|OFF", "wsrep_on|ON"),
			"SHOW GLOBAL STATUS": mysqlAnswer("Variable_name|Value", "wsrep_local_state|"+state,
				"wsrep_local_state_comment|"+comment, "wsrep_cluster_status|"+component, "wsrep_ready|"+ready),
		}
	}
	group := func(readOnly string, members ...string) map[string]string {
		return map[string]string{
			"SHOW GLOBAL VARIABLES": mysqlAnswer("Variable_name|Value", "super_read_only|"+readOnly,
				"group_replication_group_name|g"),
			"replication_group_members": mysqlAnswer("a|b|c", members...),
		}
	}
	replica := func(columns string, rows ...string) map[string]string {
		return map[string]string{
			"SHOW GLOBAL VARIABLES": mysqlAnswer("Variable_name|Value", "read_only|ON"),
			"SHOW REPLICA STATUS":   mysqlAnswer(columns, rows...),
		}
	}
	with := func(answers map[string]string, variables ...string) map[string]string {
		answers = maps.Clone(answers)
		answers["SHOW GLOBAL VARIABLES"] = mysqlAnswer("Variable_name|Value", variables...)
		return answers
	}
	old57 := with(map[string]string{}, "super_read_only|OFF", "group_replication_group_name|g")
	old57["MEMBER_ROLE"] = mysqlERRPacket(1, 1054, "#42S22Unknown column 'MEMBER_ROLE' in 'field list'")
	old57["MEMBER_STATE, ''"] = mysqlAnswer("a|b|c", "1|ONLINE|", "0|ONLINE|")
	const columns = "Replica_IO_Running|Replica_SQL_Running|Seconds_Behind_Source|Channel_Name"
	old := replica(columns)
	old["SHOW REPLICA STATUS"] = mysqlERRPacket(1, 1064, "#42000You have an error in your SQL syntax")
	old["SHOW SLAVE STATUS"] = mysqlAnswer("Slave_IO_Running|Slave_SQL_Running|Seconds_Behind_Master", "Yes|Yes|3")
	unprivileged := replica(columns)
	unprivileged["SHOW REPLICA STATUS"] = mysqlERRPacket(1, 1227, "#42000Access denied; you need REPLICATION CLIENT")
	lagging, wrongRole := healthcheck.ErrLagging, healthcheck.ErrWrongRole
	primary, onlyReplica := MySQL{Role: healthcheck.RolePrimary}, MySQL{Role: healthcheck.RoleReplica, MaxLag: 5 * time.Second}
	for _, tt := range []struct {
		check   MySQL
		answers map[string]string
		detail  string // of a healthy server
		want    string
		wraps   error
	}{
		{primary, galera("4", "Synced", "Primary", "ON"), "galera node, synced", "", nil},
		{MySQL{}, galera("2", "Donor/Desynced", "Primary", "ON"), "", "galera: the node is a donor or desynced", lagging},
		{MySQL{AllowDonor: true}, galera("2", "Donor/Desynced", "Primary", "ON"), "galera node, donor/desynced", "", nil},
		{MySQL{}, galera("3", "Joined", "Primary", "ON"), "", "galera: the node has joined and is not yet synced", lagging},
		{MySQL{}, galera("1", "Joining", "Primary", "OFF"), "", "galera: the node is not synced (Joining)", nil},
		{MySQL{}, galera("4", "Synced", "Primary", "OFF"), "", "galera: the node is not ready", nil},
		{MySQL{}, galera("0", "Initialized", "non-Primary", "OFF"), "",
			"galera: not in the primary component (non-Primary)", nil},
		{MySQL{}, with(galera("4", "Synced", "Primary", "ON"), "wsrep_on|ON", "pxc_maint_mode|SHUTDOWN"), "",
			"galera: the node is in maintenance (SHUTDOWN)", lagging},
		{MySQL{}, with(galera("4", "Synced", "Primary", "ON"), "wsrep_on|ON", "pxc_maint_mode|DISABLED"),
			"galera node, synced", "", nil},
		{MySQL{AllowDonor: true}, galera("2", "Donor/Desynced", "Primary", "OFF"), "", "galera: the node is not ready", nil},
		{MySQL{}, with(galera("0", "Initialized", "Disconnected", "OFF"), "wsrep_on|ON", "wsrep_provider|none"),
			"primary", "", nil},
		{onlyReplica, galera("4", "Synced", "Primary", "ON"), "", "is a primary, wanted a replica", wrongRole},

		{primary, group("OFF", "1|ONLINE|PRIMARY", "0|ONLINE|SECONDARY", "0|UNREACHABLE|SECONDARY"), "primary of a group of 3",
			"", nil},
		{primary, group("ON", "0|ONLINE|PRIMARY", "1|ONLINE|SECONDARY"), "", "is a replica, wanted a primary", wrongRole},
		{primary, group("ON", "1|ONLINE|PRIMARY"), "", "is a replica, wanted a primary", wrongRole},
		{MySQL{}, group("ON", "0|ONLINE|PRIMARY", "1|RECOVERING|SECONDARY"), "",
			"group replication: the member is RECOVERING", nil},
		{MySQL{}, group("ON", "NULL|OFFLINE|"), "", "group replication: the member is OFFLINE", nil},
		{MySQL{}, group("OFF", "1|ONLINE|PRIMARY", "0|UNREACHABLE|SECONDARY"), "",
			"group replication: no majority, 1 of 2 members are reachable", nil},

		{primary, group("OFF", "1|ONLINE|PRIMARY", "0|ONLINE|PRIMARY"), "primary of a group of 2", "", nil},
		{primary, old57, "primary of a group of 2", "", nil},
		{MySQL{Role: healthcheck.RoleReplica}, with(old57, "super_read_only|ON", "group_replication_group_name|g"),
			"replica of a group of 2", "", nil},

		{onlyReplica, replica(columns, "Yes|Yes|5|", "Yes|Yes|0|two", "Yes|Yes|NULL|group_replication_applier"),
			"replica with a lag of 5s", "", nil},
		{onlyReplica, replica(columns, "Yes|Yes|0|", "Yes|Yes|6|two"), "", "replica: lags by 6s, at most 5s allowed", lagging},
		{onlyReplica, replica(columns, "Connecting|Yes|NULL|"), "",
			"replica: replication is not running (io Connecting, sql Yes), lag unknown", lagging},
		{onlyReplica, replica(columns), "", "replica: it follows no primary, lag unknown", lagging},
		{onlyReplica, old, "replica with a lag of 3s", "", nil},
		{onlyReplica, unprivileged, "", "not permitted: Access denied; you need REPLICATION CLIENT", nil},
		{MySQL{Role: healthcheck.RolePrimary, MaxLag: time.Second}, unprivileged, "", "is a replica, wanted a primary", wrongRole},
		{MySQL{Query: "SELECT 1"}, map[string]string{"SELECT 1": mysqlAnswer("1")}, "", "the query returned no row", nil},
		{MySQL{Query: "DO 1"}, map[string]string{"DO 1": mysqlPacket(1, "\x00\x00\x00\x02\x00\x00\x00")}, "primary", "", nil},
	} {
		fake := &fakeMySQL{version: "8.4.3", plugin: mysqlCaching, cached: true, answers: tt.answers}
		tt.check.User = "u"
		got, err := tt.check.Check(deadlineIn(t, patience), fake.start(t))
		if tt.want != "" {
			wantWords(t, err, tt.want, tt.wraps)
		} else if err != nil || got.Detail != tt.detail {
			t.Errorf("check is %+v, %v, want %q", got, err, tt.detail)
		}
	}
}

// TestMySQLClosedAtEachByte cuts a good answer short at each byte.
func TestMySQLClosedAtEachByte(t *testing.T) {
	t.Parallel()
	answer := mysqlGood + mysqlGoodAnswers
	for i := range len(answer) {
		_, err := MySQL{User: "u"}.Check(deadlineIn(t, patience), answerMySQL(t, answer[:i]))
		wantWords(t, err, "closed before the answer", nil)
	}
}

func TestMySQLHostile(t *testing.T) {
	t.Parallel()
	survives(t, mysqlGood, func(ctx context.Context, to healthcheck.Target) error {
		_, err := MySQL{User: "u"}.Check(ctx, to)
		return err
	})
	long := mysqlAnswer("Variable_name|Value", slices.Repeat([]string{"a|" + strings.Repeat("b", 100)}, 3000)...)
	_, err := MySQL{User: "u"}.Check(deadlineIn(t, patience), answerMySQL(t, mysqlGood+long))
	failsWith(t, err, "answered without end")
}

func TestGTIDCount(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]uint64{
		"": 0, "0-1-77": 77, "0-1-77,1-3-5": 82, "x": 0,
		"3e11fa47-71ca-11e1-9e33-c80aa9429562:1-77":                                                  77,
		"3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7:9-10,\n3e11fa47-71ca-11e1-9e33-c80aa9429563:1-2": 10,
		"3e11fa47-71ca-11e1-9e33-c80aa9429562:9-1":                                                   0, "a:0": 0, "a:tag:1-3": 3, "0-1-99999999999999999999": 1<<63 - 1,
	} {
		if got := gtidCount(set); got != want {
			t.Errorf("%q has %d transactions, want %d", set, got, want)
		}
	}
}

// A playback is a connection that reads what was recorded.
type playback struct {
	io.Reader
	net.Conn
}

func (p playback) Read(b []byte) (int, error)      { return p.Reader.Read(b) }
func (p playback) Write(b []byte) (int, error)     { return len(b), nil }
func (p playback) Close() error                    { return nil }
func (p playback) CloseWrite() error               { return nil }
func (p playback) SetDeadline(time.Time) error     { return nil }
func (p playback) SetReadDeadline(time.Time) error { return os.ErrInvalid }

// playBack returns the connection of a check that reads answer.
func playBack(answer []byte) *checkConn {
	p := playback{Reader: bytes.NewReader(answer)}
	return &checkConn{Conn: p, raw: p, start: time.Now(), release: func() bool { return true }}
}

// FuzzMySQL feeds answers to a check: it ends, with a result or with a checkError or an error of the connection.
func FuzzMySQL(f *testing.F) {
	f.Add([]byte(mysqlGood + mysqlGoodAnswers))
	f.Add([]byte(mysqlERRPacket(0, 1040, "Too many connections")))
	f.Add([]byte(mysqlPacket(0, mysqlGreetingBody("8.4.3", mysqlCaching, false)) + mysqlPacket(2, "\x01\x04") +
		mysqlPacket(4, "\x01-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n")))
	f.Add([]byte(mysqlGood + mysqlAnswer("Variable_name|Value", "read_only|ON", "group_replication_group_name|g") +
		mysqlAnswer("a|b") + mysqlAnswer("a|b|c", "1|ONLINE|SECONDARY", "0|UNREACHABLE|PRIMARY") +
		mysqlAnswer("Seconds_Behind_Source", "NULL")))
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := MySQL{User: "u", Password: "hunter2", Query: "SELECT 1", MaxLag: time.Second}
		k := playBack(answer)
		s, version, err := c.login(t.Context(), k, healthcheck.Target{})
		if err != nil {
			_ = k.unanswered(t.Context(), err)
			return
		}
		report, err := c.ask(s, version)
		if err != nil {
			_ = k.unanswered(t.Context(), err)
			return
		}
		if err := c.judge(report); err == nil && report.String() == "" {
			t.Errorf("%+v is healthy without a word", report)
		}
		_ = s.returnsRow(c.Query)
	})
}
