package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// This file tests the checks that exchange a few messages: SMTP, MQTT, AMQP, LDAP and MongoDB.

// mongoAnswer returns a message with a document of these elements.
func mongoAnswer(elements ...string) string {
	body := strings.Join(elements, "") + "\x00"
	document := string(binary.LittleEndian.AppendUint32(nil, uint32(len(body)+4))) + body
	var b []byte
	for _, n := range []uint32{uint32(21 + len(document)), 9, 1, opMsg, 0} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return string(b) + "\x00" + document
}

func mongoText(name, value string) string {
	return "\x02" + name + "\x00" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(value)+1))) + value + "\x00"
}

func mongoTrue(name string) string { return "\x08" + name + "\x00\x01" }

const mongoOK = "\x01ok\x00\x00\x00\x00\x00\x00\x00\xf0\x3f"

// ldapAnswer returns the answer to a bind.
func ldapAnswer(tag byte, code byte, text string) string {
	result := appendBER(appendBER(appendBER(nil, berEnumerated, []byte{code}), berText, nil), berText, []byte(text))
	return string(appendBER(nil, berSequence, appendBER(appendBER(nil, berInteger, []byte{1}), tag, result)))
}

func amqpAnswer(method uint32, end byte) string {
	body := binary.BigEndian.AppendUint32(nil, method)
	body = append(body, 0, 9, 0, 0, 0, 0)
	return "\x01\x00\x00" + string(binary.BigEndian.AppendUint32(nil, uint32(len(body)))) + string(body) + string([]byte{end})
}

// A messageCheck is a check with answers of servers and what they come to; "" is healthy.
type messageCheck struct {
	check   healthcheck.Checker
	good    string
	answers map[string]string
}

func messageChecks() map[string]messageCheck {
	return map[string]messageCheck{
		"smtp": {SMTP{}, "220-one\r\n220 two\r\n250-one\r\n250 two\r\n221 bye\r\n", map[string]string{
			"220 hi\r\n250\r\n":               "", // without a word, and without an answer to QUIT
			"554 no\x1b\r\n":                  `takes no mail: 554 no\x1b`,
			"220 hi\r\n502 what?\r\n":         "takes no mail: 502 what?",
			"SSH-2.0-x\r\n":                   `not an smtp server: answered "SSH-2.0-x"`,
			"\r\n":                            "not an smtp server: answered nothing",
			"220_\r\n":                        `not an smtp server: answered "220_"`,
			strings.Repeat("220-hi\r\n", 1e4): "answered without end",
		}},
		"mqtt": {MQTT{User: "u", Password: "hunter2"}, "\x20\x02\x00\x00", map[string]string{
			"\x20\x02\x00\x03": "the broker is unavailable",
			"\x20\x02\x00\x01": "refused the connection with code 1",
			"HTTP/1.1":         `not an mqtt broker: answer begins with "HTTP"`,
			"\x20\x7f\x00\x00": `not an mqtt broker: answer begins with " \x7f\x00\x00"`,
		}},
		"amqp": {AMQP{}, amqpAnswer(10<<16|10, 0xce), map[string]string{
			"AMQP\x00\x01\x00\x00":             `speaks another version of amqp: "AMQP\x00\x01\x00\x00"`,
			"HTTP/1.1":                         `not an amqp broker: answer begins with "HTTP/1."`,
			amqpAnswer(10<<16|11, 0xce):        "not an amqp broker: nonsense in connection.start",
			amqpAnswer(10<<16|10, 0):           "not an amqp broker: nonsense in connection.start",
			"\x01\x00\x00\xff\xff\xff\xff\x00": "not an amqp broker: nonsense in connection.start",
			"\x01\x00\x00\x00\x00\x00\x00\xce": "not an amqp broker: nonsense in connection.start",
		}},
		"ldap": {LDAP{User: "cn=u", Password: strings.Repeat("p", 200)}, ldapAnswer(ldapBindAnswer, 0, ""), map[string]string{
			ldapAnswer(ldapBindAnswer, 52, "soon"):                      "answered with an error: result 52 soon",
			ldapAnswer(ldapBindAnswer, 51, strings.Repeat("busy", 100)): "answered with an error: result 51 busybusy...",
			ldapAnswer(0x78, 52, "bye"):                                 "answered with an error: result 52 bye",
			ldapAnswer(0x78, 0, ""):                                     "not an ldap server: nonsense in the answer",
			ldapAnswer(0x65, 0, ""):                                     "not an ldap server: nonsense in the answer",
			"\x30\x00":                                                  "not an ldap server: nonsense in the answer",
			"\x30\x80":                                                  "not an ldap server: nonsense in the answer",
			"\x30\x84\x7f\xff\xff\xff":                                  "not an ldap server: nonsense in the answer",
			"\x30\x05\x02\x01\x01\x61\x00":                              "not an ldap server: nonsense in the answer",
			"HTTP":                                                      `not an ldap server: answer begins with "HT"`,
		}},
		"mongodb": {MongoDB{Role: healthcheck.RolePrimary}, mongoAnswer(mongoTrue("isWritablePrimary"), mongoOK),
			map[string]string{
				mongoAnswer(mongoTrue("isWritablePrimary"), mongoText("msg", "isdbgrid"), "\x10ok\x00\x01\x00\x00\x00"):    "",
				mongoAnswer("\x12ok\x00\x00\x00\x00\x00\x00\x00\x00\x00", mongoText("errmsg", "no such command: 'hello'")): "answered with an error: no such command: 'hello'",
				mongoAnswer(mongoTrue("arbiterOnly"), mongoOK):                                                             "is an arbiter, which has no data",
				mongoAnswer(mongoOK):         "neither primary nor secondary: it starts, recovers, or was removed from its set",
				mongoAnswer("\x0dcode\x00x"): "not a mongodb server: nonsense in the answer",
				mongoAnswer(mongoOK)[:20] + "\x00" + strings.Repeat("x", len(mongoAnswer(mongoOK))-21): "not a mongodb server: nonsense in the answer",
				"HTTP/1.1 400 Bad Request\r\n": `not a mongodb server: answer begins with "HTTP/1.1 400 Bad Requ"`,
				"\x00\x00\x00\x00":             `not a mongodb server: answer begins with "\x00\x00\x00\x00"`,
			}},
	}
}

