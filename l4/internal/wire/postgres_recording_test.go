package wire

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestPostgresTurnsRecorded holds that sessions with a real server are at rest exactly when they are.
func TestPostgresTurnsRecorded(t *testing.T) {
	server := harness.StartPostgres(t)
	harness.MustRun(t, psql(t, server.Host, server.Port, server.User, "create table t (a int check (a < 100))"))
	t.Run("pgx", func(t *testing.T) { testRecording[PostgresTurns](t, recordPGX(t, server)) })
	t.Run("psql", func(t *testing.T) {
		r := record(t, server.Address())
		host, port, _ := net.SplitHostPort(r.address)
		harness.MustRun(t, psql(t, host, port, server.User,
			"listen ch; notify ch", "select generate_series(1, 5000)", "copy t to stdout", "begin; select 1; commit"))
		session := r.turns()
		terminate := len(session) - 1
		for session[terminate].from != '>' {
			terminate--
		}
		r.session = append(append(session[:terminate:terminate], rests), session[terminate], hidden)
		testRecording[PostgresTurns](t, r)
	})
	for name, talk := range postgresTalks {
		t.Run(name, func(t *testing.T) {
			r := record(t, server.Address())
			c, err := net.Dial("tcp", r.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p := &postgresClient{pgproto3.NewFrontend(c, c), r}
			replication := "false"
			if talk.replication {
				replication = "true"
			}
			p.send(t, &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30,
				Parameters: map[string]string{"user": server.User, "database": server.Database,
					"replication": replication}})
			p.until(t, "Z")
			r.add(rests)
			talk.say(t, p)
			testRecording[PostgresTurns](t, r)
		})
	}
}

func psql(t *testing.T, host, port, user string, commands ...string) harness.Command {
	args := []string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", port, "-U", user, "-d", "postgres"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return harness.Command{Path: harness.Tool(t, "psql"), Args: args, Env: []string{"PGSSLMODE=prefer"}}
}

// recordPGX records a session of the usual client of Go.
func recordPGX(t *testing.T, server *harness.Postgres) *recording {
	r := record(t, server.Address())
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", server.User, r.address))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	step := func(is turn, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		r.add(is)
	}
	exec := func(sql string, args ...any) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	}
	fails := func(err error) error {
		if err == nil {
			return fmt.Errorf("no error")
		}
		return nil
	}
	step(rests, nil)
	step(rests, exec("select 1"))
	step(rests, exec("select generate_series(1, $1)", 3000))
	step(rests, fails(exec("oops")))
	step(rests, fails(exec("insert into t values ($1)", 1000)))
	step(rests, exec("do $$begin raise notice 'x'; end$$"))
	step(rests, exec("select repeat('x', 100000)"))
	step(rests, exec("listen ch"))
	step(rests, exec("notify ch, 'me'"))
	_, err = conn.WaitForNotification(ctx)
	step(rests, err)

	tx, err := conn.Begin(ctx)
	step(busy, err)
	_, err = tx.Exec(ctx, "insert into t values ($1)", 1)
	step(busy, err)
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"a"}, pgx.CopyFromRows([][]any{{2}, {3}}))
	step(busy, err)
	step(rests, tx.Commit(ctx))
	tx, err = conn.Begin(ctx)
	step(busy, err)
	_, err = tx.Exec(ctx, "oops")
	step(busy, fails(err))
	step(rests, tx.Rollback(ctx))

	_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader(strings.Repeat("5\n", 50_000)), "copy t from stdin")
	step(rests, err)
	_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader("x\n"+strings.Repeat("5\n", 50_000)), "copy t from stdin")
	if err == nil {
		t.Fatal("no error")
	}
	// Data that the server ignores may still be on its way here.
	step(rests, exec("select 1"))
	_, err = conn.PgConn().CopyTo(ctx, io.Discard, "copy t to stdout")
	step(rests, err)

	batch := &pgx.Batch{}
	batch.Queue("select $1::int", 1)
	batch.Queue("select 1/$1::int", 0)
	batch.Queue("select $1::int", 2)
	step(rests, fails(conn.SendBatch(ctx, batch).Close()))
	step(rests, exec("truncate t"))
	return r
}

// A postgresClient sends single messages.
type postgresClient struct {
	*pgproto3.Frontend
	r *recording
}

func (p *postgresClient) send(t *testing.T, messages ...pgproto3.FrontendMessage) {
	t.Helper()
	for _, m := range messages {
		p.Send(m)
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
}

// until reads messages of these types, with any others before each of them.
func (p *postgresClient) until(t *testing.T, kinds string) {
	t.Helper()
	for _, kind := range kinds {
		for got := rune(0); got != kind; {
			m, err := p.Receive()
			if err != nil {
				t.Fatalf("instead of %c: %v", kind, err)
			}
			b, err := m.Encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			got = rune(b[0])
		}
	}
}

// extended is a batch with one statement, without Sync.
func extended(sql string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{},
		&pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}}
}

