package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// A realPostgres is a server with a superuser, and with a user "probe" without special rights.
type realPostgres struct {
	*harness.Process
	to    healthcheck.Target
	data  string              // its folder
	owner *syscall.Credential // who the server runs as
}

// anyPostgres is a check by a user without rights.
var anyPostgres = Postgres{User: "probe", Database: "postgres"}

func startRealPostgres(t *testing.T) *realPostgres {
	t.Helper()
	h := harness.StartPostgres(t)
	p := &realPostgres{Process: h.Process,
		to: healthcheck.Target{ID: "postgres", Addr: netip.MustParseAddrPort(h.Address())}}
	p.data = p.show(t, "data_directory")
	info, err := os.Stat(p.data)
	must(t, err)
	if os.Geteuid() == 0 { // otherwise the server is of the same user as the test
		stat := info.Sys().(*syscall.Stat_t)
		p.owner = &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}
	}
	p.do(t, "CREATE ROLE probe LOGIN")
	return p
}

// connect logs in as the superuser until the test ends.
func (p *realPostgres) connect(t *testing.T, user string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(),
		fmt.Sprintf("host=%v port=%d user=%s dbname=postgres sslmode=disable connect_timeout=20", p.to.Addr.Addr(),
			p.to.Addr.Port(), user))
	must(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// do runs statements as the superuser, each in a transaction of its own.
func (p *realPostgres) do(t *testing.T, statements ...string) {
	t.Helper()
	conn := p.connect(t, "limeload")
	defer conn.Close(t.Context())
	for _, s := range statements {
		_, err := conn.Exec(deadlineIn(t, patience), s, pgx.QueryExecModeSimpleProtocol)
		must(t, err)
	}
}

// show returns a setting.
func (p *realPostgres) show(t *testing.T, setting string) (value string) {
	t.Helper()
	conn := p.connect(t, "limeload")
	defer conn.Close(t.Context())
	must(t, conn.QueryRow(deadlineIn(t, patience), "SELECT current_setting($1)", setting).Scan(&value))
	return value
}

// admit replaces pg_hba.conf; the superuser stays trusted.
func (p *realPostgres) admit(t *testing.T, lines ...string) {
	t.Helper()
	text := "host all limeload 127.0.0.1/32 trust\n" + strings.Join(lines, "\n") + "\n"
	must(t, os.WriteFile(filepath.Join(p.data, "pg_hba.conf"), []byte(text), 0o600))
	p.reload(t)
}

// reload makes the server read its configuration again. It returns when new sessions use it: the postmaster, which
// starts them, handles signals before connections, and a session that sees the new load time was started after the
// reload.
func (p *realPostgres) reload(t *testing.T) {
	t.Helper()
	loaded := func() (at time.Time) {
		conn := p.connect(t, "limeload")
		defer conn.Close(t.Context())
		must(t, conn.QueryRow(deadlineIn(t, patience), "SELECT pg_conf_load_time()").Scan(&at))
		return at
	}
	before := loaded()
	p.do(t, "SELECT pg_reload_conf()")
	harness.Eventually(t, "configuration read again", func() error {
		if loaded().Equal(before) {
			return errors.New("not yet")
		}
		return nil
	})
}

// copyTo makes a copy of the server's data beside it.
func (p *realPostgres) copyTo(t *testing.T, name string) (folder string) {
	t.Helper()
	folder = filepath.Join(filepath.Dir(p.data), name)
	harness.MustRun(t, harness.Command{
		Path: harness.Tool(t, "pg_basebackup"), User: p.owner, Dir: filepath.Dir(p.data), Env: []string{"LC_ALL=C"},
		Args: []string{
			"-h", "127.0.0.1", "-p", strconv.Itoa(int(p.to.Addr.Port())), "-U", "limeload", "-D", folder,
			"--write-recovery-conf", "--checkpoint=fast", "--no-sync",
		},
	})
	return folder
}

// startCopy starts a server on a copy of p. It accepts connections when log says so.
func (p *realPostgres) startCopy(t *testing.T, folder, log string, settings ...string) *realPostgres {
	t.Helper()
	port := harness.FreePort(t)
	// at least those of the primary
	args := []string{"-D", folder, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-k", filepath.Dir(p.data),
		"-c", "fsync=off", "-c", "max_connections=200"}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	replica := &realPostgres{
		Process: harness.Start(t, harness.Command{
			Path: harness.Tool(t, "postgres"), User: p.owner, Dir: filepath.Dir(p.data),
			Env: []string{"LC_ALL=C", "TZ=UTC"}, Args: args,
		}),
		to: healthcheck.Target{ID: "replica",
			Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))},
		data: folder, owner: p.owner,
	}
	t.Cleanup(func() { // its children end with it only when it is asked to end
		select {
		case <-replica.Done():
		default:
			replica.Signal(t, syscall.SIGQUIT)
			replica.Wait(t)
		}
	})
	replica.WaitStderr(t, log)
	return replica
}

