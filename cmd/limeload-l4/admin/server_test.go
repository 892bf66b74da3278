package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func listenLoopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	return l
}

// connect opens a connection for a test that speaks HTTP itself.
func (w *world) connect(t testing.TB) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", w.tcp)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	check(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	return c.(*net.TCPConn)
}

// bearer is the header with the token "secret".
const bearer = "Authorization: Bearer secret\r\n"

// TestSlowClients sends each part of a request too slowly. The connection is closed each time, and nothing changes.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	w := start(t, "secret", func(l *limits) {
		l.header, l.request, l.idle = 3*time.Second, 4*time.Second, 3*time.Second
	})
	head := "PATCH " + path1 + " HTTP/1.1\r\nHost: localhost\r\n" + bearer + "Content-Type: application/json\r\n"
	var work sync.WaitGroup
	for name, c := range map[string]struct{ sent, answer string }{
		"nothing":      {"", ""},
		"half a line":  {"PATCH /v1", ""},
		"half a head":  {head, ""},
		"no body":      {head + "Content-Length: 12\r\n\r\n", "HTTP/1.1 408 "},
		"half a body":  {head + "Content-Length: 12\r\n\r\n{\"weight\"", "HTTP/1.1 408 "},
		"half a chunk": {head + "Transfer-Encoding: chunked\r\n\r\nc\r\n{\"wei", "HTTP/1.1 408 "},
		"where none is": {"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n" + bearer + "Content-Length: 5\r\n\r\n",
			"HTTP/1.1 408 "},
		"between two": {"GET /v1/log HTTP/1.1\r\nHost: localhost\r\n" + bearer + "\r\n", "HTTP/1.1 200 "},
	} {
		conn := w.connect(t)
		work.Go(func() { // in parallel, since each takes seconds
			if _, err := io.WriteString(conn, c.sent); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got, err := io.ReadAll(conn) // until the server closes
			if err != nil || !strings.HasPrefix(string(got), c.answer) ||
				c.answer == "" && strings.Contains(string(got), " 200 ") {
				t.Errorf("%s: the answer is %q, %v, expected %q", name, got, err, c.answer)
			}
		})
	}
	work.Wait()
	if done := w.fake.done(); len(done) > 0 {
		t.Errorf("the daemon did %q", done)
	}
}

// TestClientGone closes the connection in the middle of each part of a request.
func TestClientGone(t *testing.T) {
	t.Parallel()
	w := start(t, "secret")
	for _, sent := range []string{
		"", "PATCH", "PATCH " + path1 + " HTTP/1.1\r\nHost: localhost\r\n" + bearer +
			"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"weight\":7",
		"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\n" + bearer +
			"Content-Type: application/toml\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx",
	} {
		for _, reset := range []bool{false, true} {
			conn := w.connect(t)
			_, err := io.WriteString(conn, sent)
			check(t, err)
			if reset {
				check(t, conn.SetLinger(0))
			}
			check(t, conn.Close())
		}
	}
	// half-closed: the client sends nothing more, and still waits for its answer
	conn := w.connect(t)
	_, err := io.WriteString(conn, "GET /v1/log HTTP/1.0\r\n"+bearer+"\r\n")
	check(t, err)
	check(t, conn.CloseWrite())
	if got, err := io.ReadAll(conn); err != nil || !strings.Contains(string(got), `{"level":"info"}`) {
		t.Errorf("half-open: %q, %v", got, err)
	}
	check(t, w.server.Shutdown(t.Context())) // all connections are gone
	if done := w.fake.done(); len(done) > 0 || len(w.fake.plans) > 0 {
		t.Errorf("the daemon did %q and planned %d times", done, len(w.fake.plans))
	}
}

// TestLargeRequests sends more than is accepted.
func TestLargeRequests(t *testing.T) {
	t.Parallel()
	w := start(t, "", func(l *limits) { l.tomlBytes = 2 << 20 })
	header := map[string]string{"Content-Type": mediaTOML}
	if got := w.do(t, request{"POST", "/v1/plan", "", header, strings.Repeat("#", 2<<20)}); got.status != 200 {
		t.Errorf("a body as large as it may be: %d %s", got.status, got.body)
	}
	large := request{"POST", "/v1/plan", "", header, strings.Repeat("#", 2<<20+1)}
	if p := w.do(t, large).problem(t); p.Type != problemBodyTooLarge {
		t.Errorf("a body one byte larger: %s", p.Type)
	}
	if n := len(w.fake.plans); n != 1 || len(w.fake.plans[0].Text) != 2<<20 || w.fake.plans[0].Name != "request" {
		t.Errorf("planned %d times", n)
	}
	conn := w.connect(t)
	// the server does not read all of it, and so resets the connection
	_, err := io.WriteString(conn, "GET /v1/log HTTP/1.1\r\nX: "+strings.Repeat("x", 64<<10))
	check(t, err)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("a large header: %q, %v", line, err)
	}
}