// The messages that have no content, or always the same.
var (
	postgresSync     = &pgproto3.Sync{}
	postgresFlush    = &pgproto3.Flush{}
	postgresCopyDone = &pgproto3.CopyDone{}
	postgresRow      = &pgproto3.CopyData{Data: []byte("1\n")}
	postgresBadRow   = &pgproto3.CopyData{Data: []byte("x\n")}
)

// postgresTalks are sessions that no usual client has, and what is true in them.
var postgresTalks = map[string]struct {
	replication bool
	say         func(*testing.T, *postgresClient)
}{
	"batch without sync": {say: func(t *testing.T, p *postgresClient) {
		p.send(t, append(extended("select 1"), postgresFlush)...)
		p.until(t, "C")
		p.r.add(busy)
		p.send(t, postgresSync)
		p.until(t, "Z")
		p.r.add(rests)
	}},
	"pipeline": {say: func(t *testing.T, p *postgresClient) {
		for range 3 {
			p.send(t, append(extended("select 1"), postgresSync)...)
			p.send(t, append(extended("oops"), extended("select 1")...)...)
			p.send(t, postgresFlush, postgresSync)
		}
		p.until(t, "CZEZCZEZCZE")
		p.until(t, "Z")
		p.r.add(rests)
	}},
	"query skipped after an error": {say: func(t *testing.T, p *postgresClient) {
		p.send(t, &pgproto3.Parse{Query: "oops"}, &pgproto3.Query{String: "select 1"}, postgresSync)
		p.until(t, "EZ")
		p.send(t, &pgproto3.Query{String: "select 1"})
		p.until(t, "CZ") // only one answer for both queries
		p.r.add(busy)
	}},
	"function call": {say: func(t *testing.T, p *postgresClient) {
		p.send(t, &pgproto3.FunctionCall{Function: 1598}) // random()
		p.until(t, "VZ")
		p.r.add(rests)
	}},
	"extended copy": {say: func(t *testing.T, p *postgresClient) {
		p.send(t, append(extended("copy t from stdin"), postgresSync)...)
		p.until(t, "G")
		p.r.add(busy)
		p.send(t, postgresRow, postgresSync, postgresFlush, postgresRow, postgresCopyDone)
		p.send(t, postgresSync)
		p.until(t, "CZ")
		p.r.add(rests)
		p.send(t, append(extended("copy t from stdin"), postgresFlush)...)
		p.until(t, "G")
		p.send(t, postgresBadRow)
		p.until(t, "E")
		p.r.add(busy)
		p.send(t, postgresRow, postgresCopyDone, postgresSync)
		p.until(t, "Z")
		p.r.add(rests)
	}},
	"extended copy, sync read in it": {say: func(t *testing.T, p *postgresClient) {
		p.send(t, append(extended("copy t from stdin"), postgresSync)...)
		p.until(t, "G")
		p.send(t, postgresBadRow, postgresCopyDone, postgresSync)
		p.until(t, "EZ") // one answer for two
		p.r.add(hidden)
		p.send(t, &pgproto3.Query{String: "select 1"})
		p.until(t, "CZ")
		p.r.add(hidden)
	}},
	"extended copy, sync read behind it": {say: func(t *testing.T, p *postgresClient) {
		// The statement fails after CopyInResponse, and before the server reads anything.
		p.send(t, &pgproto3.Query{String: "begin; select 1; savepoint s"})
		p.until(t, "Z")
		p.r.add(busy)
		p.send(t, append(extended("copy t from stdin freeze"), postgresSync)...)
		p.until(t, "GEZ") // an answer, without anything more from the client
		p.r.add(hidden)
	}},
	"copy without waiting": {say: func(t *testing.T, p *postgresClient) {
		for _, sql := range []string{"copy t from stdin", "oops"} {
			p.send(t, &pgproto3.Query{String: sql}, postgresRow, postgresCopyDone, postgresSync)
			p.until(t, "ZZ")
			p.r.add(rests)
			p.send(t, append(extended(sql), postgresRow, postgresCopyDone, postgresSync)...)
			p.until(t, "Z")
			p.r.add(rests)
		}
	}},
	"leftovers": {say: func(t *testing.T, p *postgresClient) {
		p.send(t, &pgproto3.Query{String: "copy t from stdin; copy t from stdin"})
		p.until(t, "G")
		p.send(t, postgresRow, postgresCopyDone)
		p.until(t, "CG")
		p.r.add(busy)
		p.send(t, postgresBadRow, postgresCopyDone)
		p.until(t, "EZ")
		p.r.add(rests)
		p.send(t, postgresRow, &pgproto3.CopyFail{Message: "x"})
		p.r.add(rests)
		p.send(t, postgresSync)
		p.until(t, "Z")
		p.r.add(rests)
	}},
	"replication": {replication: true, say: func(t *testing.T, p *postgresClient) {
		p.send(t, &pgproto3.Query{String: "IDENTIFY_SYSTEM"})
		p.until(t, "CZ")
		p.r.add(rests)
		p.send(t, &pgproto3.Query{String: "START_REPLICATION PHYSICAL 0/1000000"})
		p.until(t, "Wd")
		p.r.add(busy)
		p.send(t, postgresCopyDone)
		p.until(t, "cCZ")
		p.r.add(rests)
	}},
}