// startReplica starts a replica that streams.
func (p *realPostgres) startReplica(t *testing.T) *realPostgres {
	t.Helper()
	r := p.startCopy(t, p.copyTo(t, "replica"), "ready to accept read-only connections")
	r.WaitStderr(t, "started streaming WAL from primary")
	return r
}

// eventuallyFails waits until a check of a target fails with these words.
func eventuallyFails(t *testing.T, c Postgres, to healthcheck.Target, words string, wraps error) {
	t.Helper()
	var err error
	harness.Eventually(t, words, func() error {
		if _, err = c.Check(deadlineIn(t, patience), to); err == nil ||
			!strings.HasPrefix(err.Error(), strings.TrimSuffix(words, "...")) {
			return fmt.Errorf("check: %w", err)
		}
		return nil
	})
	wantWords(t, err, words, wraps)
}

// eventuallyHealthy waits until a check of a target succeeds.
func eventuallyHealthy(t *testing.T, c Postgres, to healthcheck.Target) (got healthcheck.Result) {
	t.Helper()
	harness.Eventually(t, "healthy", func() (err error) {
		got, err = c.Check(deadlineIn(t, patience), to)
		return err
	})
	return got
}

// TestPostgresRoles checks a primary and its replica. The replica falls behind, loses the primary and is promoted.
func TestPostgresRoles(t *testing.T) {
	t.Parallel()
	primary := startRealPostgres(t)
	alone, err := anyPostgres.Check(deadlineIn(t, patience), primary.to)
	if err != nil || alone.Role != healthcheck.RolePrimary || alone.Epoch != 1 || alone.Replicas != 0 ||
		alone.Latency <= 0 || alone.Detail != "primary of timeline 1 with 0 replicas" {
		t.Errorf("check of the primary is %+v, %v", alone, err)
	}
	replica := primary.startReplica(t)

	wantsPrimary, wantsReplica, strict := anyPostgres, anyPostgres, anyPostgres
	wantsPrimary.Role, wantsReplica.Role = healthcheck.RolePrimary, healthcheck.RoleReplica
	strict.Role, strict.MaxLag = healthcheck.RoleReplica, time.Nanosecond
	got, err := wantsPrimary.Check(deadlineIn(t, patience), primary.to)
	if err != nil || got.Replicas != 1 || got.Offset <= alone.Offset {
		t.Errorf("check of a primary with a replica is %+v, %v", got, err)
	}
	if got, err = wantsReplica.Check(deadlineIn(t, patience), replica.to); err != nil ||
		got.Role != healthcheck.RoleReplica || got.Epoch != 0 {
		t.Errorf("check of the replica is %+v, %v", got, err)
	}
	got, err = wantsPrimary.Check(deadlineIn(t, patience), replica.to)
	wantWords(t, err, "is a replica, wanted a primary", healthcheck.ErrWrongRole)
	if got.Role != healthcheck.RoleReplica {
		t.Errorf("role is %v, want replica", got.Role)
	}
	got, err = wantsReplica.Check(deadlineIn(t, patience), primary.to)
	wantWords(t, err, "is a primary, wanted a replica", healthcheck.ErrWrongRole)
	if got.Role != healthcheck.RolePrimary || got.Epoch != 1 || got.Replicas != 1 {
		t.Errorf("result is %+v, want that of a primary", got)
	}

	// With an idle primary there is no lag, however old the last transaction is.
	if got = eventuallyHealthy(t, strict, replica.to); got.Detail != "replica with a lag of 0s" {
		t.Errorf("detail is %q", got.Detail)
	}
	for i, words := range []string{"replica: no transaction replayed since its start, lag unknown",
		"replica: lags by ..."} {
		replica.do(t, "SELECT pg_wal_replay_pause()")
		primary.do(t, fmt.Sprintf("CREATE TABLE late%d (n int)", i))
		eventuallyFails(t, strict, replica.to, words, healthcheck.ErrLagging)
		if _, err := wantsReplica.Check(deadlineIn(t, patience), replica.to); err != nil {
			t.Errorf("check without a limit: %v", err)
		}
		replica.do(t, "SELECT pg_wal_replay_resume()")
		eventuallyHealthy(t, strict, replica.to)
	}

	// Without its primary the replica cannot know whether it has all transactions.
	primary.Signal(t, syscall.SIGINT)
	primary.Wait(t)
	eventuallyFails(t, strict, replica.to, "replica: lags by ...", healthcheck.ErrLagging)
	replica.do(t, "SELECT pg_promote()")
	got, err = wantsPrimary.Check(deadlineIn(t, patience), replica.to)
	if err != nil || got.Role != healthcheck.RolePrimary || got.Epoch != 2 {
		t.Errorf("check after the promotion is %+v, %v", got, err)
	}
}

