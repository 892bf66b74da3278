package test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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

	resting, fresh, inTransaction := connect(), connect(), connect()
	listening, copying, asking := connect(), connect(), connect()
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

// TestSafeDrainRedis drains a server under clients that ask all the time, to which nothing happens, and under clients
// that wait, subscribe, and are in a transaction.
func TestSafeDrainRedis(t *testing.T) {
	t.Parallel()
	one, other := harness.StartRedis(t), harness.StartRedis(t)
	b := safeWorld(t, "redis", `drain_timeout = "1h"`, one.Address, other.Address)
	setMode(t, b, "b2", "drain")
	redis := func() *redisClient { return newRedisClient(t, b.Dial(t, "main")) }
	resting, waiting, subscribed, inTransaction := redis(), redis(), redis(), redis()
	resting.do("+OK", "SET", "x", "1")
	waiting.send("BLPOP", "list", "0")
	subscribed.do("*3", "SUBSCRIBE", "news")
	inTransaction.do("+OK", "MULTI")
	inTransaction.do("+QUEUED", "INCR", "x")

	var asking sync.WaitGroup
	stop, asked := make(chan struct{}), new(atomic.Int64)
	for range 20 {
		asking.Go(func() {
			if err := askRedis(b.Address(t, "main"), asked, stop); err != nil {
				t.Error(err)
			}
		})
	}
	harness.Eventually(t, "the clients ask", func() error {
		if n := sessionsOf(t, b, "b1"); n < 24 {
			return fmt.Errorf("%d sessions", n)
		}
		return nil
	})
	setMode(t, b, "b2", "ready")
	setMode(t, b, "b1", "drain")
	resting.ends()
	before := asked.Load()
	harness.Eventually(t, "the clients go on", func() error {
		if n := asked.Load() - before; n < 20_000 {
			return fmt.Errorf("they have asked %d times", n)
		}
		return nil
	})
	close(stop)
	asking.Wait()
	hasSessions(t, b, "b1", 3)
	one.Do(t, "PUBLISH", "news", "hello")
	one.Do(t, "RPUSH", "list", "a")
	waiting.expect("*2")
	waiting.ends()
	inTransaction.do("*1", "EXEC")
	inTransaction.ends()
	subscribed.expect("*3")
	hasSessions(t, b, "b1", 1)
	again := redis()
	again.do("+OK", "SET", "x", "1")
	for range 3 { // they are on the server that stays
		again.do("$1", "GET", "x")
	}
	for _, c := range []*redisClient{resting, waiting, inTransaction} {
		if line := b.WaitSession(t, c.conn.LocalAddr()); line.Reason != "moved" {
			t.Errorf("a session ends with %s", line.Text)
		}
	}
}

