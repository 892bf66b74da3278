package test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/limeload/limeload-l4/test/harness"
)

// A cancelling is a balancer in front of three Postgres servers, and a connection to each that goes round it.
type cancelling struct {
	*harness.Balancer
	host, port string
	servers    []*harness.Postgres
	observers  map[string]*observer // by the server's port
}

// An observer asks a server what its sessions do.
type observer struct {
	mu sync.Mutex
	*pgx.Conn
}

func startCancelling(t *testing.T, change func(*world), servers ...*harness.Postgres) *cancelling {
	t.Helper()
	x := &cancelling{servers: servers, observers: make(map[string]*observer)}
	w := world{Listener: []string{`profile = "postgres"`}}
	for _, s := range servers {
		w.Backends = append(w.Backends, s.Address())
		conn := postgresClient(t, fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", s.User, s.Address(), s.Database))
		t.Cleanup(func() { closePostgres(t, conn) })
		x.observers[s.Port] = &observer{Conn: conn}
	}
	if change != nil {
		change(&w)
	}
	x.Balancer = w.start(t)
	var err error
	x.host, x.port, err = net.SplitHostPort(x.Address(t, "main"))
	check(t, err)
	return x
}

func (x *cancelling) url(sslmode string) string {
	s := x.servers[0]
	return fmt.Sprintf("postgres://%s@%s:%s/%s?sslmode=%s", s.User, x.host, x.port, s.Database, sslmode)
}

// waitActive waits until a query of a session is running: that of this process on the server with this port.
func (x *cancelling) waitActive(t testing.TB, port, where string) {
	o := x.observers[port]
	harness.Eventually(t, "the query runs", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		var n int
		err := o.QueryRow(context.Background(), "select count(*) from pg_stat_activity where state = 'active' and "+
			"wait_event = 'PgSleep' and "+where).Scan(&n)
		if err == nil && n == 0 {
			err = errors.New("not yet")
		}
		return err
	})
}

// A sleeper is a session whose queries last until they are cancelled.
type sleeper struct {
	*pgx.Conn
	port string // of its server
	done chan error
}

func (x *cancelling) sleeper(t *testing.T, sslmode string) *sleeper {
	t.Helper()
	s := &sleeper{Conn: postgresClient(t, x.url(sslmode))}
	t.Cleanup(func() { closePostgres(t, s.Conn) })
	check(t, s.QueryRow(t.Context(), "select current_setting('port')").Scan(&s.port))
	return s
}

// sleep begins a query, and returns when it is running.
func (x *cancelling) sleep(t testing.TB, s *sleeper) {
	s.done = make(chan error, 1)
	go func() {
		_, err := s.Exec(context.Background(), "select pg_sleep(600)")
		s.done <- err
	}()
	x.waitActive(t, s.port, fmt.Sprintf("pid = %d", s.PgConn().PID()))
}

// untouched returns an error if the query has ended.
func (s *sleeper) untouched() error {
	select {
	case err := <-s.done:
		return fmt.Errorf("a query ended without its cancel: %v", err)
	default:
		return nil
	}
}

// cancelled returns an error unless the query ends because it was cancelled.
func (s *sleeper) cancelled() error {
	select {
	case err := <-s.done:
		var refusal *pgconn.PgError
		if !errors.As(err, &refusal) || refusal.Code != "57014" { // query_canceled
			return fmt.Errorf("a cancelled query ended with %v", err)
		}
		return nil
	case <-time.After(harness.Patience):
		return errors.New("a cancelled query goes on")
	}
}

// cancels returns how many cancels the balancer has counted with a result.
func (x *cancelling) cancels(t *testing.T, result string) int {
	t.Helper()
	return int(metrics(t, x.Balancer)[fmt.Sprintf(`limeload_postgres_cancels_total{listener="main",result=%q}`, result)])
}

// cancelPlainly sends the cancel of a session as libpq before version 17 does: not encrypted. It returns when the
// balancer ends its connection, which has to be in order.
func (x *cancelling) cancelPlainly(t *testing.T, pid uint32, key []byte) {
	t.Helper()
	m := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
	m = binary.BigEndian.AppendUint32(m, 1234<<16|5678)
	m = append(binary.BigEndian.AppendUint32(m, pid), key...)
	c := x.Dial(t, "main")
	_, err := c.Write(m)
	check(t, err)
	if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
		t.Errorf("a cancel was answered with %q, %v", got, err)
	}
}

