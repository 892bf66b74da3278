package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestUnixPostgres reaches a Postgres server by its Unix socket: sessions, bulk and checks.
func TestUnixPostgres(t *testing.T) {
	t.Parallel()
	server := harness.StartPostgres(t)
	started := time.Now()
	b := world{
		Backends: []string{"unix:" + server.Socket()},
		Health:   []string{`type = "postgres"`, `user = "limeload"`, `interval = "100ms"`, `fast_interval = "50ms"`},
	}.start(t)
	b.WaitVerdict(t, "b1", "healthy", started)
	host, port, err := net.SplitHostPort(b.Address(t, "main"))
	check(t, err)
	run := func(tool string, args ...string) string {
		t.Helper()
		return harness.MustRun(t, harness.Command{Path: harness.Tool(t, tool), Args: append([]string{
			"-h", host, "-p", port, "-U", server.User}, append(args, server.Database)...)})
	}
	run("pgbench", "--initialize", "--quiet", "--scale=1")
	if report := run("pgbench", "-c", "8", "-j", "2", "-t", "100", "--no-vacuum"); !strings.Contains(report,
		"number of failed transactions: 0 ") {
		t.Errorf("pgbench reports:\n%s", report)
	}
	const bulk = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 50000)) TO STDOUT"
	if got := len(run("psql", "-XAtc", bulk)); got < 50000*1001-1 {
		t.Errorf("psql got %d bytes", got)
	}
	server.Process.Kill(t)
	b.WaitVerdict(t, "b1", "unhealthy", time.Time{})
	if status, _, code := b.Command(t, "backends", "list"); code != 0 || !strings.Contains(status,
		"unix:"+server.Socket()) {
		t.Errorf("backends list: exit code %d\n%s", code, status)
	}
}

// TestUnixRedis reaches Redis servers by their Unix sockets, which come from a file of discovery and the API, and loses
// one of them.
func TestUnixRedis(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var paths []string
	var servers []*harness.Redis
	for i := range 2 {
		path := filepath.Join(dir, fmt.Sprint("r", i))
		servers = append(servers, harness.StartRedisOn(t, harness.FreePort(t), "--unixsocket", path))
		paths = append(paths, path)
	}
	file := filepath.Join(dir, "backends.json")
	check(t, os.WriteFile(file, []byte(fmt.Sprintf("[%q]", "unix:"+paths[0])), 0o600))
	started := time.Now()
	b := world{
		Discover: []string{`type = "file"`, fmt.Sprintf("file = %q", file)},
		Health:   []string{`type = "redis"`, `interval = "100ms"`, `fast_interval = "50ms"`, `rise = 1`, `fall = 1`},
		Global:   []string{fmt.Sprintf("state_file = %q", filepath.Join(dir, "state.json"))},
	}.start(t)
	first := "unix:" + paths[0]
	b.WaitVerdict(t, first, "healthy", started)
	ping := func() {
		t.Helper()
		for range 4 {
			c, err := net.Dial("tcp", b.Address(t, "main"))
			check(t, err)
			check(t, harness.Ping(c))
			c.Close()
		}
	}
	ping()

	second := "unix:" + paths[1]
	if out, errs, code := b.Command(t, "backends", "add", "all", second); code != 0 {
		t.Fatalf("backends add: exit code %d\n%s%s", code, out, errs)
	}
	b.WaitVerdict(t, second, "healthy", started)
	if out, errs, code := b.Command(t, "backends", "set", "all", second, "--weight", "3"); code != 0 {
		t.Errorf("backends set: exit code %d\n%s%s", code, out, errs)
	}
	state, err := os.ReadFile(filepath.Join(dir, "state.json"))
	check(t, err)
	if !strings.Contains(string(state), fmt.Sprintf("%q", second)) {
		t.Errorf("the state file is\n%s", state)
	}
	out, errs, code := b.Command(t, "explain", "10.0.0.1")
	if code != 0 || !strings.Contains(out, "unix:") {
		t.Errorf("explain: exit code %d\n%s%s", code, out, errs)
	}
	servers[0].Process.Kill(t)
	ping() // a stale socket refuses, and the other backend is tried
	b.WaitVerdict(t, first, "unhealthy", started)
	if out, _, code := b.Command(t, "backends", "remove", "all", second); code != 0 {
		t.Errorf("backends remove: exit code %d\n%s", code, out)
	}
}

// TestUnixListener has psql and pgbench come by a Unix socket, as Postgres clients do by default, reloads its
// permissions, and looks for it after the end.
func TestUnixListener(t *testing.T) {
	t.Parallel()
	server := harness.StartPostgres(t)
	dir, err := os.MkdirTemp("", "limeload")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, ".s.PGSQL.5432")
	config := fmt.Sprintf("[listener.main]\naddress = \"unix:%s\"\npool = \"all\"\npermissions = \"0600\"\n"+
		"profile = \"postgres\"\n[pool.all]\nbackends = [\"unix:%s\"]\n", path, server.Socket())
	b := harness.StartBalancer(t, config)
	run := func(tool string, args ...string) string {
		t.Helper()
		return harness.MustRun(t, harness.Command{Path: harness.Tool(t, tool), Env: []string{"PGHOST=" + dir},
			Args: append([]string{"-U", server.User}, append(args, server.Database)...)})
	}
	run("pgbench", "--initialize", "--quiet", "--scale=1")
	if report := run("pgbench", "-c", "8", "-j", "2", "-t", "100", "--no-vacuum"); !strings.Contains(report,
		"number of failed transactions: 0 ") {
		t.Errorf("pgbench reports:\n%s", report)
	}
	run("psql", "-XAtc", "SELECT 1")
	line := b.WaitLine(t, "the end of a session", func(l harness.Line) bool { return l.IsAccess() })
	if !strings.HasPrefix(line.Client, "unix:pid=") {
		t.Errorf("a client is %q", line.Client)
	}
	if out, errs, code := b.Command(t, "status"); code != 0 || !strings.Contains(out, "unix:"+path) {
		t.Errorf("status: exit code %d\n%s%s", code, out, errs)
	}
	b.ListenersMoved()
	b.Configure(t, strings.Replace(config, "0600", "0666", 1))
	if out, errs, code := b.Command(t, "reload"); code != 0 {
		t.Errorf("reload: exit code %d\n%s%s", code, out, errs)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	run("psql", "-XAtc", "SELECT 1")
	b.Signal(t, syscall.SIGTERM)
	if code := b.Wait(t); code != 0 {
		t.Errorf("the balancer ended with exit code %d", code)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}
