//go:build soak

package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestSoakUpgrade upgrades ten times in a row with 500 idle sessions of psql, 200 flows, a transfer of 1 GiB or more,
// long transactions of pgbench, and redis-benchmark with a connection for each request. Nothing may be lost.
func TestSoakUpgrade(t *testing.T) {
	const upgrades, psqls, flows, large = 10, 500, 200, 1 << 30
	postgres := harness.StartPostgresFor(t, psqls+50)
	redis := harness.StartRedis(t)
	echo := harness.Serve(t, harness.Echo)
	datagrams := harness.ServeUDP(t, harness.EchoDatagrams)
	pgAt, redisAt, echoAt, udpAt := harness.FreeAddress(t), harness.FreeAddress(t), harness.FreeAddress(t), harness.FreeAddress(t)
	u := startUpgrading(t, fmt.Sprintf(`[log]
access = false
[listener.pg]
address = %q
pool = "pg"
[listener.redis]
address = %q
pool = "redis"
[listener.echo]
address = %q
pool = "echo"
[listener.udp]
address = %q
protocol = "udp"
pool = "udp"
[pool.pg]
backends = %s
[pool.redis]
backends = %s
[pool.echo]
backends = %s
[pool.udp]
backends = %s
`, pgAt, redisAt, echoAt, udpAt, harness.BackendList(postgres.Address()), harness.BackendList(redis.Address),
		harness.BackendList(echo.Address()), harness.BackendList(datagrams.Address())), true)
	host, port, err := net.SplitHostPort(pgAt)
	check(t, err)
	env := []string{"LC_ALL=C", "PGHOST=" + host, "PGPORT=" + port, "PGUSER=" + postgres.User, "PGDATABASE=" + postgres.Database}

	var sessions []*harness.Process
	for range psqls {
		sessions = append(sessions, harness.Start(t, harness.Command{
			Path: harness.Tool(t, "psql"), Args: []string{"-XAtq"}, Env: env, Stdin: true,
		}))
	}
	// each asks for the id of its session at the server, which must stay the same
	var ids []string
	askAll := func(round int) {
		t.Helper()
		mark := fmt.Sprintf("round %d: ", round)
		for _, p := range sessions {
			p.Say(t, fmt.Sprintf("select '%s' || pg_backend_pid();", mark))
		}
		for i, p := range sessions {
			id := strings.TrimPrefix(p.WaitStdout(t, mark), mark)
			if round == 0 {
				ids = append(ids, id)
			} else if ids[i] != id {
				t.Errorf("psql %d is served by %s after round %d, and was by %s", i, id, round, ids[i])
			}
		}
	}
	askAll(0)
	var clients []net.Conn
	for range flows {
		clients = append(clients, harness.DialUDP(t, udpAt))
	}
	askFlows := func() {
		t.Helper()
		for i, c := range clients {
			if answer, err := harness.AskUDP(c, []byte("datagram")); err != nil || string(answer) != "datagram" {
				t.Fatalf("flow %d: %q, %v", i, answer, err)
			}
		}
	}
	askFlows()

	script := filepath.Join(u.dir, "long.sql")
	check(t, os.WriteFile(script, []byte("BEGIN;\nSELECT txid_current();\n\\sleep 700 ms\nSELECT count(*) FROM pgbench_branches;\n"+
		"\\sleep 700 ms\nEND;\n"), 0o644))
	check(t, os.Chmod(u.dir, 0o755))
	harness.MustRun(t, harness.Command{Path: harness.Tool(t, "pgbench"), Args: []string{"-i", "-q", "-s", "1"}, Env: env})
	long := harness.Start(t, harness.Command{Path: harness.Tool(t, "pgbench"), Env: env,
		Args: []string{"-n", "-f", script, "-c", "20", "-j", "2", "-t", "12"}})
	short := harness.Start(t, harness.Command{Path: harness.Tool(t, "pgbench"), Env: env,
		Args: []string{"-S", "-n", "-c", "4", "-j", "1", "-T", "15"}})
	busy := newStream(t, echoAt, large)
	stop := connectAll(t, redisAt)

	before := u.counted()
	for round := 1; round <= upgrades; round++ {
		done := u.upgrade()
		pid := u.pids[len(u.pids)-1]
		t.Logf("upgrade %d: %.2f s, process %d, %d sessions and %d flows, left %v; %d descriptors, %d KiB", round, done.Took,
			done.NewPID, done.Sessions, done.Flows, done.Left, descriptorsOf(t, pid), memoryOf(t, pid)>>10)
		if done.Flows != flows || done.Sessions < psqls {
			t.Errorf("upgrade %d: %+v", round, done)
		}
		askAll(round)
		askFlows()
		now := u.counted()
		for name, n := range before {
			if now[name] < n {
				t.Errorf("upgrade %d: %s was %d, and is %d", round, name, n, now[name])
			}
		}
		before = now
	}
	requests := stop()
	busy.end(t)
	if code := long.Wait(t); code != 0 || !strings.Contains(long.Stdout(), "240/240") {
		t.Errorf("pgbench with long transactions: exit code %d\n%s%s", code, long.Stdout(), long.Stderr())
	}
	if code := short.Wait(t); code != 0 || !strings.Contains(short.Stdout(), "failed transactions: 0") {
		t.Errorf("pgbench: exit code %d\n%s%s", code, short.Stdout(), short.Stderr())
	}
	for _, pid := range u.pids[:upgrades] {
		awaitGone(t, pid)
	}
	if n := len(datagrams.Sources()); n != flows {
		t.Errorf("the UDP backend has had %d flows, want %d", n, flows)
	}
	harness.Eventually(t, "what was counted is right", func() error {
		now := u.counted()
		if n := now["echo/b1 bytes in"]; n != uint64(busy.sent) {
			return fmt.Errorf("%d bytes went to the backend, want %d", n, busy.sent)
		}
		if n := now["pg/tcp accepted"]; n < psqls+24 {
			return fmt.Errorf("%d sessions of Postgres were accepted", n)
		}
		return nil
	})
	t.Logf("%d connects and requests without an error, a transfer of %d MiB, processes %v", requests, busy.sent>>20, u.pids)
	for _, p := range sessions {
		p.CloseStdin(t)
	}
}