// TestPostgresCancels has 40 sessions on three servers sleep and be cancelled, a thousand times in all, by pgx and by
// psql. Each cancel ends the query of its session, and no other query ends. Cancels with forged keys end none.
func TestPostgresCancels(t *testing.T) {
	t.Parallel()
	const sessions, rounds, psqls = 40, 24, 40
	x := startCancelling(t, nil, harness.StartPostgres(t), harness.StartPostgres(t), harness.StartPostgres(t))
	var running sync.WaitGroup
	ports := make(map[string]int)
	for range sessions {
		s := x.sleeper(t, "disable")
		ports[s.port]++
		running.Go(func() {
			for range rounds {
				x.sleep(t, s)
				time.Sleep(rand.N(5 * time.Millisecond))
				err := s.untouched()
				if err == nil {
					err = s.PgConn().CancelRequest(context.Background())
				}
				if err == nil {
					err = s.cancelled()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	if len(ports) != 3 {
		t.Errorf("sessions by server: %v", ports)
	}
	running.Go(func() { x.cancelByPsql(t, psqls) })
	running.Wait()
	if n := x.cancels(t, "sent"); n != sessions*rounds+psqls {
		t.Errorf("%d cancels sent, want %d", n, sessions*rounds+psqls)
	}
	for _, result := range []string{"unknown", "failed", "dropped"} {
		if n := x.cancels(t, result); n != 0 {
			t.Errorf("%d cancels %s", n, result)
		}
	}

	t.Run("forged", func(t *testing.T) { x.forge(t) })
}

// cancelByPsql interrupts a psql with Ctrl-C, so many times.
func (x *cancelling) cancelByPsql(t *testing.T, times int) {
	for i := range times {
		name := fmt.Sprintf("psql%d", i)
		server := x.servers[0]
		p := harness.Start(t, harness.Command{
			Path: harness.Tool(t, "psql"), Env: []string{"PGAPPNAME=" + name, "LC_ALL=C"},
			Args: []string{"-h", x.host, "-p", x.port, "-U", server.User, "-d", server.Database, "-XAtq",
				"-c", "select current_setting('port')", "-c", "select pg_sleep(600)"},
		})
		port := strings.TrimSpace(p.WaitStdout(t, ""))
		x.waitActive(t, port, "application_name = '"+name+"'")
		p.Signal(t, syscall.SIGINT)
		p.Wait(t)
		if got := p.Stderr(); !strings.Contains(got, "canceling statement due to user request") {
			t.Errorf("psql: %q", got)
		}
	}
}

// forge sends cancels for a running query that lack its key.
func (x *cancelling) forge(t *testing.T) {
	s := x.sleeper(t, "disable")
	x.sleep(t, s)
	for range 50 {
		x.cancelPlainly(t, s.PgConn().PID(), binary.BigEndian.AppendUint32(nil, rand.Uint32()))
	}
	check(t, s.untouched())
	if n := x.cancels(t, "unknown"); n != 50 {
		t.Errorf("%d cancels with an unknown key, want 50", n)
	}
	check(t, s.PgConn().CancelRequest(t.Context()))
	check(t, s.cancelled())
}

// TestPostgresCancelWherever cancels queries on a backend that is full, and then drains, and then is in maintenance.
func TestPostgresCancelWherever(t *testing.T) {
	t.Parallel()
	x := startCancelling(t, func(w *world) { w.Keys = []string{"max_sessions = 1"} }, harness.StartPostgres(t))
	s := x.sleeper(t, "disable")
	for _, mode := range []string{"ready", "drain", "maintenance"} {
		x.Ask(t, "PATCH", "/v1/pools/all/backends/b1", map[string]any{"mode": mode}, nil)
		x.sleep(t, s)
		check(t, s.PgConn().CancelRequest(t.Context()))
		check(t, s.cancelled())
	}
}

// TestPostgresCancelPassedTLS cancels queries whose TLS goes through to the server, so that nobody here knows their
// keys. A plain cancel then goes to all servers with sessions, and the key decides there.
func TestPostgresCancelPassedTLS(t *testing.T) {
	t.Parallel()
	servers := []*harness.Postgres{harness.StartPostgres(t), harness.StartPostgres(t)}
	for _, s := range servers {
		s.Signal(t, syscall.SIGINT)
		s.Wait(t)
		s.UseTLS(t)
		s.Restart(t)
	}
	x := startCancelling(t, nil, servers...)
	one, two := x.sleeper(t, "require"), x.sleeper(t, "require")
	if one.port == two.port {
		t.Fatal("both sessions are on one server")
	}
	x.sleep(t, two)
	for range 20 {
		x.sleep(t, one)
		x.cancelPlainly(t, one.PgConn().PID(), one.PgConn().SecretKey())
		check(t, one.cancelled())
		check(t, two.untouched())
	}
	if n := x.cancels(t, "unknown"); n != 20 {
		t.Errorf("%d cancels with an unknown key, want 20", n)
	}
	x.cancelPlainly(t, two.PgConn().PID(), two.PgConn().SecretKey())
	check(t, two.cancelled())
}

// TestPostgresCancelBehindTLS cancels queries of psql and pgx whose TLS ends at the listener, so that their keys are
// known here. Debian's psql sends its cancels without TLS, and so does pgx here.
func TestPostgresCancelBehindTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	newAuthority(t, dir, "ca").pair(t, "server", ecdsaKey(t), "db.example.com")
	x := startCancelling(t, func(w *world) {
		w.Listener = append(w.Listener, fmt.Sprintf(
			"tls = { certificates = [{ cert = %q, key = %q }], starttls = \"postgres\" }",
			filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")))
	}, harness.StartPostgres(t), harness.StartPostgres(t))
	one, two := x.sleeper(t, "require"), x.sleeper(t, "require")
	x.sleep(t, two)
	for range 20 {
		x.sleep(t, one)
		x.cancelPlainly(t, one.PgConn().PID(), one.PgConn().SecretKey())
		check(t, one.cancelled())
		check(t, two.untouched())
	}
	x.cancelByPsql(t, 10)
	check(t, two.untouched())
	check(t, two.PgConn().CancelRequest(t.Context()))
	check(t, two.cancelled())
	if n := x.cancels(t, "sent"); n != 31 {
		t.Errorf("%d cancels sent, want 31", n)
	}
	if _, err := pgx.Connect(t.Context(), x.url("disable")); err == nil || !strings.Contains(err.Error(), "requires TLS") {
		t.Errorf("without TLS: %v", err)
	}
}
