package test

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/limeload/limeload-l4/test/harness"
)

// mysqlClient opens a session of its own through the balancer, or directly. It ends with the test.
func mysqlClient(t *testing.T, address string) *sql.Conn {
	t.Helper()
	conn, err := dialMySQL(t, t.Context(), address)
	check(t, err)
	return conn
}

func dialMySQL(t *testing.T, ctx context.Context, address string) (*sql.Conn, error) {
	t.Helper()
	config := mysql.NewConfig()
	config.User, config.Net, config.Addr, config.Logger = "app", "tcp", address, new(mysql.NopLogger)
	connector, err := mysql.NewConnector(config)
	check(t, err)
	db := sql.OpenDB(connector)
	conn, err := db.Conn(ctx)
	t.Cleanup(func() { // before the balancer ends, which checks its descriptors
		if conn != nil {
			_ = conn.Close()
		}
		_ = db.Close()
	})
	return conn, err
}

// mysqlPair starts a primary and its replica, with the accounts "app" for clients and "checker" for checks.
func mysqlPair(t *testing.T) (primary, replica *harness.MariaDB) {
	t.Helper()
	primary, replica = harness.StartMariaDB(t), harness.StartMariaDB(t)
	replica.Follow(t, primary)
	primary.Do(t, "CREATE DATABASE d; CREATE TABLE d.written (id int AUTO_INCREMENT PRIMARY KEY); "+
		"CREATE USER app; GRANT ALL ON d.* TO app; CREATE USER checker IDENTIFIED BY 'first'; "+
		"GRANT SLAVE MONITOR ON *.* TO checker")
	harness.Eventually(t, "the replica has the accounts", func() error {
		if replica.Do(t, "SELECT COUNT(*) FROM mysql.user WHERE User = 'checker'") != "1" {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	return primary, replica
}

// mysqlPage returns the first two configurations of docs/mysql.md, which are for a primary and its replica.
func mysqlPage(t *testing.T, primary, replica *harness.MariaDB) string {
	t.Helper()
	found := regexp.MustCompile("(?s)```toml\n(\\[listener.mysql.*?)```").FindAllStringSubmatch(
		string(readFile(t, "../docs/mysql.md")), -1)
	if len(found) != 2 {
		t.Fatalf("docs/mysql.md shows %d configurations", len(found))
	}
	password := passwordFile(t, "first")
	return onThisMachine(t, found[0][1]+found[1][1], `":3306"`, fmt.Sprintf("%q", harness.FreeAddress(t)),
		`":3307"`, fmt.Sprintf("%q", harness.FreeAddress(t)), `"/etc/limeload/mysql.password"`, password,
		"10.0.0.21:3306", primary.Address(), "10.0.0.22:3306", replica.Address(), `"limeload"`, `"checker"`)
}

// awaitVerdict waits for a change of the verdict on a backend of a pool, after a time.
func awaitVerdict(t *testing.T, b *harness.Balancer, pool, backend, to string, since time.Time) harness.Line {
	t.Helper()
	return b.WaitLine(t, fmt.Sprintf("%s of pool %s is %s", backend, pool, to), func(l harness.Line) bool {
		return l.Message == harness.MessageVerdict && l.Pool == pool && l.Backend == backend && l.To == to &&
			l.Seen.After(since)
	})
}

// TestMySQLFailover runs the configurations of docs/mysql.md. It stops a primary and promotes its replica: writers
// reach the new one, no write ever goes to a read-only server, and the old primary is fenced off when it comes back and
// takes writes.
func TestMySQLFailover(t *testing.T) {
	t.Parallel()
	primary, replica := mysqlPair(t)
	started := time.Now()
	b := harness.StartBalancer(t, mysqlPage(t, primary, replica))
	awaitVerdict(t, b, "mysql", "db1", "healthy", started)
	awaitVerdict(t, b, "mysql", "db2", "wrong_role", started)
	awaitVerdict(t, b, "mysql-read", "db1", "wrong_role", started)
	awaitVerdict(t, b, "mysql-read", "db2", "healthy", started)
	var port string
	check(t, mysqlClient(t, b.Address(t, "mysql-read")).QueryRowContext(t.Context(), "SELECT @@port").Scan(&port))
	if port != replica.Port {
		t.Errorf("a reader is sent to the server on port %s", port)
	}

	// write writes a row in a session of its own, and returns the port of the server that took it.
	write := func() (port string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		conn, err := dialMySQL(t, ctx, b.Address(t, "mysql"))
		if err != nil {
			return "", err // it has waited for a primary
		}
		defer conn.Close()
		if _, err = conn.ExecContext(ctx, "INSERT INTO d.written VALUES ()"); err != nil {
			return "", err
		}
		return port, conn.QueryRowContext(ctx, "SELECT @@port").Scan(&port)
	}
	writesTo := func(want string) {
		t.Helper()
		harness.Eventually(t, "rows are written to the server on port "+want, func() error {
			port, err := write()
			if mistake, refused := err.(*mysql.MySQLError); refused && mistake.Number == 1290 { // read_only
				t.Errorf("a write went to a replica: %v", err)
			}
			if err == nil && port != want {
				err = fmt.Errorf("the server on port %s took it", port)
			}
			return err
		})
	}
	writesTo(primary.Port)
	held := mysqlClient(t, b.Address(t, "mysql"))
	stopped := time.Now()
	primary.Signal(t, syscall.SIGSTOP)
	replica.Promote(t)
	promoted := time.Now()
	writesTo(replica.Port)
	// A write that has gone to the stopped primary waits for its own 3 s, so this is no bound of the checks.
	t.Logf("the new primary took the first write %v after its promotion", time.Since(promoted).Round(time.Millisecond))
	b.WaitLine(t, "the old primary's session is closed", func(l harness.Line) bool {
		return l.IsAccess() && l.Pool == "mysql" && l.Backend == "db1" && l.Seen.After(stopped) &&
			l.Reason == "backend_unhealthy"
	})
	if err := held.PingContext(t.Context()); err == nil {
		t.Error("a session of the old primary goes on")
	}

	primary.Signal(t, syscall.SIGCONT)
	b.WaitLine(t, "two claim to be the primary", func(l harness.Line) bool {
		return l.Message == "two backends claim to be the primary" && l.Level == "error"
	})
	writesTo(replica.Port)
	primary.Follow(t, replica) // the operator's way back
	awaitVerdict(t, b, "mysql", "db1", "wrong_role", promoted)
	writesTo(replica.Port)
}

// TestMySQLReplicaPool: a pool of replicas has neither the primary nor a replica that has stopped to follow it.
func TestMySQLReplicaPool(t *testing.T) {
	t.Parallel()
	primary, replica := mysqlPair(t)
	started := time.Now()
	b := world{
		Backends: []string{primary.Address(), replica.Address()},
		Health: []string{
			`type = "mysql"`, `user = "checker"`, "password_file = " + passwordFile(t, "first"), `role = "replica"`,
			`max_lag = "5s"`, `query = "SELECT 1"`, `interval = "200ms"`, `fast_interval = "200ms"`, `rise = 1`, `fall = 2`,
		},
	}.start(t)
	b.WaitVerdict(t, "b1", "wrong_role", started)
	b.WaitVerdict(t, "b2", "healthy", started)
	var port string
	check(t, mysqlClient(t, b.Address(t, "main")).QueryRowContext(t.Context(), "SELECT @@port").Scan(&port))
	if port != replica.Port {
		t.Errorf("a reader is sent to the server on port %s", port)
	}
	changed := time.Now()
	replica.Do(t, "STOP SLAVE")
	b.WaitVerdict(t, "b2", "lagging", changed)
	changed = time.Now()
	replica.Do(t, "START SLAVE")
	b.WaitVerdict(t, "b2", "healthy", changed)
}