// TestMessages checks answers of each protocol, good answers that are cut short at each byte, and hostile servers.
func TestMessages(t *testing.T) {
	t.Parallel()
	for name, m := range messageChecks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m.answers[m.good] = ""
			for answer, want := range m.answers {
				got, err := m.check.Check(deadlineIn(t, patience), answerMySQL(t, answer))
				if want != "" {
					wantWords(t, err, want, nil)
				} else if err != nil || got.Latency <= 0 || got.Detail == "" {
					t.Errorf("check is %+v, %v", got, err)
				}
			}
			for i := range len(m.good) {
				if _, err := m.check.Check(deadlineIn(t, patience), answerMySQL(t, m.good[:i])); err != nil {
					wantWords(t, err, "closed before the answer", nil)
				} else if name != "smtp" { // its last line is not needed
					t.Errorf("healthy after %d bytes", i)
				}
			}
			survives(t, strings.Replace(m.good, "250 two", "250-two", 1), func(ctx context.Context, to healthcheck.Target) error {
				_, err := m.check.Check(ctx, to)
				if err == nil { // a good answer, and then more
					err = unhealthyf("answered without end")
				}
				return err
			})
		})
	}
}

// TestMessageRefusals: brokers and directories that refuse the credentials.
func TestMessageRefusals(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		"\x20\x02\x00\x04": "authentication refused",
		"\x20\x02\x00\x05": "authentication refused",
	} {
		_, err := MQTT{}.Check(deadlineIn(t, patience), answerMySQL(t, answer))
		wantRefusal(t, err, want)
	}
	for code, want := range map[byte]string{
		49: "authentication refused", 48: "not allowed to log in: result 48 no", 13: "not allowed to log in: result 13 no",
	} {
		_, err := LDAP{}.Check(deadlineIn(t, patience), answerMySQL(t, ldapAnswer(ldapBindAnswer, code, "no")))
		wantRefusal(t, err, want)
	}
}

func TestMongoDBRoles(t *testing.T) {
	t.Parallel()
	primary := mongoAnswer("\x03topology\x00\x05\x00\x00\x00\x00", mongoTrue("isWritablePrimary"), "\x08secondary\x00\x00",
		mongoText("setName", "rs0"), "\x07electionId\x00\x7f\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x05", mongoOK)
	secondary := mongoAnswer(mongoTrue("secondary"), mongoText("setName", "rs0"), mongoOK)
	got, err := MongoDB{Role: healthcheck.RolePrimary}.Check(deadlineIn(t, patience), answerMySQL(t, primary))
	if err != nil || got.Role != healthcheck.RolePrimary || got.Epoch != 5 || got.Detail != `primary of the set "rs0"` {
		t.Errorf("the primary is %+v, %v", got, err)
	}
	got, err = MongoDB{Role: healthcheck.RoleReplica}.Check(deadlineIn(t, patience), answerMySQL(t, secondary))
	if err != nil || got.Role != healthcheck.RoleReplica || got.Detail != `replica of the set "rs0"` {
		t.Errorf("the secondary is %+v, %v", got, err)
	}
	_, err = MongoDB{Role: healthcheck.RolePrimary}.Check(deadlineIn(t, patience), answerMySQL(t, secondary))
	wantWords(t, err, "is a replica, wanted a primary", healthcheck.ErrWrongRole)
	_, err = MongoDB{Role: healthcheck.RoleReplica}.Check(deadlineIn(t, patience), answerMySQL(t, primary))
	wantWords(t, err, "is a primary, wanted a replica", healthcheck.ErrWrongRole)
}

