package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/limeload/limeload-l4/test/harness"
)

// safeWorld is a balancer whose pool drains safely.
func safeWorld(t testing.TB, profile string, global string, backends ...string) *harness.Balancer {
	t.Helper()
	return world{
		Backends: backends, Listener: []string{fmt.Sprintf("profile = %q", profile)},
		Pool: []string{`drain = "safe"`}, Global: []string{global},
	}.start(t)
}

func setMode(t testing.TB, b *harness.Balancer, backend, mode string) {
	t.Helper()
	b.Ask(t, "PATCH", "/v1/pools/all/backends/"+backend, map[string]string{"mode": mode}, nil)
}

// sessionsOf is how many sessions a backend of the pool all has.
func sessionsOf(t testing.TB, b *harness.Balancer, backend string) (n int) {
	t.Helper()
	var found struct{ Sessions int }
	b.Ask(t, "GET", "/v1/pools/all/backends/"+backend, nil, &found)
	return found.Sessions
}

func hasSessions(t testing.TB, b *harness.Balancer, backend string, n int) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%s has %d sessions", backend, n), func() error {
		if got := sessionsOf(t, b, backend); got != n {
			return fmt.Errorf("%d sessions", got)
		}
		return nil
	})
}

// A transactor does transactions of several statements for as long as it may, and connects again when it is told to
// between two of them.
type transactor struct {
	url   string
	table string
	done  int // transactions
	moves int // connections that ended with 57P01
	conn  *pgx.Conn
}

// isMoved reports whether an error says that the server shuts down.
func isMoved(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "57P01"
}

