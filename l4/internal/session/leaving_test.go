package session_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// A leaver is a server in front of one backend, whose sessions can leave it safely.
type leaver struct {
	server *l4.Server
	pool   *pool.Pool
	lines  *l4test.Capture
	dial   func(t *testing.T) net.Conn
	ends   chan error // how each backend connection has ended; io.EOF is in order
}

// startLeaver starts one. handle serves a backend connection until it returns the error of a read.
func startLeaver(
	t *testing.T, on sides, spoken l4.Spoken, patience time.Duration, handle func(io.ReadWriter) error,
) *leaver {
	t.Helper()
	x := &leaver{ends: make(chan error, 100)}
	pair := l4test.NewKeyPair(t, "localhost")
	config := &tls.Config{Certificates: []tls.Certificate{l4test.Certificate(t, pair)}}
	at := backend(t, func(c *net.TCPConn) {
		if on.backend {
			x.ends <- handle(tls.Server(c, config))
		} else {
			x.ends <- handle(c)
		}
	})
	o := pool.Options{Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: 5 * time.Second,
		DrainSafely: true}
	if on.backend {
		o.Secure = l4test.TLSClient(t, l4.TLSClientSettings{Verify: true, ServerName: "localhost"}, pair)
	}
	var err error
	if x.pool, err = pool.New(o); err != nil {
		t.Fatal(err)
	}
	if err := x.pool.Add(pool.Spec{ID: "b1", Addr: pool.At(netip.MustParseAddrPort(at)), Weight: 1}); err != nil {
		t.Fatal(err)
	}
	spec := spec(x.pool)
	spec.Spoken = spoken
	if on.client {
		spec.TLS = l4test.TLSServer(t, l4.TLSServerSettings{}, pair)
	}
	lines, log := newCapture()
	x.lines = lines
	x.server = start(t, l4.Options{Loops: 2, Access: true, Log: log, DrainTimeout: 2 * patience}, spec)
	x.dial = func(t *testing.T) net.Conn {
		c := net.Conn(dial(t, address(x.server)))
		if on.client {
			c = tls.Client(c, &tls.Config{RootCAs: l4test.Roots(t, pair), ServerName: "localhost"})
		}
		return c
	}
	return x
}

func (x *leaver) setMode(t *testing.T, m pool.Mode) {
	t.Helper()
	if err := x.pool.SetMode("b1", m); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // both loops have got that
		l4test.OnLoop(x.server, i, func() {})
	}
}

// fakePostgres answers a login, and then each query: with the status after its colon, or at "wait" not at all.
func fakePostgres(c io.ReadWriter) error {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[:]))-4); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "R\x00\x00\x00\x08\x00\x00\x00\x00"+"Z\x00\x00\x00\x05I"); err != nil {
		return err
	}
	for {
		kind, body, err := readMessage(c)
		switch {
		case err != nil:
			return err
		case kind == 'X':
			_, err := c.Read(head[:])
			return err
		}
		if _, status, ok := strings.Cut(strings.TrimSuffix(body, "\x00"), ":"); ok {
			if _, err := io.WriteString(c, "C\x00\x00\x00\x07OK\x00Z\x00\x00\x00\x05"+status); err != nil {
				return err
			}
		}
	}
}

func readMessage(c io.Reader) (kind byte, body string, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, "", err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	_, err = io.ReadFull(c, b)
	return head[0], string(b), err
}

func query(text string) string {
	return "Q" + string(binary.BigEndian.AppendUint32(nil, uint32(5+len(text)))) + text + "\x00"
}

const postgresLogin = "\x00\x00\x00\x08\x00\x03\x00\x00"