func TestPostgresLogins(t *testing.T) {
	t.Parallel()
	server := startRealPostgres(t)
	server.do(t,
		"SET password_encryption = 'scram-sha-256'", "CREATE ROLE scram LOGIN PASSWORD 'pässw0rd ''1'",
		"CREATE ROLE clear LOGIN PASSWORD 'clear'",
		"SET password_encryption = 'md5'", "CREATE ROLE md5 LOGIN PASSWORD 'secret'", "CREATE ROLE nologin",
		"CREATE ROLE few LOGIN CONNECTION LIMIT 1", "CREATE ROLE slow LOGIN",
		"CREATE DATABASE closed ALLOW_CONNECTIONS false",
		"CREATE DATABASE private", "REVOKE CONNECT ON DATABASE private FROM PUBLIC",
	)
	server.admit(t,
		"host all scram 127.0.0.1/32 scram-sha-256", "host all md5 127.0.0.1/32 md5",
		"host all clear 127.0.0.1/32 password",
		"host all probe,nologin,few,nobody 127.0.0.1/32 trust", "hostssl all secure 127.0.0.1/32 trust",
		"host all rejected 127.0.0.1/32 reject",
	)
	server.connect(t, "few")
	in := func(user, password, database string) Postgres {
		return Postgres{User: user, Password: password, Database: database}
	}
	for name, tt := range map[string]struct {
		c    Postgres
		want string // "" if healthy
	}{
		"trust":           {in("probe", "", "postgres"), ""},
		"trust, password": {in("probe", "needless", "postgres"), ""},
		"scram":           {in("scram", "pässw0rd '1", "postgres"), ""},
		"scram, wrong":    {in("scram", "passw0rd '1", "postgres"), "authentication refused"},
		"scram, none":     {in("scram", "", "postgres"), "the server wants a password"},
		"md5":             {in("md5", "secret", "postgres"), ""},
		"md5, wrong":      {in("md5", "secret1", "postgres"), "authentication refused"},
		"md5, none":       {in("md5", "", "postgres"), "the server wants a password"},
		"clear":           {in("clear", "clear", "postgres"), ""},
		"clear, wrong":    {in("clear", "clear1", "postgres"), "authentication refused"},
		"clear, none":     {in("clear", "", "postgres"), "the server wants a password"},
		"no user": {in("", "", "postgres"),
			"not allowed to log in: no PostgreSQL user name specified in startup packet"},
		"no such user": {in("nobody", "", "postgres"), `not allowed to log in: role "nobody" does not exist`},
		"no login": {in("nologin", "", "postgres"),
			`not allowed to log in: role "nologin" is not permitted to log in`},
		"no entry": {in("slow", "", "postgres"),
			"not allowed to log in: no pg_hba.conf entry for host \"127.0.0.1\", user \"slow\"..."},
		"tls only": {in("secure", "", "postgres"),
			"not allowed to log in: no pg_hba.conf entry for host..."},
		"rejected": {in("rejected", "", "postgres"),
			"not allowed to log in: pg_hba.conf rejects connection for host..."},
		"no such database":     {in("probe", "", "nowhere"), `no such database: database "nowhere" does not exist`},
		"database of the user": {in("probe", "", ""), `no such database: database "probe" does not exist`},
		"closed database": {in("probe", "", "closed"),
			`answered with an error: database "closed" is not currently accepting connections`},
		"private database": {in("probe", "", "private"), `not permitted: permission denied for database "private"`},
		"too many": {in("few", "", "postgres"),
			`too many connections: too many connections for role "few"`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tt.c.Check(deadlineIn(t, patience), server.to)
			if tt.want != "" {
				wantWords(t, err, tt.want, nil)
			} else if err != nil || got.Role != healthcheck.RolePrimary {
				t.Errorf("check is %+v, %v", got, err)
			}
		})
	}
}