// TestConnectionLimit opens more connections than allowed: the one that is idle for longest is closed.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	w := start(t, "", func(l *limits) { l.connections, l.spares = 2, 1 })
	ask := func(c net.Conn) net.Conn {
		isAnswered(t, c, "/v1/log", 200)
		for !w.rests(c) {
			time.Sleep(time.Millisecond)
		}
		return c
	}
	first, second := ask(w.connect(t)), ask(w.connect(t))
	third := ask(w.connect(t))
	isClosed(t, first) // it has been idle for longest
	ask(second)
	_, err := io.WriteString(second, "GET /v1/log HTTP/1.1\r\nHost: ") // not a complete header
	check(t, err)
	fourth := ask(w.connect(t))
	isClosed(t, third)
	ask(w.connect(t))
	isClosed(t, second)
	ask(w.connect(t))
	isClosed(t, fourth)
}

// TestConnectionSpares has running requests on all connections. Health checks are still answered, also with idle
// clients on the spare places.
func TestConnectionSpares(t *testing.T) {
	t.Parallel()
	w := start(t, "", func(l *limits) { l.connections, l.spares = 2, 2 })
	for range 2 {
		stream := w.connect(t)
		_, err := io.WriteString(stream, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
		check(t, err)
		receive(t, w.fake.began)
	}
	for _, path := range []string{"/live", "/ready"} {
		for range 3 {
			w.connect(t) // and sends nothing
		}
		c := w.connect(t)
		isAnswered(t, c, path, 200)
		isClosed(t, c)
	}
	c := w.connect(t)
	isAnswered(t, c, "/v1/log", 503)
	isClosed(t, c)
}

// TestPlansAtOnce sends more configurations than can be planned at the same time.
func TestPlansAtOnce(t *testing.T) {
	t.Parallel()
	w := start(t, "secret")
	for range cap(w.server.plans) {
		c := w.connect(t)
		_, err := io.WriteString(c,
			"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\n"+bearer+
				"Content-Type: application/toml\r\nContent-Length: 5\r\n\r\n[")
		check(t, err)
	}
	for len(w.server.plans) < cap(w.server.plans) {
		time.Sleep(time.Millisecond)
	}
	header := map[string]string{"Authorization": "Bearer secret", "Content-Type": mediaTOML}
	if p := w.do(t, request{"POST", "/v1/plan", "", header, "[log]"}).problem(t); p.Type != problemTooManyPlans {
		t.Errorf("the problem is %s", p.Type)
	}
}

// TestIdleClients opens three hundred connections that send nothing, and three hundred that send half a request.
func TestIdleClients(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	for _, sent := range []string{"", "GET /v1/log HTTP/1.1\r\nHost: "} {
		for range 300 {
			_, _ = io.WriteString(w.connect(t), sent) // it may be closed already
		}
		for range 10 {
			isAnswered(t, w.connect(t), "/live", 200)
		}
	}
	w.server.clients.mu.Lock()
	defer w.server.clients.mu.Unlock()
	if n := w.server.clients.placed; n != 256 {
		t.Errorf("%d connections are held", n)
	}
}

// rests reports whether the server counts a connection as idle.
func (w *world) rests(c net.Conn) bool {
	w.server.clients.mu.Lock()
	defer w.server.clients.mu.Unlock()
	for _, k := range w.server.clients.all {
		if k.hasPlace && k.conn.RemoteAddr().String() == c.LocalAddr().String() {
			return !k.busy
		}
	}
	return false
}

// isAnswered sends a request for path on a connection, and checks the status.
func isAnswered(t *testing.T, c net.Conn, path string, status int) {
	t.Helper()
	_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	check(t, err)
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	check(t, err)
	if body, err := io.ReadAll(response.Body); response.StatusCode != status || err != nil {
		t.Errorf("%s: %d %s, %v, expected %d", path, response.StatusCode, body, err, status)
	}
}

// isClosed checks that the server closes a connection.
func isClosed(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is open: %d bytes, %v", n, err)
	}
}

