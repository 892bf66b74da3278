package test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/limeload/limeload-l4/test/harness"
)

// A ledger has several clients write numbered rows through one address, and notes what became of them. Every second
// client connects anew for each row, the others after errors.
type ledger struct {
	name    string // of its rows' owner, and in the tests' output
	url     string
	clients int
	stop    func() // ends the clients

	mu             sync.Mutex // guards the fields below
	written        []written  // in the order of the acknowledgements
	failedConnects []failure
	failedWrites   []failure // on established sessions; whether their rows are there is unknown
	onStandby      []failure // writes that a server refused since it is a standby
}

// written is a row whose commit was acknowledged.
type written struct {
	client, row int
	port        string // of the server
	at          time.Time
}

// A failure is a connect or a write that ended with an error.
type failure struct {
	began, ended time.Time
	err          error
}

// startLedger starts clients of an address. Their table must be there, see makeLedgers.
func startLedger(t *testing.T, name, address string, clients int) *ledger {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	l := &ledger{
		name: name, clients: clients,
		url: fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable&default_query_exec_mode=simple_protocol",
			address),
		stop: func() {
			cancel()
			running.Wait()
		},
	}
	for client := range clients {
		running.Go(func() { l.write(ctx, client, client%2 == 0) })
	}
	t.Cleanup(l.stop)
	return l
}

// makeLedgers makes the table of all ledgers on the primary.
func makeLedgers(t *testing.T, primary *harness.PatroniMember) {
	t.Helper()
	direct(t, primary, "CREATE TABLE ledger (name text, client int, n int, PRIMARY KEY (name, client, n))")
}

// directURL is how a client reaches a member itself.
func directURL(m *harness.PatroniMember) string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", m.Postgres)
}

// direct runs a statement on a member itself.
func direct(t *testing.T, m *harness.PatroniMember, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, directURL(m))
	check(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	check(t, err)
}

// write writes rows as one client until ctx ends.
func (l *ledger) write(ctx context.Context, client int, anew bool) {
	var conn *pgx.Conn
	for row := 0; ctx.Err() == nil; row++ {
		if conn == nil {
			if conn = l.connect(ctx); conn == nil {
				sleep(ctx, 10*time.Millisecond)
				continue
			}
		}
		good := l.insert(ctx, conn, client, row)
		if !good || anew {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			conn.Close(closing)
			cancel()
			conn = nil
		}
		sleep(ctx, 10*time.Millisecond) // many clients on few cores must leave room for the servers
	}
	if conn != nil {
		conn.Close(context.WithoutCancel(ctx))
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (l *ledger) connect(ctx context.Context) *pgx.Conn {
	began := time.Now()
	trying, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	conn, err := pgx.Connect(trying, l.url)
	if err == nil {
		return conn
	}
	if ctx.Err() == nil {
		l.note(&l.failedConnects, failure{began, time.Now(), err})
	}
	return nil
}

func (l *ledger) insert(ctx context.Context, conn *pgx.Conn, client, row int) (good bool) {
	began := time.Now()
	trying, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	var port string
	err := conn.QueryRow(trying, "INSERT INTO ledger VALUES ($1, $2, $3) RETURNING inet_server_port()::text",
		l.name, client, row).Scan(&port)
	ended := time.Now()
	var refusal *pgconn.PgError
	switch {
	case err == nil:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.written = append(l.written, written{client, row, port, ended})
		return true
	case ctx.Err() != nil:
	case errors.As(err, &refusal) && refusal.Code == "25006": // read_only_sql_transaction
		l.note(&l.onStandby, failure{began, ended, err})
	default:
		l.note(&l.failedWrites, failure{began, ended, err})
	}
	return false
}

func (l *ledger) note(list *[]failure, f failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*list = append(*list, f)
}

// String returns how long it took, and the error.
func (f failure) String() string {
	return fmt.Sprintf("after %v: %v", f.ended.Sub(f.began).Round(100*time.Microsecond), f.err)
}

// since returns the failures of one of the ledger's lists that began after a moment.
func (l *ledger) since(list *[]failure, after time.Time) (found []failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range *list {
		if f.began.After(after) {
			found = append(found, f)
		}
	}
	return found
}

// String returns how many rows were written and how many failures there were.
func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%s: %d rows written; %d failed connects, %d failed writes, %d writes on a standby", l.name,
		len(l.written), len(l.failedConnects), len(l.failedWrites), len(l.onStandby))
}

// first waits for the first row that was written to the server after a moment, and returns when that was.
func (l *ledger) first(t *testing.T, m *harness.PatroniMember, after time.Time) (at time.Time) {
	t.Helper()
	harness.Eventually(t, "rows of "+l.name+" are written to "+m.Name, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, w := range l.written {
			if w.at.After(after) && "127.0.0.1:"+w.port == m.Postgres {
				at = w.at
				return nil
			}
		}
		return errors.New("none")
	})
	return at
}

// everyone waits until each client has written a row after a moment.
func (l *ledger) everyone(t *testing.T, after time.Time) {
	t.Helper()
	harness.Eventually(t, "all clients of "+l.name+" write again", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		done := map[int]bool{}
		for _, w := range slices.Backward(l.written) {
			if w.at.Before(after) {
				break
			}
			done[w.client] = true
		}
		if len(done) < l.clients {
			return fmt.Errorf("only %v", done)
		}
		return nil
	})
}

// outage returns the longest time in which a client wrote no row, among those that ended after a moment.
func (l *ledger) outage(after time.Time) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := map[int]time.Time{}
	for _, w := range l.written {
		if before, is := last[w.client]; is && w.at.After(after) {
			longest = max(longest, w.at.Sub(before))
		}
		last[w.client] = w.at
	}
	return longest
}

// lost returns the acknowledged rows that a member does not have.
func (l *ledger) lost(t *testing.T, m *harness.PatroniMember) (lost []written) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, directURL(m))
	check(t, err)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT client, n FROM ledger WHERE name = $1", l.name)
	check(t, err)
	there := map[[2]int]bool{}
	var client, n int
	_, err = pgx.ForEachRow(rows, []any{&client, &n}, func() error {
		there[[2]int{client, n}] = true
		return nil
	})
	check(t, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.written {
		if !there[[2]int{w.client, w.row}] {
			lost = append(lost, w)
		}
	}
	return lost
}
