package test

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// accessFields returns the fields that every access line has. Fields that do not apply are omitted: backend and
// backend_address if none was chosen, connect_time and first_byte_time.
func accessFields() []string {
	return []string{
		"level", "time", "event", "message", "session", "listener", "pool", "client", "bytes_in", "bytes_out", "duration",
		"retries", "reason",
	}
}

// TestAccessLine provokes each reason that is possible on loopback, and checks the whole line. client_lost,
// backend_lost and no_descriptors need a network that can be cut or has no ports left, see netns_linux_test.go.
// max_sessions has no line, see TestMaxSessions.
func TestAccessLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason    string
		handle    harness.Handler // nil: nothing listens at the backend's address
		listener  []string
		pool      []string
		global    []string
		health    []string
		use       func(t *testing.T, b *harness.Balancer, c *net.TCPConn)
		in, out   int64
		noBackend bool // no backend was chosen
	}{
		{
			reason: "client_closed", handle: harness.Echo, in: 5, out: 5,
			use: func(t *testing.T, _ *harness.Balancer, c *net.TCPConn) {
				check(t, harness.PingPong(c, 1, 5))
				check(t, c.Close())
			},
		},
		{
			reason: "backend_closed", handle: harness.Name("hello"), out: 5,
			use: func(t *testing.T, _ *harness.Balancer, c *net.TCPConn) {
				if got := readAll(t, c); got != "hello" {
					t.Errorf("got %q", got)
				}
				check(t, c.Close())
			},
		},
		{
			reason: "client_reset", handle: harness.Echo, in: 5, out: 5,
			use: func(t *testing.T, _ *harness.Balancer, c *net.TCPConn) {
				check(t, harness.PingPong(c, 1, 5))
				harness.Reset(c)
			},
		},
		{
			reason: "backend_reset", in: 5,
			handle: func(_ context.Context, c *net.TCPConn) {
				_, _ = io.ReadFull(c, make([]byte, 5))
				harness.Reset(c)
			},
			use: func(t *testing.T, _ *harness.Balancer, c *net.TCPConn) {
				check(t, harness.SendAll(c, "hello"))
				expectReset(t, c)
			},
		},
		{
			reason: "idle", handle: harness.Silent, listener: []string{`idle_timeout = "300ms"`}, in: 5,
			use: func(t *testing.T, _ *harness.Balancer, c *net.TCPConn) {
				check(t, harness.SendAll(c, "hello"))
				endOf(t, c)
			},
		},
		{
			reason: "half_close", handle: harness.Silent, listener: []string{`half_close_timeout = "300ms"`}, in: 5,
			use: func(t *testing.T, _ *harness.Balancer, c *net.TCPConn) {
				check(t, harness.SendAll(c, "hello"))
				check(t, c.CloseWrite())
				endOf(t, c)
			},
		},
		{
			reason: "connect_failed", pool: []string{`retries = 0`},
			use: func(t *testing.T, _ *harness.Balancer, c *net.TCPConn) { endOf(t, c) },
		},
		{
			reason: "no_backend", noBackend: true, health: []string{`interval = "1h"`},
			use: func(t *testing.T, _ *harness.Balancer, c *net.TCPConn) { endOf(t, c) },
		},
		{
			reason: "drained", handle: harness.Echo, global: []string{`drain_timeout = "100ms"`}, in: 5, out: 5,
			use: func(t *testing.T, b *harness.Balancer, c *net.TCPConn) {
				check(t, harness.PingPong(c, 1, 5))
				b.Signal(t, syscall.SIGTERM)
				endOf(t, c)
				endsWithZero(t, b)
			},
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			address := harness.FreeAddress(t)
			w := world{Backends: []string{address}, Listener: tc.listener, Pool: tc.pool, Global: tc.global,
				Health: tc.health}
			if tc.handle != nil {
				harness.ServeOn(t, address, tc.handle)
			}
			b := w.start(t)
			client := useSession(t, b, tc.use)
			line := b.WaitLine(t, "end of the session", func(l harness.Line) bool { return l.IsAccess() })
			if client != nil && line.Client != client.String() {
				t.Errorf("expected client %s: %s", client, line.Text)
			}
			checkLine(t, line)
			if line.Reason != tc.reason || line.BytesIn != tc.in || line.BytesOut != tc.out {
				t.Errorf("expected reason %s, %d bytes in and %d out: %s", tc.reason, tc.in, tc.out, line.Text)
			}
			expect := func(field string, has bool) {
				t.Helper()
				if line.Has(field) != has {
					t.Errorf("field %s is there: %t, expected %t: %s", field, line.Has(field), has, line.Text)
				}
			}
			expect("backend", !tc.noBackend)
			expect("backend_address", !tc.noBackend)
			if !tc.noBackend && (line.Backend != "b1" || line.BackendAddress != address) {
				t.Errorf("expected backend b1 at %s: %s", address, line.Text)
			}
			expect("connect_time", !tc.noBackend && tc.handle != nil)
			expect("first_byte_time", tc.out > 0)
			if line.ConnectTime > line.Duration || line.FirstByteTime > line.Duration || line.FirstByteTime < 0 ||
				line.ConnectTime < 0 {
				t.Errorf("a phase took longer than the session: %s", line.Text)
			}
		})
	}
}

