package test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/limeload/limeload-l4/test/harness"
)

// readWrite starts a balancer with two services over the same servers: "rw" is for the primary, and "ro" for replicas,
// with the primary in reserve.
func readWrite(t *testing.T, servers ...*harness.Postgres) *harness.Balancer {
	t.Helper()
	var addresses []string
	for _, s := range servers {
		addresses = append(addresses, s.Address())
	}
	health := func(lines ...string) []string {
		return append([]string{`type = "postgres"`, `user = "limeload"`, `database = "checks"`, `interval = "200ms"`,
			`fast_interval = "100ms"`, `timeout = "5s"`, `rise = 2`, `fall = 2`}, lines...)
	}
	return harness.StartBalancer(t, configOf(t,
		service{name: "rw", backends: addresses, health: health(`role = "primary"`)},
		service{name: "ro", backends: addresses,
			health: health(`role = "replica"`, `fallback = "primary"`, `max_lag = "1m"`)}))
}

// serving returns the port of the server that a new session of a listener gets; "" if it is refused.
func serving(t *testing.T, b *harness.Balancer, listener string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://limeload@%s/postgres?sslmode=disable", b.Address(t, listener)))
	if err != nil {
		return ""
	}
	defer conn.Close(ctx)
	return serverPort(t, conn)
}

// serverPort returns the port of the server that a session is with.
func serverPort(t *testing.T, conn *pgx.Conn) (port string) {
	t.Helper()
	check(t, conn.QueryRow(t.Context(), "SELECT inet_server_port()::text").Scan(&port))
	return port
}

// wantShared fails the test unless both pools get the results of the same checks: the check's database has seen one
// session for each check that counts at a pool, and each pool has the results of all of them.
func wantShared(t *testing.T, b *harness.Balancer, servers ...*harness.Postgres) {
	t.Helper()
	sessions := func() (n float64) {
		for _, s := range servers {
			n += databaseSessions(t, s, "checks")
		}
		return n
	}
	results := func() (checks, rw, ro float64) {
		for key, value := range metrics(t, b) {
			counts := strings.HasPrefix(key, "limeload_checks_total{")
			if counts {
				checks += value
			}
			if counts || strings.HasPrefix(key, "limeload_checks_shared_total{") {
				if strings.Contains(key, `pool="rw"`) {
					rw += value
				} else {
					ro += value
				}
			}
		}
		return checks, rw, ro
	}
	atFirst := sessions()
	checks0, rw0, ro0 := results() // a check may have been made before both pools had it
	harness.Eventually(t, "20 more results", func() error {
		if _, rw, _ := results(); rw < rw0+20 {
			return fmt.Errorf("%v results, and %v before", rw, rw0)
		}
		return nil
	})
	checks, rw, ro := results()
	seen := sessions()
	t.Logf("the servers saw %v sessions, and the balancer made %v checks: %v results for rw, %v for ro", seen, checks, rw,
		ro)
	if made := checks - checks0; rw-rw0 != made || ro-ro0 != made {
		t.Errorf("of %v checks, rw has %v results and ro has %v", made, rw-rw0, ro-ro0)
	}
	const underWay = 8 // the servers count a session at its end, and more may have ended since
	if more := seen - atFirst; more < 20-underWay || seen > checks+underWay || seen < checks-underWay {
		t.Errorf("the servers saw %v sessions of checks, %v of them of late; the balancer made %v checks", seen, more, checks)
	}
}

// sessionsOf returns how many sessions a database has had.
func databaseSessions(t *testing.T, p *harness.Postgres, database string) (n float64) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", p.User, p.Address()))
	check(t, err)
	defer conn.Close(context.Background())
	check(t, conn.QueryRow(t.Context(),
		"SELECT sessions::float8 FROM pg_stat_database WHERE datname = $1", database).Scan(&n))
	return n
}

// TestReadsFallBackToThePrimary has a pool for writes and one for reads over a primary and its standby. It stops the
// standby: reads go to the primary, and go on there when the standby is back, which then gets the new ones. A standby
// is as intended in the pool for writes, and so the log has no warning of it. Each server is checked once for both.
func TestReadsFallBackToThePrimary(t *testing.T) {
	t.Parallel()
	primary := harness.StartPostgres(t)
	do(t, primary, "CREATE DATABASE checks")
	replica := primary.StartReplica(t)
	b := readWrite(t, primary, replica)
	reads := func(from *harness.Postgres) {
		t.Helper()
		harness.Eventually(t, "reads go to port "+from.Port, func() error {
			if port := serving(t, b, "ro"); port != from.Port {
				return fmt.Errorf("they go to %q", port)
			}
			return nil
		})
	}
	message := func(text string, since time.Time) harness.Line {
		t.Helper()
		return b.WaitLine(t, text, func(l harness.Line) bool { return l.Message == text && l.Seen.After(since) })
	}
	reads(replica)
	wantShared(t, b, primary, replica)
	if port := serving(t, b, "rw"); port != primary.Port {
		t.Errorf("writes go to port %q, not to %s", port, primary.Port)
	}
	for _, l := range b.Lines() {
		if l.Level == "warn" && l.Message == harness.MessageVerdict {
			t.Errorf("a role as intended is a warning: %s", l.Text)
		}
	}

	stopped := time.Now()
	replica.Signal(t, syscall.SIGINT)
	replica.Wait(t)
	reads(primary)
	if l := message("no replica is eligible: the primary serves", stopped); l.Level != "info" || l.Pool != "ro" {
		t.Errorf("it is logged as %s", l.Text)
	}
	awaitMetric(t, b, `limeload_pool_falls_back{pool="ro"}`, 1)
	awaitMetric(t, b, `limeload_backend_verdict{backend="b1",pool="ro",verdict="fallback"}`, 1)
	awaitMetric(t, b, `limeload_backend_verdict{backend="b1",pool="rw",verdict="healthy"}`, 1)
	out, _, code := b.Command(t, "explain", "--pool", "ro", "10.0.0.1")
	if code != 0 || !strings.Contains(out, "fallback has the primary serve") || !strings.Contains(out, "Not b2: ") {
		t.Errorf("explain ends with %d: %s", code, out)
	}
	if out, _, _ := b.Command(t, "status"); !strings.Contains(out, "no replica is eligible, the primary serves") {
		t.Errorf("status: %s", out)
	}
	kept, err := pgx.Connect(t.Context(),
		fmt.Sprintf("postgres://limeload@%s/postgres?sslmode=disable", b.Address(t, "ro")))
	check(t, err)
	defer kept.Close(context.Background())

	returned := time.Now()
	replica.RestartReplica(t)
	reads(replica)
	message("replicas serve again", returned)
	awaitMetric(t, b, `limeload_pool_falls_back{pool="ro"}`, 0)
	if port := serverPort(t, kept); port != primary.Port {
		t.Errorf("the session on the primary is at port %s now", port)
	}
}
