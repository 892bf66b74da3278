package probe

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// A realMariaDB is a server with a user "probe", which has a password and no rights.
type realMariaDB struct {
	*harness.MariaDB
	to healthcheck.Target
}

// anyMySQL is a check by a user without rights.
var anyMySQL = MySQL{User: "probe", Password: "hunter2"}

func startRealMariaDB(t *testing.T, options ...string) *realMariaDB {
	t.Helper()
	m := &realMariaDB{MariaDB: harness.StartMariaDB(t, options...)}
	m.to = healthcheck.Target{ID: "mariadb", Addr: netip.MustParseAddrPort(m.Address())}
	m.Do(t, "SET sql_log_bin = 0; CREATE USER probe IDENTIFIED BY 'hunter2'")
	return m
}

// eventuallySays waits until a check ends with words; "" is a healthy server.
func eventuallySays(t *testing.T, c MySQL, to healthcheck.Target, words string) (got healthcheck.Result) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("the check says %q", words), func() error {
		var err error
		got, err = c.Check(deadlineIn(t, patience), to)
		documented(t, err)
		if (err == nil) != (words == "") || err != nil && !strings.HasPrefix(err.Error(), words) {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	return got
}

func TestMySQLReplica(t *testing.T) {
	t.Parallel()
	primary, replica := startRealMariaDB(t), startRealMariaDB(t)
	replica.Follow(t, primary.MariaDB)
	asPrimary, asReplica := anyMySQL, anyMySQL
	asPrimary.Role = healthcheck.RolePrimary
	asReplica.Role, asReplica.MaxLag = healthcheck.RoleReplica, 2*time.Second
	_, err := asReplica.Check(deadlineIn(t, patience), replica.to)
	wantRefusal(t, err, "not permitted: Access denied; .*")
	for _, m := range []*realMariaDB{primary, replica} {
		m.Do(t, "SET sql_log_bin = 0; GRANT SLAVE MONITOR ON *.* TO probe")
	}
	got := eventuallySays(t, asReplica, replica.to, "")
	if got.Role != healthcheck.RoleReplica || got.Detail != "replica with a lag of 0s" || got.Latency <= 0 {
		t.Errorf("the replica is %+v", got)
	}
	got = eventuallySays(t, asPrimary, primary.to, "")
	if got.Role != healthcheck.RolePrimary || got.Replicas != 1 || got.Detail != "primary with 1 replica" ||
		got.Offset == 0 {
		t.Errorf("the primary is %+v", got)
	}
	_, err = asPrimary.Check(deadlineIn(t, patience), replica.to)
	wantWords(t, err, "is a replica, wanted a primary", healthcheck.ErrWrongRole)
	_, err = asReplica.Check(deadlineIn(t, patience), primary.to)
	wantWords(t, err, "is a primary, wanted a replica", healthcheck.ErrWrongRole)

	replica.Do(t, "LOCK TABLES mysql.gtid_slave_pos WRITE; UNLOCK TABLES; STOP SLAVE SQL_THREAD")
	eventuallySays(t, asReplica, replica.to, "replica: replication is not running (io Yes, sql No), lag unknown")
	replica.Do(t, "STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = 3600; START SLAVE")
	primary.Do(t, "CREATE DATABASE one")
	eventuallySays(t, asReplica, replica.to, "replica: lags by ")

	replica.Promote(t)
	eventuallySays(t, asPrimary, replica.to, "")
	primary.Do(t, "SET GLOBAL read_only = 1")
	_, err = asReplica.Check(deadlineIn(t, patience), primary.to)
	wantWords(t, err, "replica: it follows no primary, lag unknown", healthcheck.ErrLagging)
}

func TestMySQLRefusals(t *testing.T) {
	t.Parallel()
	m := startRealMariaDB(t, "--max-connections=10", "--extra-port=0")
	m.Do(t, `SET sql_log_bin = 0; CREATE DATABASE secret; CREATE TABLE mysql.beat (n int);
		GRANT SELECT ON mysql.beat TO probe;
		CREATE USER locked IDENTIFIED BY 'hunter2' ACCOUNT LOCK;
		CREATE USER away@192.0.2.1 IDENTIFIED BY 'hunter2';
		CREATE USER safe IDENTIFIED BY 'hunter2' REQUIRE SSL`)
	for _, tt := range []struct {
		change func(c *MySQL)
		want   string // "" if healthy
	}{
		{func(*MySQL) {}, ""},
		{func(c *MySQL) { c.Password = "wrong" }, "authentication refused"},
		{func(c *MySQL) { c.Password = "" }, "authentication refused"},
		{func(c *MySQL) { c.User = "nobody" }, "authentication refused"},
		{func(c *MySQL) { c.User = "safe" }, "authentication refused"},
		{func(c *MySQL) { c.User = "locked" }, "not allowed to log in: .*"},
		{func(c *MySQL) { c.Database = "secret" }, "not permitted: Access denied for user .*"},
		{func(c *MySQL) { c.Query = "SELECT * FROM mysql.user" }, "not permitted: SELECT command denied .*"},
		{func(c *MySQL) { c.Query = "SELECT 1" }, ""},
	} {
		c := anyMySQL
		tt.change(&c)
		if _, err := c.Check(deadlineIn(t, patience), m.to); tt.want != "" {
			wantRefusal(t, err, tt.want)
		} else if err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	c := anyMySQL
	c.Query = "SELECT n FROM mysql.beat"
	_, err := c.Check(deadlineIn(t, patience), m.to)
	wantWords(t, err, "the query returned no row", nil)
	c.Query = "SELECT SLEEP(60)"
	_, err = c.Check(within(t, hurry), m.to)
	wantTimeout(t, err, "timed out waiting for the answer after ", hurry)
	c.Query = "nonsense"
	_, err = c.Check(deadlineIn(t, patience), m.to)
	wantWords(t, err, "answered with an error: You have an error in your SQL syntax; ...", nil)

	unix := healthcheck.Target{ID: "socket", Path: m.Socket()}
	if _, err := anyMySQL.Check(deadlineIn(t, patience), unix); err != nil {
		t.Errorf("over the Unix socket: %v", err)
	}
	m.Signal(t, syscall.SIGSTOP)
	_, err = anyMySQL.Check(within(t, hurry), m.to)
	wantTimeout(t, err, "timed out waiting for the answer after ", hurry)
	m.Signal(t, syscall.SIGCONT)
	m.Do(t, "SET GLOBAL max_connections = 10")
	for range 12 {
		c, err := net.Dial("tcp", m.Address())
		must(t, err)
		defer c.Close()
	}
	eventuallySays(t, anyMySQL, m.to, "too many connections: Too many connections")
}

func TestMySQLTLS(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good := newCertificate(t, now.Add(-time.Hour), now.Add(time.Hour))
	other := newCertificate(t, now.Add(-time.Hour), now.Add(-time.Minute))
	m := startRealMariaDB(t)
	certFile, keyFile := good.write(t, m.Folder(), func(name string) {
		if owner := m.Owner(); owner != nil {
			must(t, os.Chown(name, int(owner.Uid), int(owner.Gid)))
		}
	})
	m.Stop(t)
	m.Restart(t, "--ssl-cert="+certFile, "--ssl-key="+keyFile)
	for name, tt := range tlsCases(good, other) {
		if name == "old version" { // of MariaDB's choice
			continue
		}
		c := anyMySQL
		c.TLS = tt.config
		if _, err := c.Check(deadlineIn(t, patience), m.to); tt.want != "" {
			wantWords(t, err, tt.want, nil)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMySQLLeavesNoTrace: a server logs none of the checks as an aborted connection, not even those that fail.
func TestMySQLLeavesNoTrace(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good := newCertificate(t, now.Add(-time.Hour), now.Add(time.Hour))
	m := startRealMariaDB(t, "--log-warnings=9")
	c := anyMySQL
	c.TLS = &tls.Config{RootCAs: good.pool}
	for range 3 {
		_, err := c.Check(deadlineIn(t, patience), m.to)
		wantWords(t, err, "the server does not speak tls", nil)
		_, err = anyMySQL.Check(deadlineIn(t, patience), m.to)
		must(t, err)
	}
	closed, err := net.Dial("tcp", m.Address())
	must(t, err)
	must(t, closed.Close()) // as a plain tcp check does; it shows that the log would have it
	m.WaitStderr(t, "Aborted connection")
	if n := strings.Count(m.Stderr(), "Aborted connection"); n > 1 {
		t.Errorf("%d connections are aborted for the server", n)
	}
}