// askRedis is a client that always asks, and comes again when its session ends, until stop is closed. It counts the
// replies. The error is that of a session which has ended although the client was not silent for 100 ms; on a busy
// machine it may be.
func askRedis(address string, replies *atomic.Int64, stop <-chan struct{}) error {
	for {
		c, err := net.DialTimeout("tcp", address, harness.Patience)
		if err != nil {
			return err
		}
		if err := c.SetDeadline(time.Now().Add(2 * harness.Patience)); err != nil {
			return errors.Join(err, c.Close())
		}
		in := bufio.NewReader(c)
		for sent := time.Now(); ; replies.Add(1) {
			select {
			case <-stop:
				return c.Close()
			default:
			}
			last := sent
			sent = time.Now()
			_, err := io.WriteString(c, "GET nothing\r\n")
			if err == nil {
				_, err = in.ReadString('\n')
			}
			if silent := time.Since(last); err != nil && silent < 100*time.Millisecond {
				return errors.Join(fmt.Errorf("the session ended %v after a command: %w", silent, err), c.Close())
			}
			if err != nil {
				break
			}
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
}

// A redisClient is a session that sends commands and reads replies.
type redisClient struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func newRedisClient(t testing.TB, c net.Conn) *redisClient {
	check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
	return &redisClient{t, c, bufio.NewReader(c)}
}

func (c *redisClient) send(command ...string) {
	c.t.Helper()
	text := fmt.Sprintf("*%d\r\n", len(command))
	for _, word := range command {
		text += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
	}
	_, err := io.WriteString(c.conn, text)
	check(c.t, err)
}

// expect reads a reply, and compares its first line.
func (c *redisClient) expect(first string) {
	c.t.Helper()
	left := 1
	for i := 0; left > 0; i++ {
		line, err := c.in.ReadString('\n')
		check(c.t, err)
		if line = strings.TrimSuffix(line, "\r\n"); i == 0 && line != first {
			c.t.Fatalf("reply %q, not %q", line, first)
		}
		left--
		n, _ := strconv.Atoi(line[1:])
		switch line[0] {
		case '*':
			left += n
		case '$':
			_, err := io.CopyN(io.Discard, c.in, int64(n)+2)
			check(c.t, err)
		}
	}
}

func (c *redisClient) do(first string, command ...string) {
	c.t.Helper()
	c.send(command...)
	c.expect(first)
}

// ends expects that the session has ended in order.
func (c *redisClient) ends() {
	c.t.Helper()
	if _, err := c.in.ReadByte(); err != io.EOF {
		c.t.Errorf("the session has not ended: %v", err)
	}
}

// TestSafeDrainShutdown ends the whole program under transactions: those that rest end at once, one that is in a
// transaction ends it, and one that does not is cut at the deadline.
func TestSafeDrainShutdown(t *testing.T) {
	t.Parallel()
	server := harness.StartPostgres(t)
	b := safeWorld(t, "postgres", `drain_timeout = "3s"`, server.Address())
	url := fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", server.User, b.Address(t, "main"), server.Database)
	ctx := t.Context()
	connect := func() *pgx.Conn { return postgresClient(t, url) }
	resting, ending, staying := connect(), connect(), connect()
	tx, err := ending.Begin(ctx)
	check(t, err)
	stuck, err := staying.Begin(ctx)
	check(t, err)
	b.Signal(t, syscall.SIGTERM)
	oneOf(t, b.WaitSessions(t, 1), "moved")
	if _, err := resting.Exec(ctx, "select 1"); !isMoved(err) {
		t.Errorf("a session at rest has got %v", err)
	}
	check(t, tx.Commit(ctx))
	oneOf(t, b.WaitSessions(t, 2), "moved")
	if _, err := ending.Exec(ctx, "select 1"); !isMoved(err) {
		t.Errorf("a session after its transaction has got %v", err)
	}
	endsWithZero(t, b)
	if err := stuck.Commit(ctx); err == nil {
		t.Error("a session in a transaction goes on after the end")
	}
	oneOf(t, b.WaitSessions(t, 3)[2:], "drained")
}

// TestSafeDrainReload removes a backend by a reload while a session is at rest, and another is in a transaction.
func TestSafeDrainReload(t *testing.T) {
	t.Parallel()
	one, other := harness.StartPostgres(t), harness.StartPostgres(t)
	w := world{
		Listen: harness.FreeAddress(t), Backends: []string{one.Address(), other.Address()},
		Keys:     []string{"weight = 256", "weight = 0"},
		Listener: []string{`profile = "postgres"`}, Pool: []string{`drain = "safe"`},
	}
	b := w.start(t)
	url := fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", one.User, b.Address(t, "main"), one.Database)
	ctx := t.Context()
	resting, working := postgresClient(t, url), postgresClient(t, url)
	tx, err := working.Begin(ctx)
	check(t, err)
	w.Backends, w.Keys = w.Backends[1:], nil
	b.Reload(t, w.config(t))
	oneOf(t, b.WaitSessions(t, 1), "moved")
	if _, err := resting.Exec(ctx, "select 1"); !isMoved(err) {
		t.Errorf("a session at rest has got %v", err)
	}
	check(t, tx.Commit(ctx))
	oneOf(t, b.WaitSessions(t, 2), "moved")
	next := postgresClient(t, url)
	defer closePostgres(t, next)
	_, err = next.Exec(ctx, "select 1")
	check(t, err)
}