// useSession connects and uses the session. A refused client may be reset before connect returns: then it gives no
// address.
func useSession(t *testing.T, b *harness.Balancer, use func(*testing.T, *harness.Balancer, *net.TCPConn)) net.Addr {
	t.Helper()
	c, err := net.DialTimeout("tcp", b.Address(t, "main"), harness.Patience)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	check(t, err)
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
	use(t, b, c.(*net.TCPConn))
	return c.LocalAddr()
}

// checkLine checks what holds for every access line.
func checkLine(t *testing.T, line harness.Line) {
	t.Helper()
	for _, field := range accessFields() {
		if !line.Has(field) {
			t.Errorf("field %s is missing: %s", field, line.Text)
		}
	}
	if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(line.Session) {
		t.Errorf("session id %q is not 16 hexadecimal digits: %s", line.Session, line.Text)
	}
	if line.Level != "info" || line.Listener != "main" || line.Pool != "all" || line.Retries != 0 || line.Duration < 0 {
		t.Errorf("wrong level, listener, pool, retries or duration: %s", line.Text)
	}
}

// TestSessionIDs holds that session ids are unique.
func TestSessionIDs(t *testing.T) {
	t.Parallel()
	b, _ := between(t, harness.CloseAtOnce)
	const sessions = 500
	for range sessions {
		c := b.Dial(t, "main")
		endOf(t, c)
		check(t, c.Close())
	}
	seen := map[string]bool{}
	for _, line := range b.WaitSessions(t, sessions) {
		if seen[line.Session] {
			t.Errorf("session id %s came twice", line.Session)
		}
		seen[line.Session] = true
	}
}

// TestAccessOff holds that access = false omits only the access lines.
func TestAccessOff(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Name("hello"))
	config := world{Backends: []string{backend.Address()}}.config(t)
	b := harness.StartBalancer(t, config+"[log]\naccess = false\n")
	for range 10 {
		c := b.Dial(t, "main")
		readAll(t, c)
		check(t, c.Close())
	}
	b.Signal(t, syscall.SIGTERM) // at its end, all of its log has been read
	endsWithZero(t, b)
	if lines := b.Sessions(); len(lines) > 0 {
		t.Errorf("%d access lines, first %s", len(lines), lines[0].Text)
	}
}

func readAll(t *testing.T, c io.Reader) string {
	t.Helper()
	var b strings.Builder
	_, err := io.Copy(&b, struct{ io.Reader }{c})
	check(t, err)
	return b.String()
}

func expectReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("expected a reset, got %v", err)
	}
}
