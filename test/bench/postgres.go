package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

const (
	postgresUser     = "limeload"
	postgresDatabase = "postgres"
)

// findPostgres looks up the programs that the Postgres scenarios need.
func (b *bench) findPostgres(ctx context.Context) error {
	var errs []error
	for _, name := range []string{"postgres", "initdb", "pgbench"} {
		p, _, err := lookUp(ctx, postgresProgram(name), "apt-get install postgresql", "--version")
		b.tools[name] = p
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// postgresProgram returns the path of a program of the newest installed PostgreSQL. Debian has them outside PATH.
func postgresProgram(name string) string {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return name
	}
	return slices.MaxFunc(found, func(a, b string) int { return postgresVersion(a) - postgresVersion(b) })
}

// postgresVersion returns the version in a path of Debian's.
func postgresVersion(path string) int {
	v, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	if err != nil {
		return 0
	}
	return v
}

// startPostgres makes a database cluster with pgbench's tables and runs a server for it. The server does not wait for
// its disk, which would add latency that is not the balancer's.
func startPostgres(ctx context.Context, tools map[string]program, ports *portFinder, logs string) (*server, error) {
	listen, err := ports.find()
	if err != nil {
		return nil, err
	}
	dir, owner, err := postgresFolder()
	if err != nil {
		return nil, err
	}
	s := &server{addrs: []netip.AddrPort{listen}, dir: dir, parent: true}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, tools[name].path, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner}
		return cmd
	}
	fail := func(err error) (*server, error) {
		if s.proc != nil {
			err = errors.Join(err, s.proc.stop())
		}
		return nil, errors.Join(err, s.cleanUp())
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "--pgdata", data, "--username", postgresUser, "--auth", "trust", "--encoding",
		"UTF8", "--no-locale", "--no-sync").CombinedOutput(); err != nil {
		return fail(fmt.Errorf("initdb: %w: %s", err, out))
	}
	s.proc, err = start("postgres", command("postgres", "-D", data, "-h", listen.Addr().String(), "-p",
		strconv.Itoa(int(listen.Port())), "-k", dir, "-c", "fsync=off", "-c", "synchronous_commit=off"), logs)
	if err != nil {
		return fail(err)
	}
	if err := waitPostgres(ctx, s.proc, listen); err != nil {
		return fail(err)
	}
	if out, err := command("pgbench", append(pgbenchServer(listen), "--initialize", "--quiet", "--scale=1",
		postgresDatabase)...).CombinedOutput(); err != nil {
		return fail(fmt.Errorf("pgbench --initialize: %w: %s", err, out))
	}
	s.pids = []int{s.proc.pid()} // those of its clients come and go
	return s, nil
}

// pgbenchServer returns pgbench's arguments that name the server.
func pgbenchServer(a netip.AddrPort) []string {
	return []string{"--host", a.Addr().String(), "--port", strconv.Itoa(int(a.Port())), "--username", postgresUser}
}

// postgresFolder makes a folder for the user that the server runs as: PostgreSQL refuses to run as root. Without root
// there is no owner to change to.
func postgresFolder() (dir string, owner *syscall.Credential, err error) {
	if dir, err = os.MkdirTemp("", "limeload-bench-postgres-"); err != nil || os.Geteuid() != 0 {
		return dir, nil, err
	}
	uid, gid, err := unprivileged()
	if err == nil {
		err = os.Chown(dir, uid, gid)
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
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

// waitPostgres waits until the server accepts clients.
func waitPostgres(ctx context.Context, p *process, listen netip.AddrPort) error {
	_, err := waitReady(ctx, p, trafficPostgres, listen, anyProcesses)
	return err
}

// askPostgres logs in to the server. One that is starting up refuses that.
func askPostgres(ctx context.Context, addr netip.AddrPort) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp4", addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	startup := "user\x00" + postgresUser + "\x00database\x00" + postgresDatabase + "\x00\x00"
	message := append([]byte{0, 0, 0, byte(8 + len(startup)), 0, 3, 0, 0}, startup...) // protocol 3.0
	if _, err := conn.Write(message); err != nil {
		return err
	}
	var kind [1]byte
	if _, err := io.ReadFull(conn, kind[:]); err != nil {
		return err
	}
	if kind[0] != 'R' { // AuthenticationOk; an error has E
		return fmt.Errorf("message %q to a startup", kind)
	}
	return nil
}
