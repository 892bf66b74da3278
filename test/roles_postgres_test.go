package test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/limeload/limeload-l4/test/harness"
)

// checkInterval is the interval of the checks in the failover tests; the balancer's promises are in intervals.
const checkInterval = time.Second

// A writer connects through the balancer repeatedly, writes one row and records which server accepted it.
type writer struct {
	url    string
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	last    map[string]time.Time // when a row was written last, by the server's port; mu guards it
	refused []error              // writes that a server refused since it is a standby; mu guards it
}

func startWriter(t *testing.T, b *harness.Balancer, user string) *writer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &writer{
		url:    fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable&connect_timeout=5", user, b.Address(t, "main")),
		cancel: cancel, last: map[string]time.Time{},
	}
	w.done.Go(func() {
		for ctx.Err() == nil {
			w.write(ctx)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func (w *writer) stop() {
	w.cancel()
	w.done.Wait()
}

// write writes one row in a session of its own.
func (w *writer) write(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		time.Sleep(10 * time.Millisecond) // refused: while nobody is the primary
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var port string
	err = conn.QueryRow(ctx, "INSERT INTO written DEFAULT VALUES RETURNING inet_server_port()::text").Scan(&port)
	w.mu.Lock()
	defer w.mu.Unlock()
	var refusal *pgconn.PgError
	switch {
	case err == nil:
		w.last[port] = time.Now()
	case errors.As(err, &refusal) && refusal.Code == "25006": // read_only_sql_transaction
		w.refused = append(w.refused, err)
	}
}

// since reports whether a row was written to the server after a moment.
func (w *writer) since(port string, at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last[port].After(at) {
		return nil
	}
	return fmt.Errorf("no row was written to the server on port %s; last written: %v", port, w.last)
}

// do runs a statement on a server itself.
func do(t *testing.T, p *harness.Postgres, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", p.User, p.Address()))
	check(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	check(t, err)
}

// TestPostgresFailover stops a primary in three ways and promotes its replica: writers reach the new one within three
// intervals, no write ever goes to a standby, the old one's sessions are closed, and when it comes back believing it is
// still the primary, nobody is sent there.
func TestPostgresFailover(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		stop func(t *testing.T, p *harness.Postgres)
		back func(t *testing.T, p *harness.Postgres)
	}{
		{"hung",
			func(t *testing.T, p *harness.Postgres) { p.Signal(t, syscall.SIGSTOP) },
			func(t *testing.T, p *harness.Postgres) { p.Signal(t, syscall.SIGCONT) }},
		{"killed",
			func(t *testing.T, p *harness.Postgres) { p.Signal(t, syscall.SIGKILL); p.Wait(t) },
			func(t *testing.T, p *harness.Postgres) { p.Restart(t) }},
		{"shut down",
			func(t *testing.T, p *harness.Postgres) { p.Signal(t, syscall.SIGINT); p.Wait(t) },
			func(t *testing.T, p *harness.Postgres) { p.Restart(t) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			primary := harness.StartPostgres(t)
			do(t, primary, "CREATE TABLE written (id bigint GENERATED ALWAYS AS IDENTITY)")
			replica := primary.StartReplica(t)
			started := time.Now()
			b := world{
				Backends: []string{primary.Address(), replica.Address()},
				Pool:     []string{`algorithm = "least_conn"`}, // on_unhealthy is "close" by default
				Health: []string{
					`type = "postgres"`, `user = "limeload"`, `role = "primary"`, fmt.Sprintf(`interval = "%v"`,
						checkInterval),
					`fast_interval = "200ms"`, `timeout = "500ms"`, `rise = 2`, `fall = 2`,
				},
			}.start(t)
			b.WaitVerdict(t, "b1", "healthy", started)
			b.WaitVerdict(t, "b2", "wrong_role", started)
			w := startWriter(t, b, primary.User)
			harness.Eventually(t, "rows are written to the primary", func() error {
				return w.since(primary.Port, started)
			})
			held, err := pgx.Connect(t.Context(), w.url)
			check(t, err)
			defer held.Close(context.Background())

			stopped := time.Now()
			tc.stop(t, primary)
			do(t, replica, "SELECT pg_promote()")
			promoted := time.Now()
			harness.Eventually(t, "rows are written to the new primary", func() error {
				return w.since(replica.Port, promoted)
			})
			took := time.Since(promoted)
			t.Logf("the new primary took writes %v after its promotion", took.Round(time.Millisecond))
			if took > 3*checkInterval {
				t.Errorf("the new primary took writes only %v after its promotion, more than three intervals", took)
			}
			b.WaitLine(t, "the old primary's session is closed", func(l harness.Line) bool {
				return l.IsAccess() && l.Backend == "b1" && l.Seen.After(stopped) && (l.Reason == "backend_unhealthy" ||
					tc.name != "hung")
			})

			returned := time.Now()
			tc.back(t, primary)
			b.WaitLine(t, "two claim to be the primary", func(l harness.Line) bool {
				return l.Message == "two backends claim to be the primary" && l.Level == "error"
			})
			<-time.After(3 * checkInterval) // enough time for the checks to take effect
			if err := w.since(replica.Port, returned); err != nil {
				t.Error(err)
			}
			if err := w.since(primary.Port, promoted); err == nil {
				t.Error("a row was written to the old primary after the new one was promoted")
			}
			w.stop()
			if len(w.refused) > 0 {
				t.Errorf("%d writes went to a standby: %v", len(w.refused), w.refused[0])
			}
		})
	}
}

// TestDemotedPrimaryLosesItsWriters promotes a standby while the old primary keeps running unaware: the old one is
// fenced off, and its sessions are closed unless the configuration keeps them.
func TestDemotedPrimaryLosesItsWriters(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		pool []string
		cut  bool
	}{
		{"by default", nil, true},
		{"kept", []string{`on_unhealthy = "keep"`}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			primary := harness.StartPostgres(t)
			replica := primary.StartReplica(t)
			started := time.Now()
			b := world{
				Backends: []string{primary.Address(), replica.Address()}, Pool: tc.pool,
				Health: []string{
					`type = "postgres"`, `user = "limeload"`, `role = "primary"`, `interval = "500ms"`,
					`fast_interval = "200ms"`, `timeout = "5s"`,
				},
			}.start(t)
			b.WaitVerdict(t, "b1", "healthy", started)
			writer, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable",
				primary.User, b.Address(t, "main")))
			check(t, err)
			defer writer.Close(context.Background())
			promoted := time.Now()
			do(t, replica, "SELECT pg_promote()")
			b.WaitVerdict(t, "b1", "wrong_role", promoted)
			if tc.cut {
				b.WaitLine(t, "the old primary's writer is cut", func(l harness.Line) bool {
					return l.IsAccess() && l.Backend == "b1" && l.Reason == "backend_unhealthy"
				})
			}
			_, err = writer.Exec(t.Context(), "CREATE TABLE lost ()")
			if cut := err != nil; cut != tc.cut {
				t.Errorf("a statement of the writer ends with %v, want an error: %v", err, tc.cut)
			}
		})
	}
}
