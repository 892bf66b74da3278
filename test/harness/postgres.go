package harness

import (
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// A Postgres is a running PostgreSQL server in a temporary folder that requires no passwords.
type Postgres struct {
	*Process
	Host, Port string
	User       string // a superuser
	Database   string

	dir, data string
	owner     *syscall.Credential
	clients   int // at once
}

// StartPostgres makes an empty database cluster, starts a server for it on a free port and waits until it accepts
// clients.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	return StartPostgresFor(t, 200)
}

// StartPostgresFor is StartPostgres for so many clients at once.
func StartPostgresFor(t testing.TB, clients int) *Postgres {
	t.Helper()
	p := newPostgres(t)
	p.clients = clients
	MustRun(t, p.command(t, "initdb", "--pgdata", p.data, "--username", p.User, "--auth", "trust", "--encoding", "UTF8",
		"--no-locale", "--no-sync"))
	p.start(t, "database system is ready to accept connections")
	return p
}

// StartReplica copies the server's cluster, starts a standby that follows it, and waits until it accepts clients.
func (p *Postgres) StartReplica(t testing.TB) *Postgres {
	t.Helper()
	r := newPostgres(t)
	MustRun(t, r.command(t, "pg_basebackup", "--pgdata", r.data, "--host", p.Host, "--port", p.Port, "--username",
		p.User,
		"--write-recovery-conf", "--wal-method", "stream", "--checkpoint", "fast", "--no-sync"))
	r.start(t, "database system is ready to accept read-only connections")
	return r
}

// Restart starts a server again, on its port and with its data, after it was killed or ended.
func (p *Postgres) Restart(t testing.TB) {
	t.Helper()
	p.start(t, "database system is ready to accept connections")
}

// RestartReplica is Restart for a standby.
func (p *Postgres) RestartReplica(t testing.TB) {
	t.Helper()
	p.start(t, "database system is ready to accept read-only connections")
}

func newPostgres(t testing.TB) *Postgres {
	t.Helper()
	dir, owner := serverFolder(t, "postgres")
	return &Postgres{
		Host: "127.0.0.1", Port: strconv.Itoa(FreePort(t)), User: "limeload", Database: "postgres", clients: 200,
		dir: dir, data: filepath.Join(dir, "data"), owner: owner,
	}
}

// command returns the command of a PostgreSQL program with English messages, since tests match its log.
func (p *Postgres) command(t testing.TB, program string, args ...string) Command {
	t.Helper()
	return Command{Path: Tool(t, program), Dir: p.dir, Env: []string{"LC_ALL=C", "TZ=UTC"}, User: p.owner, Args: args}
}

func (p *Postgres) start(t testing.TB, ready string) {
	t.Helper()
	process := Start(t, p.command(t, "postgres", "-D", p.data, "-h", p.Host, "-p", p.Port, "-k", p.dir,
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", fmt.Sprintf("max_connections=%d", p.clients)))
	p.Process = process
	t.Cleanup(func() { // a signal, since its children end with it only on an orderly end
		_ = process.cmd.Process.Signal(syscall.SIGCONT)
		_ = process.cmd.Process.Signal(syscall.SIGINT) // fast shutdown; it may have ended already
		process.Wait(t)
	})
	process.WaitStderr(t, ready)
}

// Address returns the address that the server listens on.
func (p *Postgres) Address() string { return p.Host + ":" + p.Port }

// Socket returns the path of the server's Unix socket.
func (p *Postgres) Socket() string { return filepath.Join(p.dir, ".s.PGSQL."+p.Port) }
