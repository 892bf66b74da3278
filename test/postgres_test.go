package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/limeload/limeload-l4/test/harness"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	server := harness.StartPostgres(t)
	b := world{Backends: []string{server.Address()}}.start(t)
	host, port, err := net.SplitHostPort(b.Address(t, "main"))
	check(t, err)
	bench := func(t *testing.T, args ...string) string {
		stdout, stderr, code := harness.Run(t, harness.Command{
			Path: harness.Tool(t, "pgbench"),
			Args: append([]string{"-h", host, "-p", port, "-U", server.User}, append(args, server.Database)...),
		})
		if code != 0 || strings.Contains(stderr, "error") {
			t.Fatalf("pgbench %v: exit code %d\n%s\n%s", args, code, stdout, stderr)
		}
		return stdout
	}
	bench(t, "--initialize", "--quiet", "--scale=1")

	for _, tc := range []struct {
		name     string
		args     []string
		done     string // what pgbench must report as done
		sessions int    // at least
	}{
		{"pgbench", []string{"-c", "8", "-j", "2", "-t", "250"}, "2000/2000", 8},
		{"pgbench connection per transaction", []string{"-C", "-c", "4", "-j", "2", "-t", "100"}, "400/400", 400},
		{"pgbench select prepared", []string{"-S", "-M", "prepared", "-c", "16", "-j", "2", "-t", "500"}, "8000/8000",
			16},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(b.Sessions())
			report := bench(t, append(tc.args, "--no-vacuum")...)
			for _, expected := range []string{
				"number of transactions actually processed: " + tc.done,
				"number of failed transactions: 0 ",
			} {
				if !strings.Contains(report, expected) {
					t.Errorf("report lacks %q:\n%s", expected, report)
				}
			}
			// a client says goodbye and closes: whose FIN is seen first is a race between it and the server
			oneOf(t, b.WaitSessions(t, before+tc.sessions)[before:], "client_closed", "backend_closed")
		})
	}

	t.Run("client", func(t *testing.T) {
		url := fmt.Sprintf("postgres://%s@%s:%s/%s?sslmode=disable", server.User, host, port, server.Database)
		usePostgres(t, url)
	})
}

// usePostgres does what real clients do and pgbench does not: large results, notifications, and cancelling a query,
// which needs a connection of its own.
func usePostgres(t *testing.T, url string) {
	ctx := t.Context()
	conn := postgresClient(t, url)
	defer closePostgres(t, conn)

	var sum int64
	rows, err := conn.Query(ctx, "select n, repeat('x', 1000) from generate_series(1, 20000) n")
	check(t, err)
	for rows.Next() {
		var n int64
		var text string
		check(t, rows.Scan(&n, &text))
		sum += n + int64(len(text))
	}
	check(t, rows.Err())
	if expected := int64(20000*20001/2 + 20000*1000); sum != expected {
		t.Errorf("sum over a result of 20 MB is %d, expected %d", sum, expected)
	}

	_, err = conn.Exec(ctx, "listen news")
	check(t, err)
	other := postgresClient(t, url)
	defer closePostgres(t, other)
	_, err = other.Exec(ctx, "notify news, 'hello'")
	check(t, err)
	notification, err := conn.WaitForNotification(ctx)
	check(t, err)
	if notification.Payload != "hello" {
		t.Errorf("notification is %q", notification.Payload)
	}

	var sleeping sync.WaitGroup
	sleeping.Go(func() {
		_, err := other.Exec(ctx, "select pg_sleep(600)")
		var refusal *pgconn.PgError
		if !errors.As(err, &refusal) || refusal.Code != "57014" { // query_canceled
			t.Errorf("cancelled query ended with %v", err)
		}
	})
	harness.Eventually(t, "the query runs", func() error {
		var n int
		check(t, conn.QueryRow(ctx,
			"select count(*) from pg_stat_activity where query like '%pg_sleep%' and state = 'active' and pid <> pg_backend_pid()").Scan(&n))
		if n == 0 {
			return errors.New("no such query")
		}
		return nil
	})
	check(t, other.PgConn().CancelRequest(ctx))
	sleeping.Wait()
}

func postgresClient(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	check(t, err)
	return conn
}

func closePostgres(t *testing.T, conn *pgx.Conn) {
	if err := conn.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
