package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/limeload/limeload-l4/test/harness"
)

// A guarded service has servers that require a password of the user "checker" only.
type guarded struct {
	addresses []string
	// lines of the health table, without the password file
	health []string
	// changes the password on these servers, nearly at the same time; none means all
	change func(t *testing.T, password string, servers ...int)
	// opens a session; stillThere reports whether it is still open
	use func(t *testing.T, address string) (stillThere func() error)
}

// guardedRedis is two Redis servers.
func guardedRedis(t *testing.T) guarded {
	servers := []*harness.Redis{harness.StartRedis(t), harness.StartRedis(t)}
	return guarded{
		addresses: []string{servers[0].Address, servers[1].Address},
		health:    []string{`type = "redis"`, `user = "checker"`},
		change: func(t *testing.T, password string, which ...int) {
			if which == nil {
				which = []int{0, 1}
			}
			var conns []net.Conn
			for _, i := range which {
				conns = append(conns, harness.Dial(t, servers[i].Address))
			}
			for _, c := range conns {
				_, err := fmt.Fprintf(c, "acl setuser checker on resetpass >%s +ping +role +info\r\n", password)
				check(t, err)
			}
			for _, c := range conns {
				answer := make([]byte, len("+OK\r\n"))
				_, err := io.ReadFull(c, answer)
				check(t, err)
				if string(answer) != "+OK\r\n" {
					t.Fatalf("the password is not changed: %q", answer)
				}
				check(t, c.Close())
			}
		},
		use: func(t *testing.T, address string) func() error {
			session := harness.Dial(t, address)
			check(t, harness.Ping(session))
			return func() error { return harness.Ping(session) }
		},
	}
}

// guardedPostgres returns a primary and its standby; clients use the primary, and changes there reach both.
func guardedPostgres(t *testing.T) guarded {
	primary := harness.StartPostgres(t)
	do(t, primary, "CREATE ROLE checker LOGIN PASSWORD 'first'")
	askForPasswords(t, primary)
	replica := primary.StartReplica(t)
	askForPasswords(t, replica)
	return guarded{
		addresses: []string{primary.Address(), replica.Address()},
		health:    []string{`type = "postgres"`, `user = "checker"`, `role = "primary"`},
		change: func(t *testing.T, password string, _ ...int) {
			do(t, primary, fmt.Sprintf("ALTER ROLE checker PASSWORD '%s'", password))
		},
		use: func(t *testing.T, address string) func() error {
			session := postgresClient(t, fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", primary.User,
				address))
			t.Cleanup(func() { closePostgres(t, session) })
			return func() error { return session.Ping(context.WithoutCancel(t.Context())) }
		},
	}
}

// guardedMySQL returns a primary and its replica; clients use the primary, and changes there reach both.
func guardedMySQL(t *testing.T) guarded {
	primary, replica := mysqlPair(t)
	return guarded{
		addresses: []string{primary.Address(), replica.Address()},
		health:    []string{`type = "mysql"`, `user = "checker"`, `role = "primary"`},
		change: func(t *testing.T, password string, _ ...int) {
			primary.Do(t, fmt.Sprintf("SET PASSWORD FOR checker = PASSWORD('%s')", password))
		},
		use: func(t *testing.T, address string) func() error {
			session := mysqlClient(t, address)
			return func() error { return session.PingContext(context.WithoutCancel(t.Context())) }
		},
	}
}

// askForPasswords makes a server require a password of the user "checker".
func askForPasswords(t *testing.T, p *harness.Postgres) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", p.User, p.Address()))
	check(t, err)
	defer conn.Close(t.Context())
	var file string
	check(t, conn.QueryRow(t.Context(), "SHOW hba_file").Scan(&file))
	rules, err := os.ReadFile(file)
	check(t, err)
	check(t, os.WriteFile(file, append([]byte("host all checker 127.0.0.1/32 scram-sha-256\n"), rules...), 0o600))
	_, err = conn.Exec(t.Context(), "SELECT pg_reload_conf()")
	check(t, err)
	harness.Eventually(t, "a password is asked for", func() error {
		wrong, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://checker:wrong@%s/postgres?sslmode=disable",
			p.Address()))
		if err == nil {
			wrong.Close(t.Context())
			return fmt.Errorf("any password will do")
		}
		return nil
	})
}

