package admin

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// startMetrics runs a server of metrics alone on loopback until the test ends. It is given a token, which it ignores.
func startMetrics(t *testing.T, l limits) *world {
	t.Helper()
	w := &world{fake: newFake(), log: &safeBuffer{}}
	w.fake.notReady = io.ErrNoProgress
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "limeload_sessions 2\n")
	})
	w.server = newServer(
		Options{Balancer: w.fake, Metrics: metrics, Token: "secret", Log: zerolog.New(w.log), MetricsOnly: true}, l)
	tcp, err := ListenMetrics(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), false)
	check(t, err)
	w.tcp = tcp.Addr().String()
	w.serve(t, tcp)
	return w
}

// TestMetricsOnly calls every route of the API: three of them are there, for those who read.
func TestMetricsOnly(t *testing.T) {
	t.Parallel()
	w := startMetrics(t, defaultLimits())
	status := map[string]int{"/metrics": 200, "/ready": 503, "/live": 200}
	for _, r := range routes() {
		path := strings.TrimSuffix(r.path, "{$}")
		got := w.overTCP(t, request{method: r.method, target: path})
		if want := status[r.path]; want != 0 {
			if got.status != want {
				t.Errorf("%s: %d %s", path, got.status, got.body)
			}
			continue
		}
		if p := got.problem(t); p.Type != problemNotFound || !strings.Contains(p.Detail, "/metrics, /ready and /live alone") {
			t.Errorf("%s %s: %+v", r.method, path, p)
		}
	}
	for path := range status {
		if got := w.overTCP(t, request{method: "HEAD", target: path}); got.status != status[path] || len(got.body) > 0 {
			t.Errorf("HEAD %s: %d %q", path, got.status, got.body)
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
			got := w.overTCP(t, request{method: method, target: path})
			if p := got.problem(t); p.Type != problemMethod || got.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %+v, Allow is %q", method, path, p, got.header.Get("Allow"))
			}
		}
	}
	if p := w.overTCP(t, request{method: "GET", target: "/metrics?x=1"}).problem(t); p.Type != problemBadRequest {
		t.Errorf("with a parameter: %+v", p)
	}
	if done := w.fake.done(); len(done) > 0 {
		t.Errorf("the daemon did %q", done)
	}
}

// TestMetricsOnlyBounds takes all connections with clients that send nothing, or half a header. Others are served.
func TestMetricsOnlyBounds(t *testing.T) {
	t.Parallel()
	l := defaultLimits()
	l.connections, l.spares = 2, 1
	w := startMetrics(t, l)
	for range 3 {
		idle, half := w.connect(t), w.connect(t)
		_, err := io.WriteString(half, "GET /metrics HTTP/1.1\r\nHost: ")
		check(t, err)
		c := w.connect(t)
		isAnswered(t, c, "/metrics", 200)
		isClosed(t, idle)
	}
	c := w.connect(t)
	_, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	check(t, err)
	if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), "HTTP/1.1 431 ") {
		t.Errorf("a long header: %.100q", got)
	}
}

// TestMetricsListeners holds which clients come to an address, and that a second listener on a socket goes on alone.
func TestMetricsListeners(t *testing.T) {
	t.Parallel()
	dual, err := ListenMetrics(t.Context(), netip.MustParseAddrPort("[::]:0"), true)
	check(t, err)
	_, port, err := net.SplitHostPort(dual.Addr().String())
	check(t, err)
	again, err := Duplicate(dual)
	check(t, err)
	defer again.Close()
	check(t, dual.Close())
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(host, port))
		check(t, err)
		c.Close()
		c, err = again.Accept()
		check(t, err)
		c.Close()
	}
	alone, err := ListenMetrics(t.Context(), netip.MustParseAddrPort("[::]:0"), false)
	check(t, err)
	defer alone.Close()
	_, port, err = net.SplitHostPort(alone.Addr().String())
	check(t, err)
	if c, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", port)); err == nil {
		c.Close()
		t.Error("an IPv4 client reaches [::]")
	}
	if _, err := ListenMetrics(t.Context(), netip.MustParseAddrPort("[::]:"+port), false); err == nil ||
		!strings.HasPrefix(err.Error(), "metrics address ") {
		t.Errorf("an address in use: %v", err)
	}
}
