package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// through starts a balancer that ends TLS and encrypts again, in front of these servers. It returns its port, too.
func (x *postgresTLS) through(t *testing.T, listener, health []string, servers ...*harness.Postgres) (
	*harness.Balancer, string,
) {
	t.Helper()
	w := world{
		Listener: append([]string{`profile = "postgres"`, x.listenerTLS("")}, listener...),
		Pool:     []string{x.poolTLS("back.crt")}, Health: health,
	}
	for _, s := range servers {
		w.Backends = append(w.Backends, s.Address())
	}
	b := w.start(t)
	_, port, _ := strings.Cut(b.Address(t, "main"), ":")
	return b, port
}

// TestPostgresTLSTraffic runs pgbench, and copies 32 MB in and out, with TLS on both sides.
func TestPostgresTLSTraffic(t *testing.T) {
	t.Parallel()
	x := newPostgresTLS(t)
	_, port := x.through(t, nil, nil, x.server)
	bench := func(args ...string) string {
		return harness.MustRun(t, harness.Command{
			Path: harness.Tool(t, "pgbench"), Env: []string{"LC_ALL=C"},
			Args: append(args, x.connection(port)+" sslmode=verify-full"),
		})
	}
	bench("--initialize", "--quiet", "--scale=1")
	for _, tc := range []struct {
		args string
		done string // what pgbench must report as done
	}{
		{"-n -c 8 -j 2 -t 100", "800/800"},
		{"-n -C -c 4 -j 2 -t 25", "100/100"},
		{"-n -S -M prepared -c 8 -j 2 -t 250", "2000/2000"},
	} {
		report := bench(strings.Fields(tc.args)...)
		for _, want := range []string{
			"number of transactions actually processed: " + tc.done, "number of failed transactions: 0 ",
		} {
			if !strings.Contains(report, want) {
				t.Errorf("pgbench %s: no %q in\n%s", tc.args, want, report)
			}
		}
	}

	const rows = 32_000 // of 1,000 random bytes and more: nothing here is compressed
	in, out := filepath.Join(x.dir, "in"), filepath.Join(x.dir, "out")
	var text strings.Builder
	random, block := rand.NewChaCha8([32]byte{1}), make([]byte, 500)
	for i := range rows {
		_, _ = random.Read(block) // never fails
		fmt.Fprintf(&text, "%d\t%x\n", i, block)
	}
	check(t, os.WriteFile(in, []byte(text.String()), 0o600))
	harness.MustRun(t, x.psql(t, port, "sslmode=verify-full", "create table copied (n int, t text)",
		`\copy copied from '`+in+"'", `\copy (select * from copied order by n) to '`+out+"'"))
	got, err := os.ReadFile(out)
	check(t, err)
	if string(got) != text.String() {
		t.Errorf("%d bytes came back, and not the %d that were sent", len(got), text.Len())
	}
}

// TestPostgresTLSFailover kills the server of a session, with TLS on both sides. Servers accept only TLS, so the checks
// log in with TLS, too.
func TestPostgresTLSFailover(t *testing.T) {
	t.Parallel()
	x := newPostgresTLS(t)
	other := harness.StartPostgres(t)
	x.secure(t, other)
	for _, server := range []*harness.Postgres{x.server, other} {
		server.SecureWith(t, x.file(backPair+".crt"), x.file(backPair+".key"),
			[]string{"local all all trust", "hostssl all all 127.0.0.1/32 trust"})
	}
	health := []string{
		`type = "postgres"`, `user = "limeload"`, `interval = "100ms"`, `timeout = "5s"`, "fall = 1", "tls = true",
		fmt.Sprintf("ca = %q", x.file("back.crt")), `server_name = "db.example.com"`,
	}
	b, port := x.through(t, nil, health, x.server, other)
	ask := x.psql(t, port, "sslmode=verify-full", "select current_setting('port')")
	seen := map[string]bool{}
	for range 4 {
		seen[strings.TrimSpace(harness.MustRun(t, ask))] = true
	}
	if !seen[x.server.Port] || !seen[other.Port] {
		t.Errorf("sessions by server: %v", seen)
	}
	sleep := harness.Start(t, x.psql(t, port, "sslmode=verify-full", "select current_setting('port')",
		"select pg_sleep(600)"))
	first, second := x.server, other
	if strings.TrimSpace(sleep.WaitStdout(t, "")) == other.Port {
		first, second = other, x.server
	}
	since := time.Now()
	first.Kill(t)
	sleep.Wait(t)
	if got := sleep.Stderr(); !strings.Contains(got, "closed the connection") &&
		!strings.Contains(got, "terminating connection") && !strings.Contains(got, "SSL") {
		t.Errorf("psql: %q", got)
	}
	for range 10 {
		if got := harness.MustRun(t, ask); got != second.Port {
			t.Errorf("a session on %q, and the server %s is left", got, second.Port)
		}
	}
	b.WaitVerdict(t, map[string]string{x.server.Port: "b1", other.Port: "b2"}[first.Port], "unhealthy", since)
	first.Restart(t)
	harness.Eventually(t, "the server serves again", func() error {
		if got := harness.MustRun(t, ask); got != first.Port {
			return fmt.Errorf("a session on %q", got)
		}
		return nil
	})
}

// TestPostgresClientCertificates holds that clients must have a certificate behind the SSLRequest, as psql shows one.
func TestPostgresClientCertificates(t *testing.T) {
	t.Parallel()
	x := newPostgresTLS(t)
	b := world{
		Backends: []string{x.server.Address()}, Pool: []string{x.poolTLS("back.crt")},
		Listener: []string{`profile = "postgres"`,
			x.listenerTLS(fmt.Sprintf(`, client_auth = "required", client_ca = %q`, x.file("front.crt")))},
	}.start(t)
	_, port, _ := strings.Cut(b.Address(t, "main"), ":")
	with := func(pair string) string {
		return fmt.Sprintf("sslmode=verify-full sslcert=%s sslkey=%s", x.file(pair+".crt"), x.file(pair+".key"))
	}
	if got := x.outcome(t, port, with(clientPair)); got != twice {
		t.Errorf("with a certificate: %q", got)
	}
	for connection, want := range map[string]string{
		"sslmode=require": "certificate required", with(backPair): "unknown ca",
	} {
		if got := x.outcome(t, port, connection); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", connection, got, want)
		}
	}
}