// checksEnded returns how many checks of the pool have had this outcome.
func checksEnded(t testing.TB, b *harness.Balancer, outcome string) float64 {
	t.Helper()
	return metrics(t, b)[`limeload_checks_total{outcome="`+outcome+`",pool="all"}`]
}

// awaitChecks waits until that many more checks have had this outcome than before.
func awaitChecks(t testing.TB, b *harness.Balancer, outcome string, more float64) {
	t.Helper()
	before := checksEnded(t, b, outcome)
	harness.Eventually(t, fmt.Sprintf("%v more checks end with %s", more, outcome), func() error {
		if n := checksEnded(t, b, outcome) - before; n < more {
			return fmt.Errorf("%v do", n)
		}
		return nil
	})
}

// verdictChanges returns how many verdicts have changed since a time.
func verdictChanges(b *harness.Balancer, since time.Time) (changes []string) {
	for _, l := range b.Lines() {
		if l.Message == "verdict changed" && l.Seen.After(since) {
			changes = append(changes, l.Text)
		}
	}
	return changes
}

// TestWrongCredentials first changes the password in the file, which check, plan and reload refuse. Then it changes it
// on all servers, which changes no verdict and ends no session, but is logged. Then the file is right, and a reload
// applies it.
func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) guarded{"redis": guardedRedis, "postgres": guardedPostgres,
		"mysql": guardedMySQL, "mqtt": guardedFakes("mqtt"), "ldap": guardedFakes("ldap")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			g.change(t, "first")
			file := filepath.Join(t.TempDir(), "password")
			write := func(password string) { check(t, os.WriteFile(file, []byte(password+"\n"), 0o600)) }
			write("first")
			started := time.Now()
			b := world{
				Backends: g.addresses, Pool: []string{`on_unhealthy = "close"`},
				Health: append(g.health, fmt.Sprintf("password_file = %q", file),
					// fall leaves time for the password change on the second server
					`interval = "200ms"`, `fast_interval = "200ms"`, `timeout = "2s"`, `rise = 1`, `fall = 10`),
			}.start(t)
			b.WaitVerdict(t, "b1", "healthy", started)
			awaitChecks(t, b, "success", 3)
			stillThere := g.use(t, b.Address(t, "main"))

			// In the file: no server accepts the new password, so the reload is refused.
			write("second")
			changed := time.Now()
			where := regexp.MustCompile(regexp.QuoteMeta(b.File()) + `:\d+: pool\.all\.health\.password_file: ` +
				`every backend that answers refuses the login; b1: authentication refused`)
			for _, command := range [][]string{{"check", "--config", b.File()}, {"plan"},
				{"plan", "--config", b.File()}, {"reload"}} {
				_, stderr, code := b.Command(t, command...)
				if code != 1 || !where.MatchString(stderr) {
					t.Errorf("%s ends with %d: %s", command[0], code, stderr)
				}
			}
			awaitChecks(t, b, "success", 5)
			if n := checksEnded(t, b, "refused"); n != 0 {
				t.Errorf("%v checks were refused with the password of before", n)
			}

			// On the servers: now the file would be right, but it has not been reloaded.
			g.change(t, "second")
			awaitChecks(t, b, "refused", 60)
			if changes := verdictChanges(b, changed); len(changes) > 0 {
				t.Errorf("verdicts have changed: %s", changes)
			}
			awaitMetric(t, b, `limeload_pool_credentials_refused{pool="all"}`, 1)
			line := b.WaitLine(t, "the refusal is logged", func(l harness.Line) bool {
				return strings.Contains(l.Message, "refuses the credentials")
			})
			if line.Level != "error" || line.Pool != "all" || line.Reason != "authentication refused" {
				t.Errorf("it is logged as %s", line.Text)
			}
			check(t, stillThere())
			check(t, g.use(t, b.Address(t, "main"))())

			// And the reload.
			stdout, stderr, code := b.Command(t, "plan")
			if code != 0 || !strings.Contains(stdout,
				"pool all: changed, health.password_file: the contents of before -> other contents") {
				t.Errorf("plan ends with %d: %s%s", code, stdout, stderr)
			}
			if _, stderr, code := b.Command(t, "reload"); code != 0 {
				t.Fatalf("reload ends with %d: %s", code, stderr)
			}
			awaitMetric(t, b, `limeload_pool_credentials_refused{pool="all"}`, 0)
			awaitChecks(t, b, "success", 3)
			if changes := verdictChanges(b, changed); len(changes) > 0 {
				t.Errorf("verdicts have changed: %s", changes)
			}
			check(t, stillThere())
			if stdout, _, code := b.Command(t, "plan"); code != 0 || !strings.Contains(stdout, "nothing would change") {
				t.Errorf("plan ends with %d: %s", code, stdout)
			}
		})
	}
}