// TestPostgresEnvironment sets all environment variables that libpq uses. The check ignores them.
func TestPostgresEnvironment(t *testing.T) {
	server := startRealPostgres(t)
	server.do(t, "CREATE ROLE scram LOGIN PASSWORD 'right'")
	server.admit(t, "host all probe 127.0.0.1/32 trust", "host all scram 127.0.0.1/32 scram-sha-256")
	home := t.TempDir()
	must(t, os.WriteFile(filepath.Join(home, ".pgpass"), []byte("*:*:*:*:right\n"), 0o600))
	for name, value := range map[string]string{
		"HOME": home, "PGPASSFILE": filepath.Join(home, ".pgpass"), "PGHOST": "192.0.2.1", "PGPORT": "1",
		"PGUSER": "nobody", "PGPASSWORD": "right",
		"PGDATABASE": "nowhere", "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere", "PGSERVICE": "nowhere",
		"PGSERVICEFILE": "/nowhere",
		"PGAPPNAME":     "another", "PGCONNECT_TIMEOUT": "nonsense", "PGTARGETSESSIONATTRS": "standby",
		"PGOPTIONS": "-c nonsense=1",
	} {
		t.Setenv(name, value)
	}
	if _, err := anyPostgres.Check(deadlineIn(t, patience), server.to); err != nil {
		t.Errorf("check: %v", err)
	}
	_, err := Postgres{User: "scram", Database: "postgres"}.Check(deadlineIn(t, patience), server.to)
	wantWords(t, err, "the server wants a password", nil)
	_, err = Postgres{User: "scram", Database: "postgres", Password: "wrong"}.Check(deadlineIn(t, patience), server.to)
	wantWords(t, err, "authentication refused", nil)
}

// TestPostgresLogsNothing checks a server that logs everything unusual. It logs nothing about the check.
func TestPostgresLogsNothing(t *testing.T) {
	t.Parallel()
	server := startRealPostgres(t)
	server.do(t, "ALTER SYSTEM SET log_min_messages = 'info'", "ALTER SYSTEM SET log_disconnections = on")
	server.reload(t)
	before := strings.Count(server.Stderr(), "\n")
	wrong := anyPostgres
	wrong.Role = healthcheck.RoleReplica
	_, err := anyPostgres.Check(deadlineIn(t, patience), server.to)
	must(t, err)
	_, err = wrong.Check(deadlineIn(t, patience), server.to)
	wantWords(t, err, "is a primary, wanted a replica", healthcheck.ErrWrongRole)
	server.do(t, "DO $$BEGIN RAISE LOG 'that is all'; END$$")
	server.WaitStderr(t, "that is all")
	harness.Eventually(t, "both checks logged out", func() error {
		if n := strings.Count(server.Stderr(), "user=probe database=postgres"); n != 2 {
			return fmt.Errorf("%d did", n)
		}
		return nil
	})
	for _, line := range strings.Split(server.Stderr(), "\n")[before+1:] {
		if !strings.Contains(line, "disconnection:") && !strings.Contains(line, "that is all") &&
			!strings.Contains(line, "inline_code_block") &&
			!strings.Contains(line, "STATEMENT:") && !strings.Contains(line, "CONTEXT:") &&
			!strings.Contains(line, "reloading") &&
			!strings.Contains(line, "parameter ") {
			t.Errorf("the server logs %q", line)
		}
	}
}

// TestPostgresHung stops the postmaster. The kernel still accepts connections for it.
func TestPostgresHung(t *testing.T) {
	t.Parallel()
	server := startRealPostgres(t)
	server.Signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { server.Signal(t, syscall.SIGCONT) })
	_, err := anyPostgres.Check(within(t, 200*time.Millisecond), server.to)
	wantTimeout(t, err, "timed out waiting for the answer after ", 200*time.Millisecond)

	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(50*time.Millisecond, cancel) // while it waits for an answer
	defer timer.Stop()
	_, err = anyPostgres.Check(ctx, server.to)
	wantWords(t, err, "cancelled", healthcheck.ErrInconclusive)
}

// TestPostgresShutsDown asks the server to shut down when its clients have left, and keeps a client connected.
func TestPostgresShutsDown(t *testing.T) {
	t.Parallel()
	server := startRealPostgres(t)
	server.connect(t, "limeload")
	server.Signal(t, syscall.SIGTERM)
	eventuallyFails(t, anyPostgres, server.to, "not accepting connections: the database system is shutting down", nil)
}

// TestPostgresStartsUp checks a server that waits for WAL before it is consistent, and one that never accepts clients.
func TestPostgresStartsUp(t *testing.T) {
	t.Parallel()
	server := startRealPostgres(t)
	for name, tt := range map[string]struct{ setting, want string }{
		"starts": {"restore_command=sleep 1000", "not accepting connections: the database system is starting up"},
		"cold":   {"hot_standby=off", "not accepting connections: the database system is not accepting connections"},
	} {
		// "starts" ends once there is a server at all; the words are awaited
		replica := server.startCopy(t, server.copyTo(t, name), "listening on IPv4", tt.setting, "primary_conninfo=")
		eventuallyFails(t, anyPostgres, replica.to, tt.want, nil)
	}
}