// TestRealMQTT checks a broker that wants a password.
func TestRealMQTT(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), harness.FreePort(t)
	passwords, config := filepath.Join(dir, "passwords"), filepath.Join(dir, "mosquitto.conf")
	must(t, os.WriteFile(passwords, []byte("check:hunter2\n"), 0o600))
	harness.MustRun(t, harness.Command{Path: harness.Tool(t, "mosquitto_passwd"), Args: []string{"-U", passwords}})
	must(t, os.WriteFile(config, fmt.Appendf(nil, "listener %d 127.0.0.1\npassword_file %s\nuser root\n", port, passwords), 0o600))
	p := harness.Start(t, harness.Command{Path: harness.Tool(t, "mosquitto"), Args: []string{"-v", "-c", config}})
	p.WaitStderr(t, "running")
	to := targetAt(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if _, err := (MQTT{User: "check", Password: "hunter2"}).Check(deadlineIn(t, patience), to); err != nil {
		t.Error(err)
	}
	p.WaitStderr(t, "Received DISCONNECT from limeload")
	for _, c := range []MQTT{{}, {User: "check"}, {User: "check", Password: "wrong"}} {
		_, err := c.Check(deadlineIn(t, patience), to)
		wantRefusal(t, err, "authentication refused")
	}
}

// TestRealLDAP checks a server of OpenLDAP.
func TestRealLDAP(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), net.JoinHostPort("127.0.0.1", strconv.Itoa(harness.FreePort(t)))
	config := filepath.Join(dir, "slapd.conf")
	must(t, os.WriteFile(config, []byte("pidfile "+dir+"/pid\ndisallow bind_anon\ndatabase ldif\nsuffix \"cn=example\"\n"+
		"directory "+dir+"\nrootdn \"cn=check,cn=example\"\nrootpw hunter2\n"), 0o600))
	p := harness.Start(t, harness.Command{Path: harness.Tool(t, "slapd"),
		Args: []string{"-d", "256", "-f", config, "-h", "ldap://" + address}})
	p.WaitStderr(t, "slapd starting")
	c := LDAP{User: "cn=check,cn=example", Password: "hunter2"}
	harness.Eventually(t, "the server takes the bind", func() error { // it says that it starts before it listens
		_, err := c.Check(deadlineIn(t, patience), targetAt(address))
		return err
	})
	p.WaitStderr(t, "UNBIND")
	c.Password = "wrong"
	_, err := c.Check(deadlineIn(t, patience), targetAt(address))
	wantRefusal(t, err, "authentication refused")
	_, err = LDAP{}.Check(deadlineIn(t, patience), targetAt(address))
	wantRefusal(t, err, "not allowed to log in: result 48 anonymous bind disallowed")
}

// FuzzMessages feeds an answer to each check: it ends, with a result or with an error that is short.
func FuzzMessages(f *testing.F) {
	for _, m := range messageChecks() {
		f.Add([]byte(m.good))
		for answer := range m.answers {
			f.Add([]byte(answer))
		}
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, talk := range []func(io.ReadWriter) (healthcheck.Result, error){
			talkSMTP, MQTT{User: "u"}.talk, talkAMQP, LDAP{}.talk,
			func(conn io.ReadWriter) (r healthcheck.Result, err error) {
				c := MongoDB{Role: healthcheck.RolePrimary}
				fields, err := c.talk(conn)
				if err != nil {
					return r, err
				}
				return c.judge(fields)
			},
		} {
			k := playBack(answer)
			_, err := talk(struct {
				io.Reader
				io.Writer
			}{&budgetReader{r: k, left: maxExchangeBytes}, k})
			if err != nil && len(k.unanswered(t.Context(), err).Error()) > 2*longestQuote {
				t.Errorf("error %v", err)
			}
		}
	})
}