// TestWrongCredentialsOfOne changes the password on one of two servers: that one becomes unhealthy, since the other
// accepts the login.
func TestWrongCredentialsOfOne(t *testing.T) {
	t.Parallel()
	g := guardedRedis(t)
	g.change(t, "first")
	started := time.Now()
	b := world{
		Backends: g.addresses,
		Health: append(g.health, "password_file = "+passwordFile(t, "first"), `interval = "200ms"`,
			`fast_interval = "100ms"`, `timeout = "2s"`,
			`rise = 1`, `fall = 2`),
	}.start(t)
	b.WaitVerdict(t, "b1", "healthy", started)
	b.WaitVerdict(t, "b2", "healthy", started)
	changed := time.Now()
	g.change(t, "second", 1)
	if line := b.WaitVerdict(t, "b2", "unhealthy", changed); line.Reason != "authentication refused" {
		t.Errorf("b2 is unhealthy for %q", line.Reason)
	}
	if changes := verdictChanges(b, changed); len(changes) != 1 {
		t.Errorf("verdicts have changed: %s", changes)
	}
	measured(t, b, map[string]float64{`limeload_pool_credentials_refused{pool="all"}`: 0})
}

// TestWrongCredentialsAtStart starts with a wrong password, and without one: the verdict stays unknown, or as initial
// says, and the log has the reason. check reports it too.
func TestWrongCredentialsAtStart(t *testing.T) {
	t.Parallel()
	server := harness.StartRedisOn(t, harness.FreePort(t), "--requirepass", "right")
	for _, tt := range []struct {
		key, reason string
		initial     string
	}{
		{"password_file = " + passwordFile(t, "wrong"), "authentication refused", "unknown"},
		{`user = ""`, "the server wants a password", "healthy"},
	} {
		b := world{
			Backends: []string{server.Address},
			Health: []string{`type = "redis"`, tt.key, fmt.Sprintf("initial = %q", tt.initial), `interval = "300ms"`,
				`fast_interval = "100ms"`,
				`timeout = "2s"`, `rise = 1`, `fall = 2`},
		}.start(t)
		line := b.WaitLine(t, "the refusal is logged", func(l harness.Line) bool {
			return strings.Contains(l.Message, "refuses the credentials")
		})
		if line.Reason != tt.reason || line.Backend != "b1" {
			t.Errorf("it is logged as %s", line.Text)
		}
		awaitChecks(t, b, "refused", 5)
		measured(t, b, map[string]float64{fmt.Sprintf(`limeload_backend_verdict{backend="b1",pool="all",verdict=%q}`,
			tt.initial): 1})
		if _, stderr, code := b.Command(t, "check", "--config", b.File()); code != 1 ||
			!strings.Contains(stderr, tt.reason) {
			t.Errorf("check ends with %d: %s", code, stderr)
		}
	}
}

// TestWrongCredentialsUnreached reloads a changed password where no server can be reached: that says nothing about the
// password.
func TestWrongCredentialsUnreached(t *testing.T) {
	t.Parallel()
	w := world{
		Backends: []string{"127.0.0.1:1"},
		Health:   []string{`type = "redis"`, "password_file = " + passwordFile(t, "first")},
	}
	b := w.start(t)
	w.Listen = b.Address(t, "main")
	w.Health[1] = "password_file = " + passwordFile(t, "second")
	b.Reload(t, w.config(t))
}
