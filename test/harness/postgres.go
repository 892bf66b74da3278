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

// A Postgres is a running PostgreSQL server with an empty database that lives in a temporary folder and trusts everybody.
type Postgres struct {
	*Process
	Host, Port string
	User       string // may do everything
	Database   string
}

// StartPostgres makes a database cluster, starts a server for it on a free port and waits until it accepts clients.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	dir, owner := postgresFolder(t)
	data := filepath.Join(dir, "data")
	env := []string{"LC_ALL=C", "TZ=UTC"} // the log is matched below
	MustRun(t, Command{Path: Tool(t, "initdb"), Dir: dir, Env: env, User: owner, Args: []string{
		"--pgdata", data, "--username", "limeload", "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync",
	}})
	port := strconv.Itoa(FreePort(t))
	p := Start(t, Command{Path: Tool(t, "postgres"), Dir: dir, Env: env, User: owner, Args: []string{
		"-D", data, "-h", "127.0.0.1", "-p", port, "-k", dir,
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200",
	}})
	t.Cleanup(func() { // its children end with it only when it is asked to end
		_ = p.cmd.Process.Signal(syscall.SIGINT) // fast shutdown; it may have ended already
		p.Wait(t)
	})
	p.WaitStderr(t, "database system is ready to accept connections")
	return &Postgres{Process: p, Host: "127.0.0.1", Port: port, User: "limeload", Database: "postgres"}
}

// Address is where the server listens.
func (p *Postgres) Address() string { return p.Host + ":" + p.Port }

// postgresFolder makes a temporary folder for the user that the server is to run as: PostgreSQL refuses to run as root, and
// that user may not enter what testing.TB.TempDir makes.
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

// unprivileged is the user of Debian's package, or nobody.
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