func (c *transactor) run(ctx context.Context, stop *atomic.Bool) error {
	defer func() {
		if c.conn != nil {
			c.conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for !stop.Load() {
		if c.conn == nil {
			conn, err := pgx.Connect(ctx, c.url)
			if err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			c.conn = conn
		}
		tx, err := c.conn.Begin(ctx)
		if isMoved(err) {
			c.moves++
			c.conn.Close(ctx)
			c.conn = nil
			continue
		}
		if err != nil {
			return fmt.Errorf("begin, after %d transactions: %w", c.done, err)
		}
		if err := c.transact(ctx, tx); err != nil {
			return fmt.Errorf("after %d transactions: %w", c.done, err)
		}
		c.done++
	}
	return nil
}

func (c *transactor) transact(ctx context.Context, tx pgx.Tx) error {
	for range 2 {
		if _, err := tx.Exec(ctx, "insert into "+c.table+" values ($1)", c.done); err != nil {
			return err
		}
	}
	var b pgx.Batch // pipelined
	for i := range 3 {
		b.Queue("select $1::int", i)
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// safeDrains has clients do transactions while two servers are drained in turns, and expects that none fails.
func safeDrains(t *testing.T, clients, turns int) {
	servers := []*harness.Postgres{harness.StartPostgres(t), harness.StartPostgres(t)}
	b := safeWorld(t, "postgres", `drain_timeout = "1h"`, servers[0].Address(), servers[1].Address())
	for _, s := range servers {
		conn := postgresClient(t, fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", s.User, s.Address(), s.Database))
		_, err := conn.Exec(t.Context(), "create table done (n int)")
		check(t, err)
		closePostgres(t, conn)
	}
	url := fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", servers[0].User, b.Address(t, "main"), servers[0].Database)
	all := make([]transactor, clients)
	var running sync.WaitGroup
	var stop atomic.Bool
	defer running.Wait()
	defer stop.Store(true)
	for i := range all {
		c := &all[i]
		*c = transactor{url: url, table: "done"}
		running.Go(func() {
			if err := c.run(t.Context(), &stop); err != nil {
				t.Error(err)
				stop.Store(true)
			}
		})
	}
	hasSessions(t, b, "b2", clients/2)
	for turn := range turns {
		leaves, stays := "b1", "b2"
		if turn%2 == 1 {
			leaves, stays = stays, leaves
		}
		setMode(t, b, leaves, "drain")
		hasSessions(t, b, leaves, 0)
		hasSessions(t, b, stays, clients)
		setMode(t, b, leaves, "ready")
		if stop.Load() {
			break
		}
	}
	stop.Store(true)
	running.Wait()
	done, moves, rows := 0, 0, 0
	for i := range all {
		done += all[i].done
		moves += all[i].moves
	}
	for _, s := range servers {
		conn := postgresClient(t, fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", s.User, s.Address(), s.Database))
		var n int
		check(t, conn.QueryRow(t.Context(), "select count(*) from done").Scan(&n))
		rows += n
		closePostgres(t, conn)
	}
	if rows != 2*done {
		t.Errorf("%d transactions have left %d rows", done, rows)
	}
	moved := 0
	for _, line := range b.WaitSessions(t, moves+clients) {
		if line.Reason == "moved" {
			moved++
		}
	}
	if moved == 0 || moved != moves {
		t.Errorf("%d sessions were moved, and clients were told so %d times", moved, moves)
	}
	t.Logf("%d turns, %d transactions, %d moves", turns, done, moves)
}

// TestSafeDrainPostgres drains two servers in turns under transactions.
func TestSafeDrainPostgres(t *testing.T) {
	t.Parallel()
	safeDrains(t, 20, 6)
}

// TestSafeDrainKinds has one session of each kind that matters when its server is drained.
func TestSafeDrainKinds(t *testing.T) {
	t.Parallel()
	server := harness.StartPostgres(t)
	b := safeWorld(t, "postgres", `drain_timeout = "1h"`, server.Address())
	url := fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", server.User, b.Address(t, "main"), server.Database)
	ctx := t.Context()
	connect := func() *pgx.Conn { return postgresClient(t, url) }

	resting, fresh, inTransaction, listening, copying, asking := connect(), connect(), connect(), connect(), connect(), connect()
	_, err := resting.Exec(ctx, "select 1")
	check(t, err)
	tx, err := inTransaction.Begin(ctx)
	check(t, err)
	_, err = tx.Exec(ctx, "create table kept (n int)")
	check(t, err)
	_, err = listening.Exec(ctx, "listen news")
	check(t, err)
	_, err = copying.Exec(ctx, "create table copied (n int)")
	check(t, err)
	source, sink := net.Pipe()
	copied := make(chan error, 1)
	go func() {
		_, err := copying.PgConn().CopyFrom(ctx, source, "copy copied from stdin")
		copied <- err
	}()
	asked := make(chan error, 1)
	go func() {
		_, err := asking.Exec(ctx, "select pg_sleep(1.5)")
		asked <- err
	}()
	_, err = sink.Write([]byte("1\n"))
	check(t, err)
	time.Sleep(300 * time.Millisecond) // they have asked by then, and if not, the test is only easier

	setMode(t, b, "b1", "drain")
	hasSessions(t, b, "b1", 3)
	for _, conn := range []*pgx.Conn{resting, fresh, listening} {
		if _, err := conn.Exec(ctx, "select 1"); !isMoved(err) {
			t.Errorf("a session at rest has got %v", err)
		}
	}
	if err := <-asked; err != nil {
		t.Errorf("a session that was asking: %v", err)
	}
	hasSessions(t, b, "b1", 2)
	_, err = sink.Write([]byte("2\n"))
	check(t, err)
	check(t, sink.Close())
	if err := <-copied; err != nil {
		t.Errorf("a session that was copying: %v", err)
	}
	hasSessions(t, b, "b1", 1)
	_, err = tx.Exec(ctx, "insert into kept values (1)")
	check(t, err)
	check(t, tx.Commit(ctx))
	hasSessions(t, b, "b1", 0)
	if _, err := inTransaction.Exec(ctx, "select 1"); !isMoved(err) {
		t.Errorf("a session after its transaction has got %v", err)
	}
	oneOf(t, b.WaitSessions(t, 6), "moved")
}