// login begins a session of Postgres.
func (x *leaver) login(t *testing.T) net.Conn {
	t.Helper()
	c := x.dial(t)
	say(t, c, postgresLogin)
	awaitReady(t, c, "I")
	return c
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func awaitReady(t *testing.T, c net.Conn, status string) {
	t.Helper()
	for {
		kind, body, err := readMessage(c)
		switch {
		case err != nil:
			t.Fatalf("no ReadyForQuery: %v", err)
		case kind == 'E':
			t.Fatalf("an error instead of ReadyForQuery: %q", body)
		case kind == 'Z' && body != status:
			t.Fatalf("status %q", body)
		case kind == 'Z':
			return
		}
	}
}

var movedError = string(wire.AppendPostgresFatalHint(nil, "57P01",
	"terminating connection due to administrator command",
	"The load balancer moves this session to another server. Connect again."))

// hasLeft expects that a client reads text and the end, that its backend has seen an orderly end, and that the session
// counts as one that was moved.
func (x *leaver) hasLeft(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if got, err := io.ReadAll(c); err != nil || string(got) != text {
		t.Fatalf("the client reads %q and %v", got, err)
	}
	select {
	case err := <-x.ends:
		if err != io.EOF {
			t.Errorf("the backend sees %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the backend's connection stays")
	}
	if line := x.lines.Next(t); line.Reason != tally.Moved.String() {
		t.Errorf("reason %s", line.Reason)
	}
	b := x.pool.Backends()[0]
	if b.Outcomes[pool.Served] == 0 || b.Outcomes[pool.CutEarly] > 0 {
		t.Errorf("outcomes %v", b.Outcomes)
	}
}

// stays expects that a client gets nothing for a moment.
func stays(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, error %v", n, err)
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
}

var allSides = []sides{{false, false}, {true, false}, {false, true}, {true, true}}

// TestLeaveAtRest holds that a session of Postgres leaves at once if it is at rest, or as soon as its transaction is
// over.
func TestLeaveAtRest(t *testing.T) {
	for _, on := range allSides {
		t.Run(on.String(), func(t *testing.T) {
			x := startLeaver(t, on, l4.SpokenPostgres, time.Hour, fakePostgres)
			resting, working := x.login(t), x.login(t)
			say(t, working, query("begin:T"))
			awaitReady(t, working, "T")
			x.setMode(t, pool.Drain)
			x.hasLeft(t, resting, movedError)
			if n := x.pool.Backends()[0].Leases; n != 1 {
				t.Errorf("%d sessions are left", n)
			}
			say(t, working, query("insert:T"))
			awaitReady(t, working, "T")
			say(t, working, query("commit:I"))
			awaitReady(t, working, "I")
			x.hasLeft(t, working, movedError)
			resting.Close()
			working.Close()
			eventually(t, "no connection is left", func() bool { return x.server.Sessions() == 0 })
		})
	}
}

// TestLeaveWhenAllIsAnswered has a client send queries without waiting for their answers.
func TestLeaveWhenAllIsAnswered(t *testing.T) {
	next := make(chan struct{}, 10)
	x := startLeaver(t, sides{}, l4.SpokenPostgres, time.Hour, func(c io.ReadWriter) error {
		return fakePostgres(paused{c, next})
	})
	next <- struct{}{}
	c := x.login(t)
	say(t, c, query("one:I")+query("two:I"))
	x.setMode(t, pool.Maintenance)
	next <- struct{}{}
	awaitReady(t, c, "I")
	stays(t, c)
	next <- struct{}{}
	awaitReady(t, c, "I")
	x.hasLeft(t, c, movedError)
}

// paused makes a backend wait before each answer.
type paused struct {
	io.ReadWriter
	next <-chan struct{}
}

func (p paused) Write(b []byte) (int, error) {
	<-p.next
	return p.ReadWriter.Write(b)
}

// TestLeaveThenSend has a client send something after its session has left, and before it reads: the error is there.
func TestLeaveThenSend(t *testing.T) {
	for _, on := range allSides {
		t.Run(on.String(), func(t *testing.T) {
			x := startLeaver(t, on, l4.SpokenPostgres, time.Hour, fakePostgres)
			c := x.login(t)
			x.setMode(t, pool.Drain)
			<-x.ends
			x.ends <- io.EOF
			for range 10 {
				say(t, c, query("late:I"))
				time.Sleep(5 * time.Millisecond)
			}
			x.hasLeft(t, c, movedError)
		})
	}
}

// TestLeaveNoMore holds that sessions stay whose backend is back in use before they have come to rest, and those of
// other pools, and those that cannot be understood.
func TestLeaveNoMore(t *testing.T) {
	t.Run("back in use", func(t *testing.T) {
		x := startLeaver(t, sides{}, l4.SpokenPostgres, time.Hour, fakePostgres)
		c := x.login(t)
		say(t, c, query("begin:T"))
		awaitReady(t, c, "T")
		x.setMode(t, pool.Drain)
		x.setMode(t, pool.Ready)
		say(t, c, query("commit:I"))
		awaitReady(t, c, "I")
		stays(t, c)
	})
	t.Run("an unknown protocol", func(t *testing.T) {
		x := startLeaver(t, sides{}, 0, time.Hour, fakePostgres)
		c := x.login(t)
		x.setMode(t, pool.Drain)
		stays(t, c)
	})
	t.Run("turned off", func(t *testing.T) {
		x := startLeaver(t, sides{}, l4.SpokenPostgres, time.Hour, fakePostgres)
		c := x.login(t)
		o := pool.Options{Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: time.Second}
		if err := x.pool.Reconfigure(o); err != nil {
			t.Fatal(err)
		}
		x.setMode(t, pool.Drain)
		stays(t, c)
		o.DrainSafely = true
		if err := x.pool.Reconfigure(o); err != nil {
			t.Fatal(err)
		}
		x.hasLeft(t, c, movedError)
	})
	t.Run("TLS to the backend", func(t *testing.T) {
		x := startLeaver(t, sides{}, l4.SpokenPostgres, time.Hour, func(c io.ReadWriter) error {
			_, err := io.Copy(c, c)
			return err
		})
		c := x.dial(t)
		say(t, c, "\x00\x00\x00\x08\x04\xd2\x16\x2f")
		if _, err := io.ReadFull(c, make([]byte, 8)); err != nil { // an echo, which is no answer
			t.Fatal(err)
		}
		x.setMode(t, pool.Drain)
		stays(t, c)
		x.each(func(s *session.Session) {
			if session.FollowsTurns(s) {
				t.Error("the session is still followed")
			}
		})
	})
}

// each calls f for every session, on its loop.
func (x *leaver) each(f func(*session.Session)) {
	for i := range 2 {
		l4test.EachSession(x.server, i, f)
	}
}

// TestLeaveRemoved holds that sessions leave a backend that was removed.
func TestLeaveRemoved(t *testing.T) {
	x := startLeaver(t, sides{}, l4.SpokenPostgres, time.Hour, fakePostgres)
	c := x.login(t)
	b := x.pool.Backends()[0]
	other := pool.Spec{ID: "b2", Addr: pool.At(netip.MustParseAddrPort("127.0.0.1:1")), Weight: 1}
	if err := x.pool.Add(other); err != nil {
		t.Fatal(err)
	}
	if err := x.pool.Remove(b.ID); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if string(got) != movedError || err != nil {
		t.Errorf("the client reads %q and %v", got, err)
	}
}

// TestLeaveAtShutdown holds that sessions at rest end when the server shuts down, and others as soon as they are.
func TestLeaveAtShutdown(t *testing.T) {
	x := startLeaver(t, sides{}, l4.SpokenPostgres, time.Hour, fakePostgres)
	resting, working := x.login(t), x.login(t)
	say(t, working, query("begin:T"))
	awaitReady(t, working, "T")
	down := make(chan error, 1)
	go func() { down <- x.server.Shutdown(t.Context()) }()
	x.hasLeft(t, resting, movedError)
	resting.Close()
	say(t, working, query("commit:I"))
	awaitReady(t, working, "I")
	x.hasLeft(t, working, movedError)
	working.Close()
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// TestLeaveSlowReader has a client that takes the last reply long after it was sent.
func TestLeaveSlowReader(t *testing.T) {
	for _, on := range allSides {
		t.Run(on.String(), func(t *testing.T) {
			const row = 16 << 20
			x := startLeaver(t, on, l4.SpokenPostgres, time.Hour, func(c io.ReadWriter) error {
				return fakePostgres(generous{c, row})
			})
			c := x.login(t)
			say(t, c, query("select:I"))
			time.Sleep(200 * time.Millisecond)
			x.setMode(t, pool.Drain)
			if kind, body, err := readMessage(c); kind != 'D' || len(body) != row || err != nil {
				t.Fatalf("a message %q of %d bytes, error %v", kind, len(body), err)
			}
			awaitReady(t, c, "I")
			x.hasLeft(t, c, movedError)
		})
	}
}

// generous makes a backend send a long row before it completes a query.
type generous struct {
	io.ReadWriter
	row int
}

func (g generous) Write(b []byte) (int, error) {
	if b[0] == 'C' {
		head := binary.BigEndian.AppendUint32([]byte{'D'}, uint32(4+g.row))
		if _, err := g.ReadWriter.Write(append(head, make([]byte, g.row)...)); err != nil {
			return 0, err
		}
	}
	return g.ReadWriter.Write(b)
}

// fakeRedis answers each PING, and at other commands waits.
func fakeRedis(c io.ReadWriter) error {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.HasPrefix(line, "PING") {
			if _, err := io.WriteString(c, "+PONG\r\n"); err != nil {
				return err
			}
		}
	}
}

func ping(c net.Conn) error {
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return err
	}
	got := make([]byte, 7)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "+PONG\r\n" {
		return fmt.Errorf("PING is answered with %q and %w", got, err)
	}
	return nil
}

func pings(t *testing.T, clients ...net.Conn) {
	t.Helper()
	for _, c := range clients {
		if err := ping(c); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLeaveRedis holds that a session of Redis leaves when it has been silent for a moment, and when patience is over,
// between two commands.
func TestLeaveRedis(t *testing.T) {
	for _, on := range allSides {
		t.Run(on.String(), func(t *testing.T) {
			x := startLeaver(t, on, l4.SpokenRedis, time.Hour, fakeRedis)
			silent, busy, blocked := x.dial(t), x.dial(t), x.dial(t)
			pings(t, silent, blocked)
			say(t, blocked, "BLPOP x 0\r\n")
			time.Sleep(150 * time.Millisecond)
			pings(t, busy)
			last := time.Now()
			x.setMode(t, pool.Drain)
			for until := time.Now().Add(400 * time.Millisecond); time.Now().Before(until); last = time.Now() {
				if err := ping(busy); err != nil {
					if took := time.Since(last); took < 50*time.Millisecond {
						t.Fatalf("a busy session has left, %v after its last reply: %v", took, err)
					}
					break // the machine has paused
				}
			}
			x.hasLeft(t, silent, "")
			x.hasLeft(t, busy, "")
			stays(t, blocked)
		})
	}
	t.Run("no patience", func(t *testing.T) {
		x := startLeaver(t, sides{}, l4.SpokenRedis, 0, fakeRedis)
		busy := x.dial(t)
		pings(t, busy)
		x.setMode(t, pool.Drain)
		x.hasLeft(t, busy, "")
	})
}

// TestTurnsSize states what a session costs at rest that can be asked to leave.
func TestTurnsSize(t *testing.T) {
	whole, extra, turns := session.Sizes()
	t.Logf("a session is %d bytes, its extra %d, and what follows its turns %d", whole, extra, turns)
	if turns > 128 {
		t.Errorf("turns has %d bytes", turns)
	}
}

// TestFollowedNotSpliced holds that bytes are copied which somebody has to see, and that what is not understood is not.
func TestFollowedNotSpliced(t *testing.T) {
	bulk := strings.Repeat("x", 8<<20)
	x := startLeaver(t, sides{}, l4.SpokenRedis, time.Hour, func(c io.ReadWriter) error {
		_, err := fmt.Fprintf(c, "$%d\r\n%s\r\n", len(bulk), bulk)
		if err == nil {
			_, err = io.Copy(io.Discard, c)
		}
		return err
	})
	c := x.dial(t)
	say(t, c, "GET x\r\n")
	if _, err := io.CopyN(io.Discard, c, int64(len(bulk)+12)); err != nil {
		t.Fatal(err)
	}
	x.each(func(s *session.Session) {
		if _, out := session.Splices(s); out || !session.FollowsTurns(s) {
			t.Error("the reply goes through a pipe")
		}
	})
}
