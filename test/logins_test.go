package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A passwordServer answers a login of MQTT or LDAP by whether its password is in it, and echoes everything else.
type passwordServer struct {
	*harness.Backend
	password atomic.Pointer[string]
	logins   atomic.Int64
}

// How brokers and directories answer a login.
var loginAnswers = map[byte]map[bool]string{
	0x10: {true: "\x20\x02\x00\x00", false: "\x20\x02\x00\x05"},
	0x30: {true: "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
		false: "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x31\x04\x00\x04\x00"},
}

func startPasswordServer(t *testing.T, password string) *passwordServer {
	t.Helper()
	s := new(passwordServer)
	s.password.Store(&password)
	s.Backend = harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		b := make([]byte, 512)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if answers := loginAnswers[b[0]]; answers != nil {
				if b[0] == 0x30 && b[5] != 0x60 { // no bind, but the end
					return
				}
				s.logins.Add(1)
				_, _ = c.Write([]byte(answers[strings.Contains(string(b[:n]), *s.password.Load())]))
			} else {
				_, _ = c.Write(b[:n])
			}
		}
	})
	return s
}

// echoes reports whether a session with a passwordServer works.
func echoes(c net.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// guardedFakes returns two servers of a kind that the tests do not start for real.
func guardedFakes(kind string) func(*testing.T) guarded {
	return func(t *testing.T) guarded {
		servers := []*passwordServer{startPasswordServer(t, "first"), startPasswordServer(t, "first")}
		return guarded{
			addresses: []string{servers[0].Address(), servers[1].Address()},
			health:    []string{fmt.Sprintf("type = %q", kind), `user = "cn=checker"`},
			change: func(_ *testing.T, password string, _ ...int) {
				for _, s := range servers {
					s.password.Store(&password)
				}
			},
			use: func(t *testing.T, address string) func() error {
				session := harness.Dial(t, address)
				check(t, echoes(session))
				return func() error { return echoes(session) }
			},
		}
	}
}

// A counted service has servers that count the logins they get.
type counted struct {
	addresses []string
	health    []string                 // lines of the health table, without the password file
	logins    func(t *testing.T) []int // at each server so far
}

func countedFakes(t *testing.T, kind string) (c counted) {
	var servers []*passwordServer
	for range 3 {
		s := startPasswordServer(t, "first")
		servers, c.addresses = append(servers, s), append(c.addresses, s.Address())
	}
	c.health = []string{fmt.Sprintf("type = %q", kind), `user = "cn=checker"`}
	c.logins = func(*testing.T) (n []int) {
		for _, s := range servers {
			n = append(n, int(s.logins.Load()))
		}
		return n
	}
	return c
}

func countedMySQL(t *testing.T) counted {
	primary, replica := mysqlPair(t)
	asked := 0
	return counted{[]string{primary.Address(), replica.Address()}, []string{`type = "mysql"`, `user = "checker"`},
		func(t *testing.T) (n []int) {
			asked++ // a question is a connection, too
			for _, m := range []*harness.MariaDB{primary, replica} {
				connections, err := strconv.Atoi(m.Do(t, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS "+
					"WHERE VARIABLE_NAME = 'Connections'"))
				check(t, err)
				n = append(n, connections-asked)
			}
			return n
		}}
}

// TestLoginsAreTriedOnce counts the logins at the servers: check tries one login at most at each server, also one that
// is refused. A server that blocks accounts or hosts after wrong passwords must not do so for a mistake in a file.
func TestLoginsAreTriedOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]counted{
		"mysql": countedMySQL(t), "mqtt": countedFakes(t, "mqtt"), "ldap": countedFakes(t, "ldap"),
	} {
		file := filepath.Join(t.TempDir(), "password")
		text := world{Backends: c.addresses, Health: append(c.health, fmt.Sprintf("password_file = %q", file))}.config(t)
		config := filepath.Join(t.TempDir(), "lb.toml")
		check(t, os.WriteFile(config, []byte(text), 0o600))
		place := regexp.MustCompile(regexp.QuoteMeta(config) + `:\d+: pool\.all\.health\.password_file: every backend that ` +
			`answers refuses the login; b1: authentication refused`)
		for _, password := range []string{"first", "wrong"} {
			check(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
			before := c.logins(t)
			_, stderr, code := harness.Run(t, harness.Command{
				Path: harness.Binary(t, false), Args: []string{"check", "--config", config},
			})
			all := 0
			for i, n := range c.logins(t) {
				n -= before[i]
				if all += n; n > 1 || password == "wrong" && n != 1 {
					t.Errorf("%s: check with the password %q logged in %d times to server %d", name, password, n, i)
				}
			}
			if all == 0 {
				t.Errorf("%s: check with the password %q logged in nowhere", name, password)
			}
			if password == "first" && code != 0 || password == "wrong" && (code != 1 || !place.MatchString(stderr)) {
				t.Errorf("%s: check with the password %q ends with %d: %s", name, password, code, stderr)
			}
		}
	}
}

// TestWrongCredentialsOfNewBackend adds a backend while every other one refuses the password: it gets no sessions,
// which says nothing about the others. The right password makes all of them healthy.
func TestWrongCredentialsOfNewBackend(t *testing.T) {
	t.Parallel()
	servers := []*passwordServer{startPasswordServer(t, "first"), startPasswordServer(t, "first")}
	file := filepath.Join(t.TempDir(), "password")
	check(t, os.WriteFile(file, []byte("first\n"), 0o600))
	b := world{
		Backends: []string{servers[0].Address(), servers[1].Address()},
		Health: []string{`type = "mqtt"`, `user = "checker"`, fmt.Sprintf("password_file = %q", file), `interval = "200ms"`,
			`fast_interval = "100ms"`, `timeout = "5s"`, `rise = 1`, `fall = 3`},
	}.start(t)
	awaitChecks(t, b, "success", 4)
	began := b.WaitVerdict(t, "b2", "healthy", b.Lines()[0].Seen.Add(-1)).Seen
	b.WaitVerdict(t, "b1", "healthy", b.Lines()[0].Seen.Add(-1))
	second := "second"
	for _, s := range servers {
		s.password.Store(&second)
	}
	awaitMetric(t, b, `limeload_pool_credentials_refused{pool="all"}`, 1)
	third := startPasswordServer(t, second)
	b.Ask(t, "POST", "/v1/pools/all/backends", map[string]any{"name": "b3", "address": third.Address()}, nil)
	harness.Eventually(t, "the new one is checked", func() error {
		if n := third.logins.Load(); n < 5 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	measured(t, b, map[string]float64{
		`limeload_pool_credentials_refused{pool="all"}`:                       1,
		`limeload_backend_verdict{backend="b1",pool="all",verdict="healthy"}`: 1,
		`limeload_backend_verdict{backend="b2",pool="all",verdict="healthy"}`: 1,
		`limeload_backend_verdict{backend="b3",pool="all",verdict="unknown"}`: 1,
	})
	for range 6 {
		check(t, echoes(harness.Dial(t, b.Address(t, "main"))))
	}
	check(t, os.WriteFile(file, []byte("second\n"), 0o600))
	if _, stderr, code := b.Command(t, "reload"); code != 0 {
		t.Fatalf("reload ends with %d: %s", code, stderr)
	}
	b.WaitVerdict(t, "b3", "healthy", began)
	awaitMetric(t, b, `limeload_pool_credentials_refused{pool="all"}`, 0)
	for _, change := range verdictChanges(b, began) {
		if !strings.Contains(change, `"b3"`) && !strings.Contains(change, `"from":"unknown"`) {
			t.Errorf("a verdict has changed: %s", change)
		}
	}
}
