package harness

import (
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// A MariaDB is a running MariaDB server in a temporary folder, which a local root may use without a password.
type MariaDB struct {
	*Process
	Host, Port string

	dir, data string
	owner     *syscall.Credential
	options   []string
}

// StartMariaDB makes an empty server with a binary log, starts it on a free port with more options, and waits until it
// accepts clients.
func StartMariaDB(t testing.TB, options ...string) *MariaDB {
	t.Helper()
	dir, owner := serverFolder(t, "mysql")
	m := &MariaDB{
		Host: "127.0.0.1", Port: strconv.Itoa(FreePort(t)), dir: dir, data: filepath.Join(dir, "data"), owner: owner,
		options: options,
	}
	m.install(t)
	m.Restart(t)
	return m
}

// install makes the data of an empty server.
func (m *MariaDB) install(t testing.TB) {
	t.Helper()
	MustRun(t, m.command(t, "mariadb-install-db", "--no-defaults", "--datadir="+m.data, "--skip-test-db", "--skip-log-bin",
		"--auth-root-authentication-method=normal", "--innodb-log-file-size=4M",
		"--innodb-data-file-path=ibdata1:10M:autoextend"))
}

// Restart starts the server again after it was killed or ended, on its port, with its data and with more options.
func (m *MariaDB) Restart(t testing.TB, options ...string) {
	t.Helper()
	m.options = append(m.options, options...)
	process := m.launch(t)
	t.Cleanup(func() { // a signal, since it removes its files only on an orderly end
		_ = process.cmd.Process.Signal(syscall.SIGCONT)
		_ = process.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		process.Wait(t)
	})
	process.WaitStderr(t, "ready for connections")
}

// launch starts the server with its options, and does not wait for it.
func (m *MariaDB) launch(t testing.TB) *Process {
	t.Helper()
	m.Process = Start(t, m.command(t, "mariadbd", append([]string{
		"--no-defaults", "--datadir=" + m.data, "--socket=" + m.Socket(), "--pid-file=" + filepath.Join(m.dir, "pid"),
		"--bind-address=" + m.Host, "--port=" + m.Port, "--server-id=" + m.Port, "--log-bin=binlog", "--log-basename=server",
		"--skip-name-resolve", "--innodb-log-file-size=4M", "--innodb-data-file-path=ibdata1:10M:autoextend",
		"--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0",
	}, m.options...)...))
	return m.Process
}

// Stop ends the server in order.
func (m *MariaDB) Stop(t testing.TB) {
	t.Helper()
	m.Signal(t, syscall.SIGTERM)
	m.Wait(t)
}

// command returns the command of a program of MariaDB with English messages, since tests match its log. It has a folder
// of its own for temporary files: a server that starts removes those of all others there.
func (m *MariaDB) command(t testing.TB, program string, args ...string) Command {
	t.Helper()
	env := []string{"LC_ALL=C", "TZ=UTC", "TMPDIR=" + m.dir}
	return Command{Path: Tool(t, program), Dir: m.dir, Env: env, User: m.owner, Args: args}
}

// Do runs statements as root over the server's socket, and returns what they print: values between tabs, without the
// names of the columns.
func (m *MariaDB) Do(t testing.TB, statements string) string {
	t.Helper()
	return MustRun(t, m.command(t, "mariadb", "--no-defaults", "--socket="+m.Socket(), "--user=root", "--batch",
		"--skip-column-names", "--execute="+statements))
}

// Follow makes the server a read-only replica of primary, from the primary's first transaction on.
func (m *MariaDB) Follow(t testing.TB, primary *MariaDB) {
	t.Helper()
	primary.Do(t, "CREATE OR REPLACE USER replication; GRANT REPLICATION SLAVE ON *.* TO replication")
	m.Do(t, "STOP SLAVE; RESET MASTER; SET GLOBAL gtid_slave_pos = ''; CHANGE MASTER TO MASTER_HOST='"+primary.Host+
		"', MASTER_PORT="+primary.Port+", MASTER_USER='replication', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos; "+
		"SET GLOBAL read_only = 1; START SLAVE")
}

// Promote makes a replica a primary.
func (m *MariaDB) Promote(t testing.TB) {
	t.Helper()
	m.Do(t, "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0")
}

// Address returns the address that the server listens on.
func (m *MariaDB) Address() string { return m.Host + ":" + m.Port }

// Socket returns the path of the server's Unix socket.
func (m *MariaDB) Socket() string { return filepath.Join(m.dir, "socket") }

// Folder returns the server's own folder, in which tests may make files for it.
func (m *MariaDB) Folder() string { return m.dir }

// Owner returns the user that the server runs as; nil is the user of the test.
func (m *MariaDB) Owner() *syscall.Credential { return m.owner }
