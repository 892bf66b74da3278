package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// demoWriterCount is how many clients commit transactions.
	demoWriterCount = 4
	// demoThink is how long a client waits between two transactions.
	demoThink = 10 * time.Millisecond
	// demoTable makes the table of the clients: each transaction is a row.
	demoTable = "CREATE TABLE demo (writer int, n int, PRIMARY KEY (writer, n))"
)

// A demoSession is a connection of a PostgreSQL client without a password. pgx would be 1.3 MB of the binary for this.
type demoSession struct {
	conn     net.Conn
	frontend *pgproto3.Frontend
}

// openDemoSession logs in.
func openDemoSession(ctx context.Context, address string) (*demoSession, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &demoSession{conn, pgproto3.NewFrontend(conn, conn)}
	s.frontend.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber,
		Parameters: map[string]string{"user": demoUser, "database": demoDatabase}})
	if _, err := s.answer(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *demoSession) close() { s.conn.Close() }

// query runs a statement, and returns the first value of its answer; "" if there is none.
func (s *demoSession) query(ctx context.Context, sql string) (string, error) {
	s.frontend.Send(&pgproto3.Query{String: sql})
	return s.answer(ctx)
}

// answer sends what is to be sent, and reads until the server is ready for the next query.
func (s *demoSession) answer(ctx context.Context) (value string, err error) {
	end, limited := ctx.Deadline()
	if !limited {
		end = time.Now().Add(demoPatience)
	}
	if err := s.conn.SetDeadline(end); err != nil {
		return "", err
	}
	if err := s.frontend.Flush(); err != nil {
		return "", err
	}
	for {
		message, failure := s.frontend.Receive()
		if failure != nil {
			return "", cmp.Or(err, failure) // what the server said before it hung up
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			err = fmt.Errorf("%s: %s", m.Code, m.Message)
		case *pgproto3.DataRow:
			if len(m.Values) > 0 {
				value = string(m.Values[0])
			}
		case *pgproto3.ReadyForQuery:
			return value, err
		}
	}
}

// A demoWriters commits transactions through the balancer, and counts what becomes of them. Its zero value is of no
// use, see newDemoWriters.
type demoWriters struct {
	// set once, then read-only
	address string
	say     *narrator

	mu sync.Mutex
	// mu guards the fields below
	began, last time.Time // of the first and the last commit
	commits     int
	refused     int      // failed logins
	failed      []string // the keys of transactions whose outcome the client does not know, or that failed
	longest     time.Duration
}

func newDemoWriters(address string, say *narrator) *demoWriters {
	return &demoWriters{address: address, say: say}
}

// run lets all clients work until ctx ends.
func (w *demoWriters) run(ctx context.Context) {
	var writing sync.WaitGroup
	for i := range demoWriterCount {
		writing.Go(func() { w.write(ctx, i) })
	}
	writing.Wait()
}

// write is one client: it commits one transaction after another, and logs in again when its connection breaks.
func (w *demoWriters) write(ctx context.Context, writer int) {
	var session *demoSession
	for n := 1; pause(ctx, demoThink); {
		if session == nil {
			var err error
			if session, err = openDemoSession(ctx, w.address); err != nil {
				if ctx.Err() == nil {
					w.refuse(err)
				}
				continue
			}
		}
		// what has begun is completed when ctx ends, so that every outcome is known
		_, err := session.query(context.WithoutCancel(ctx), fmt.Sprintf("INSERT INTO demo VALUES (%d, %d)", writer, n))
		w.note(fmt.Sprintf("(%d, %d)", writer, n), err)
		n++
		if err != nil {
			session.close()
			session = nil
		}
	}
	if session != nil {
		session.close()
	}
}

// refuse counts a failed login.
func (w *demoWriters) refuse(err error) {
	w.mu.Lock()
	w.refused++
	first := w.refused == 1
	w.mu.Unlock()
	if first {
		w.say.line("a login failed: %v", err)
	}
}

// note counts a transaction.
func (w *demoWriters) note(key string, err error) {
	if err != nil {
		w.say.line("a transaction failed: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed = append(w.failed, key)
		return
	}
	now := time.Now()
	if w.commits == 0 {
		w.began, w.last = now, now
	}
	w.longest = max(w.longest, now.Sub(w.last))
	w.commits++
	w.last = now
}

func (w *demoWriters) committed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.commits
}

// gap returns the longest time between two commits.
func (w *demoWriters) gap() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.longest
}

// line returns how the clients fare, as one line.
func (w *demoWriters) line() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("clients: %s committed, %d failed, longest pause %s",
		counted(w.commits, "transaction"), len(w.failed), duration(w.longest))
}

// missing returns how many transactions that were committed are on none of the servers that answer; -1 if none does.
func (w *demoWriters) missing(ctx context.Context, servers ...*demoPostgresServer) int {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	sql := "SELECT count(*) FROM demo"
	if len(w.failed) > 0 {
		sql += " WHERE (writer, n) NOT IN (" + strings.Join(w.failed, ", ") + ")"
	}
	for _, server := range servers {
		text, err := server.query(ctx, sql)
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(text); err == nil {
			return max(w.commits-n, 0)
		}
	}
	return -1
}

// summary returns what the clients have seen, as several lines.
func (w *demoWriters) summary(missing int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.commits == 0 {
		return "The demo has ended.\n"
	}
	text := fmt.Sprintf("The demo has ended. In %s its clients have committed\n%s: %d failed.\n"+
		"The longest time without a commit was %s.\n", duration(w.last.Sub(w.began)),
		counted(w.commits, "transaction"), len(w.failed), duration(w.longest))
	if w.refused > 0 {
		text += fmt.Sprintf("%s failed.\n", counted(w.refused, "login"))
	}
	if missing >= 0 {
		text += fmt.Sprintf("Of those that were committed, %d are missing at the end.\n", missing)
	}
	return text
}
