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
		return append([]string{`type = "postgres"`, `user = "limeload"`, `interval = "200ms"`, `fast_interval = "100ms"`,
			`timeout = "5s"`, `rise = 2`, `fall = 2`}, lines...)
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

// TestReadsFallBackToThePrimary has a pool for writes and one for reads over a primary and its standby. It stops the
// standby: reads go to the primary, and go on there when the standby is back, which then gets the new ones. A standby
// is as intended in the pool for writes, and so the log has no warning of it.
func TestReadsFallBackToThePrimary(t *testing.T) {
	t.Parallel()
	primary := harness.StartPostgres(t)
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
