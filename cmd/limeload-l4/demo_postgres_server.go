package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	demoUser     = "limeload"
	demoDatabase = "postgres"
)

// A demoOwner is the user that servers run as, since they refuse to run as root.
type demoOwner struct {
	name     string
	uid, gid int
}

// A demoPostgresServer is a PostgreSQL server in a folder of its own. One goroutine uses it. Its zero value is of no
// use, see newDemoPostgres.
type demoPostgresServer struct {
	name, programs string // programs is the folder of the server's programs
	dir, address   string
	owner          *demoOwner // nil: the user of this process

	running *exec.Cmd     // nil before the start, and after the end
	ended   chan struct{} // closed when running has ended
}

// findPostgres returns the folder with the programs of a PostgreSQL server, the newest that is installed.
func findPostgres() (string, error) {
	return findPostgresIn("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/lib64/pgsql/bin")
}

// findPostgresIn is findPostgres for folders besides PATH.
func findPostgresIn(patterns ...string) (string, error) {
	var folders []string
	if path, err := exec.LookPath("initdb"); err == nil {
		folders = append(folders, filepath.Dir(path))
	}
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern) // the only error is that of a bad pattern
		slices.SortFunc(found, func(a, b string) int { return versionIn(b) - versionIn(a) })
		folders = append(folders, found...)
	}
	for _, folder := range folders {
		complete := true
		for _, program := range []string{"initdb", "postgres", "pg_basebackup"} {
			if _, err := exec.LookPath(filepath.Join(folder, program)); err != nil {
				complete = false
			}
		}
		if complete {
			return folder, nil
		}
	}
	return "", errors.New("demo postgres needs a PostgreSQL server: initdb, postgres and pg_basebackup are together " +
		"neither in PATH nor in /usr/lib/postgresql/*/bin; install it, on Debian and Ubuntu with " +
		"`apt-get install postgresql`, on Fedora with `dnf install postgresql-server`")
}

// versionIn returns the number in a path such as /usr/lib/postgresql/15/bin; 0 if there is none.
func versionIn(path string) int {
	n, _ := strconv.Atoi(strings.TrimFunc(path, func(r rune) bool { return r < '0' || r > '9' }))
	return n
}

// newDemoPostgres makes the folder of a server, and chooses its address.
func newDemoPostgres(dir, name, programs string) (*demoPostgresServer, error) {
	s := &demoPostgresServer{name: name, programs: programs}
	if os.Geteuid() == 0 {
		owner, err := unprivileged()
		if err != nil {
			return nil, err
		}
		s.owner = owner
	}
	var err error
	if s.dir, err = folderOf(dir, name, s.owner); err != nil {
		return nil, fmt.Errorf("make a folder for %s: %w", name, err)
	}
	s.address, err = freeAddress("127.0.0.1:0")
	return s, err
}

// unprivileged returns the user of the servers, for root.
func unprivileged() (*demoOwner, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			continue
		}
		if gid, err := strconv.Atoi(u.Gid); err == nil {
			return &demoOwner{name, uid, gid}, nil
		}
	}
	return nil, errors.New("a PostgreSQL server refuses to run as root, and there is neither a user postgres nor " +
		"nobody; run this as another user")
}

// command returns a command of a program of the server's. It is in a process group of its own, since Ctrl-C in a
// terminal must not end it before the clients, and it ends with this process.
func (s *demoPostgresServer) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(s.programs, program), args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "LC_ALL=C")
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) } // and what it has started
	c.WaitDelay = 5 * time.Second
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT} // an immediate shutdown
	if s.owner != nil {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(s.owner.uid), Gid: uint32(s.owner.gid)}
	}
	return c
}

// do runs a program to its end.
func (s *demoPostgresServer) do(ctx context.Context, program string, args ...string) error {
	if out, err := s.command(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s for %s: %w: %s", program, s.name, err, lastLines(out, 3))
	}
	return nil
}

func lastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "; ")
}

func (s *demoPostgresServer) data() string { return filepath.Join(s.dir, "data") }

// initialize makes an empty database cluster.
func (s *demoPostgresServer) initialize(ctx context.Context) error {
	return s.do(ctx, "initdb", "--pgdata", s.data(), "--username", demoUser, "--auth", "trust", "--encoding", "UTF8",
		"--no-locale", "--no-sync")
}

// copyOf makes it a standby of another server.
func (s *demoPostgresServer) copyOf(ctx context.Context, primary *demoPostgresServer) error {
	host, port, err := net.SplitHostPort(primary.address)
	if err != nil {
		return err
	}
	return s.do(ctx, "pg_basebackup", "--pgdata", s.data(), "--host", host, "--port", port, "--username", demoUser,
		"--write-recovery-conf", "--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
}

// start starts the server, and returns when it answers.
func (s *demoPostgresServer) start(ctx context.Context) error {
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	// what it writes to the disk is of no worth after the demo
	s.running = s.command(context.WithoutCancel(ctx), "postgres", "-D", s.data(), "-h", host, "-p", port, "-k", s.dir,
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=50", "-c", "shared_buffers=16MB")
	var log bytes.Buffer // read when the process has ended
	s.running.Stdout, s.running.Stderr = &log, &log
	if err := s.running.Start(); err != nil {
		s.running = nil
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.ended = make(chan struct{})
	go func(c *exec.Cmd, ended chan struct{}) {
		_ = c.Wait() // the log says why it ended
		close(ended)
	}(s.running, s.ended)
	ended := false
	err = waitUntil(ctx, s.name+" answers", func() bool {
		select {
		case <-s.ended:
			ended = true
			return true
		default:
		}
		_, err := s.query(ctx, "SELECT 1")
		return err == nil
	})
	if ended {
		return fmt.Errorf("%s has ended: %s", s.name, lastLines(log.Bytes(), 3))
	}
	return err
}

// query asks the server itself, and returns the first value of the answer.
func (s *demoPostgresServer) query(ctx context.Context, sql string) (string, error) {
	session, err := openDemoSession(ctx, s.address)
	if err != nil {
		return "", err
	}
	defer session.close()
	return session.query(ctx, sql)
}

// kill ends the server as a crash would.
func (s *demoPostgresServer) kill() { s.end(syscall.SIGKILL) }

// stop ends the server at once and in order.
func (s *demoPostgresServer) stop() { s.end(syscall.SIGQUIT) }

func (s *demoPostgresServer) end(signal syscall.Signal) {
	if s.running == nil {
		return
	}
	memory := s.sharedMemory()
	_ = s.running.Process.Signal(signal) // it may have ended
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		_ = s.running.Process.Kill()
		<-s.ended
	}
	s.running = nil
	if memory >= 0 && signal == syscall.SIGKILL {
		// shmctl(2) with IPC_RMID: a server that is killed leaves a segment of some bytes
		_, _, _ = syscall.Syscall(syscall.SYS_SHMCTL, uintptr(memory), 0, 0)
	}
}

// sharedMemory returns the id of the server's segment of shared memory, which line 7 of postmaster.pid has; -1 if there
// is none.
func (s *demoPostgresServer) sharedMemory() int {
	text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return -1
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return -1
	}
	fields := strings.Fields(lines[6])
	if len(fields) != 2 {
		return -1
	}
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		return -1
	}
	return id
}
