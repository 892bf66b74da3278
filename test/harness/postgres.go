package harness

import (
	"errors"
	"fmt"
	"os"
	"os/user"
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
}

// StartPostgres makes an empty database cluster, starts a server for it on a free port and waits until it accepts
// clients.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	p := newPostgres(t)
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

func newPostgres(t testing.TB) *Postgres {
	t.Helper()
	dir, owner := postgresFolder(t)
	return &Postgres{
		Host: "127.0.0.1", Port: strconv.Itoa(FreePort(t)), User: "limeload", Database: "postgres",
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
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200"))
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

// postgresFolder makes a temporary folder for the user that the server runs as: PostgreSQL refuses to run as root, and
// that user has no access to the folders of testing.TB.TempDir.
func postgresFolder(t testing.TB) (dir string, owner *syscall.Credential) {
	t.Helper()
	dir, err := os.MkdirTemp("", "limeload-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if os.Geteuid() != 0 {
		return dir, nil
	}
	uid, gid, err := unprivileged()
	if err == nil {
		err = os.Chown(dir, uid, gid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// unprivileged returns the user of Debian's package, or nobody.
func unprivileged() (uid, gid int, err error) {
	u, err := user.Lookup("postgres")
	if errors.As(err, new(user.UnknownUserError)) {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find a user to run PostgreSQL as: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, fmt.Errorf("id of user %s: %w", u.Username, err)
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		return 0, 0, fmt.Errorf("group of user %s: %w", u.Username, err)
	}
	return uid, gid, nil
}