// TestShutdown has a running request, idle connections and streams: the request is completed, the others are closed.
func TestShutdown(t *testing.T) {
	t.Parallel()
	// so that none of these closes a connection
	w := start(t, "", func(l *limits) { l.header, l.request, l.idle = time.Hour, time.Hour, time.Hour })
	entered, proceed := make(chan struct{}), make(chan struct{})
	w.fake.reload = func(context.Context) (Reloaded, error) {
		close(entered)
		<-proceed
		return Reloaded{Took: 1}, nil
	}
	silent := w.connect(t)
	// on the same address: when it is answered, the previous one has been accepted too
	resting := newClient(t, w.tcp, "")
	if _, err := resting.LogLevel(t.Context()); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		if r, err := w.client(t, "").Reload(t.Context()); err != nil || r.Took != 1 {
			t.Errorf("the request under way: %+v, %v", r, err)
		}
	})
	receive(t, entered)
	work.Go(func() {
		if err := w.server.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	if _, err := io.ReadAll(silent); err != nil { // closed by Shutdown
		t.Error(err)
	}
	if _, err := os.Stat(w.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file is there still: %v", err)
	}
	close(proceed)
	work.Wait()
	if err := w.server.Serve(listenLoopback(t)); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	late, other := net.Pipe()
	defer other.Close()
	w.server.clients.opened(t.Context(), late)
	w.server.clients.changed(late, http.StateNew)
	if _, err := late.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a connection that comes too late: %v", err)
	}
	w.server.clients.changed(late, http.StateClosed)
}

// TestShutdownCut has a request that only ends when its context does.
func TestShutdownCut(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	entered := make(chan struct{})
	var left atomic.Bool
	w.fake.reload = func(ctx context.Context) (Reloaded, error) {
		close(entered)
		<-ctx.Done()
		<-time.After(50 * time.Millisecond) // it still cleans up, and Shutdown waits for that
		left.Store(true)
		return Reloaded{}, ctx.Err()
	}
	var work sync.WaitGroup
	work.Go(func() {
		if _, err := w.client(t, "").Reload(t.Context()); !errors.Is(err, ErrUnreachable) ||
			!strings.Contains(err.Error(), "is not known") {
			t.Errorf("the request that was cut: %v", err)
		}
	})
	receive(t, entered)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if !left.Load() {
		t.Error("Shutdown has returned before the request")
	}
	work.Wait()
}

// profiling is held by a test that makes a trace or a CPU profile, since a process makes only one of each at a time.
var profiling sync.Mutex

// TestProfileTime makes profiles that take longer than the deadline of other answers.
func TestProfileTime(t *testing.T) {
	t.Parallel()
	profiling.Lock()
	defer profiling.Unlock()
	w := start(t, "secret", func(l *limits) { l.write = 3 * time.Second })
	var work sync.WaitGroup
	for _, target := range []string{"trace?seconds=4", "profile?seconds=4", "mutex?seconds=4"} {
		work.Go(func() {
			q, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
				"http://"+w.tcp+"/debug/pprof/"+target, nil)
			check(t, err)
			q.Header.Set("Authorization", "Bearer secret")
			response, err := http.DefaultClient.Do(q)
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if n, err := io.Copy(io.Discard, response.Body); response.StatusCode != 200 || n == 0 || err != nil {
				t.Errorf("%s: %d and %d bytes, %v", target, response.StatusCode, n, err)
			}
		})
	}
	work.Wait()
}

// TestNoTokenForStrangers serves at an address that other machines can reach.
func TestNoTokenForStrangers(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", ":0")
	check(t, err)
	if err := NewServer(Options{Balancer: newFake()}).Serve(l); err == nil ||
		!strings.Contains(err.Error(), "no token") {
		t.Errorf("Serve: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

// TestLogLine checks the log lines of a change and of a failed one, over both kinds of sockets.
func TestLogLine(t *testing.T) {
	t.Parallel()
	w := start(t, "secret")
	bearer := map[string]string{"Authorization": "Bearer secret"}
	weight := 9
	if _, err := w.client(t, "secret").
		ChangeBackend(t.Context(), "redis", "b1", BackendChange{Weight: &weight}); err != nil {
		t.Fatal(err)
	}
	w.overTCP(t, request{method: "DELETE", target: "/v1/sessions?pool=redis&x=%0a" + strings.Repeat("x", 2000),
		header: bearer})
	bearer["Content-Type"] = mediaJSON
	w.do(t,
		request{"POST", "/v1/pools/redis/backends", "", bearer, `{"address":"` + strings.Repeat("x", 100_000) + `"}`})
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("the log is %q", lines)
	}
	for i, parts := range [][]string{
		{fmt.Sprintf(`"client":"uid %d pid %d"`, os.Getuid(), os.Getpid()), `"level":"info"`,
			`"request":"PATCH ` + path1 + `"`,
			`"body":"{\"weight\":9}"`, `"status":200`, `"message":"admin request"`},
		{`"client":"127.0.0.1:`, `"request":"DELETE /v1/sessions?pool=redis&x=%0axxx`, `"status":400`,
			`"err":"x: there is no such parameter`},
		{`"request":"POST /v1/pools/redis/backends"`, `"status":422`, `"body":"{`},
	} {
		for _, part := range parts {
			if !strings.Contains(lines[i], part) {
				t.Errorf("%s\nhas no %s", lines[i], part)
			}
		}
		if len(lines[i]) > 1500 {
			t.Errorf("a line of %d bytes", len(lines[i]))
		}
	}
}
