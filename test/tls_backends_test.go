package test

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// startRedisTLS starts a redis-server that serves TLS only, with the certificate of this name in the authority's
// folder.
func startRedisTLS(t *testing.T, a *authority, name string, more ...string) string {
	t.Helper()
	port := harness.FreePort(t)
	path := filepath.Join(a.dir, name)
	args := []string{"--port", "0", "--tls-port", strconv.Itoa(port), "--tls-cert-file", path + ".crt",
		"--tls-key-file", path + ".key", "--tls-auth-clients", "no"}
	return harness.StartRedisOn(t, port, append(args, more...)...).Address // the later arguments count
}

// redisCLI runs Redis' client against a listener, and returns what it prints.
func redisCLI(t *testing.T, at string, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(at)
	check(t, err)
	stdout, stderr, _ := harness.Run(t, harness.Command{Path: harness.Tool(t, "redis-cli"),
		Args: append([]string{"-h", host, "-p", port}, args...)})
	return strings.TrimSpace(stdout + stderr)
}

// encrypted writes a table tls of a pool.
func encrypted(lines ...string) []string {
	return []string{"[pool.all.tls]\n" + strings.Join(lines, "\n")}
}

// fileKey writes a key whose value is a file in the authority's folder.
func (a *authority) fileKey(key, name string) string {
	return fmt.Sprintf("%s = %q", key, filepath.Join(a.dir, name))
}

// TestTLSToRedis has redis-cli come to Redis servers with TLS, with and without TLS of its own, and the ways in which
// the pool may look at their certificates.
func TestTLSToRedis(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, other := newAuthority(t, dir, "ca"), newAuthority(t, dir, "other")
	ca.pair(t, "redis", ecdsaKey(t), "redis.example.com")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	ca.pair(t, "balancer", ecdsaKey(t))
	other.pair(t, "alien", ecdsaKey(t), "redis.example.com")
	redis := startRedisTLS(t, ca, "redis")
	alien := startRedisTLS(t, other, "alien")
	verify := []string{ca.fileKey("ca", "ca.crt"), `server_name = "redis.example.com"`}

	t.Run("verify", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: []string{redis}, Pool: encrypted(verify...)}.start(t)
		at := b.Address(t, "main")
		for i, want := range []string{"OK", "1", "PONG"} {
			if got := redisCLI(t, at, [][]string{{"set", "a", "1"}, {"get", "a"}, {"ping"}}[i]...); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		now := metrics(t, b)
		full := now[handshakesOf("backend", "1.3", false)]
		resumed := now[handshakesOf("backend", "1.3", true)]
		if full < 1 || resumed < 1 || full+resumed != 3 {
			t.Errorf("%v full handshakes, %v resumed", full, resumed)
		}
	})
	t.Run("both sides", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: []string{redis}, Pool: encrypted(verify...),
			Listener: []string{`profile = "redis"`, tlsTable(ca.pairs("www"))}}.start(t)
		at := b.Address(t, "main")
		trusting := []string{"--tls", "--cacert", filepath.Join(dir, "ca.crt"), "--sni", "www.example.com"}
		big := strings.Repeat("limeload", 1<<13)
		for i, want := range []string{"OK", big, "PONG"} {
			command := [][]string{{"set", "big", big}, {"get", "big"}, {"ping"}}[i]
			if got := redisCLI(t, at, append(trusting, command...)...); got != want {
				t.Errorf("%.200q, want %.20q", got, want)
			}
		}
		if got := redisCLI(t, at, "ping"); strings.Contains(got, "PONG") {
			t.Errorf("without TLS: %q", got)
		}
		if got := redisCLI(t, at, "--tls", "--cacert", filepath.Join(dir, "other.crt"), "ping"); !strings.Contains(got,
			"certificate verify failed") {
			t.Errorf("the client trusts %q", got)
		}
	})
	t.Run("insecure", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: []string{alien}, Pool: encrypted(`mode = "insecure"`)}.start(t)
		if got := redisCLI(t, b.Address(t, "main"), "ping"); got != "PONG" {
			t.Errorf("%q", got)
		}
	})
	t.Run("wrong authority", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: []string{alien}, Pool: encrypted(verify...)}.start(t)
		if got := redisCLI(t, b.Address(t, "main"), "ping"); strings.Contains(got, "PONG") {
			t.Errorf("%q", got)
		}
		line := b.WaitSessions(t, 1)[0]
		if line.Reason != "backend_tls" || !strings.Contains(line.Err, "unknown authority") {
			t.Errorf("%s", line.Text)
		}
	})
	t.Run("wrong name", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: []string{redis}, Pool: encrypted(verify[0], `server_name = "db.example.com"`)}.start(t)
		if got := redisCLI(t, b.Address(t, "main"), "ping"); strings.Contains(got, "PONG") {
			t.Errorf("%q", got)
		}
		line := b.WaitSessions(t, 1)[0]
		if line.Reason != "backend_tls" || !strings.Contains(line.Err, "valid for redis.example.com, not db.example.com") {
			t.Errorf("%s", line.Text)
		}
	})
	t.Run("no TLS there", func(t *testing.T) {
		t.Parallel()
		plain := harness.StartRedis(t)
		b := world{Backends: []string{plain.Address},
			Pool: append([]string{`connect_timeout = "300ms"`}, encrypted(`mode = "insecure"`)...)}.start(t)
		if got := redisCLI(t, b.Address(t, "main"), "ping"); strings.Contains(got, "PONG") {
			t.Errorf("%q", got)
		}
		line := b.WaitSessions(t, 1)[0] // Redis waits for the end of a line
		if line.Reason != "backend_tls" || !strings.Contains(line.Err, "not over within connect_timeout") {
			t.Errorf("%s", line.Text)
		}
		measured(t, b, map[string]float64{failedHandshakes("backend", "timeout"): 1})
	})
	t.Run("another backend", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: []string{alien, redis}, Pool: append([]string{`algorithm = "first"`}, encrypted(verify...)...)}.
			start(t)
		for range 8 {
			if got := redisCLI(t, b.Address(t, "main"), "ping"); got != "PONG" {
				t.Errorf("%q", got)
			}
		}
		lines := b.WaitSessions(t, 8)
		if lines[0].Backend != "b2" || lines[0].Retries != 1 {
			t.Errorf("%s", lines[0].Text)
		}
		opened := b.WaitLine(t, "the breaker opens", func(l harness.Line) bool { return l.Message == harness.MessageBreaker })
		if opened.Backend != "b1" || opened.To != "open" {
			t.Errorf("%s", opened.Text)
		}
		if last := lines[7]; last.Backend != "b2" || last.Retries != 0 {
			t.Errorf("with an open breaker: %s", last.Text)
		}
	})
	t.Run("page", func(t *testing.T) {
		t.Parallel()
		_, part, _ := strings.Cut(string(readFile(t, "../docs/tls.md")), "## TLS to backends")
		config := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(part)
		if config == nil {
			t.Fatal("the page shows no configuration")
		}
		text, guarded := config[1], startRedisTLS(t, ca, "redis", "--tls-auth-clients", "yes", "--tls-ca-cert-file",
			filepath.Join(dir, "ca.crt"))
		check(t, writeFile(filepath.Join(dir, "backends-ca.crt"), readFile(t, filepath.Join(dir, "ca.crt"))))
		for from, to := range map[string]string{
			`":6379"`: fmt.Sprintf("%q", harness.FreeAddress(t)), "10.0.0.31:6379": guarded, "10.0.0.32:6379": redis,
			"/etc/limeload/tls": dir,
		} {
			if !strings.Contains(text, from) {
				t.Fatalf("the configuration has no %s", from)
			}
			text = strings.ReplaceAll(text, from, to)
		}
		b := harness.StartBalancer(t, text)
		for range 4 {
			if got := redisCLI(t, b.Address(t, "cache"), "ping"); got != "PONG" {
				t.Errorf("%q", got)
			}
		}
	})
	t.Run("client certificate", func(t *testing.T) {
		t.Parallel()
		guarded := startRedisTLS(t, ca, "redis", "--tls-auth-clients", "yes", "--tls-ca-cert-file",
			filepath.Join(dir, "ca.crt"))
		shown := append(verify, ca.fileKey("cert", "balancer.crt"), ca.fileKey("key", "balancer.key"))
		b := world{Backends: []string{guarded}, Pool: encrypted(shown...)}.start(t)
		if got := redisCLI(t, b.Address(t, "main"), "ping"); got != "PONG" {
			t.Errorf("%q", got)
		}
		// In TLS 1.3 a server refuses the client's certificate after the handshake.
		b = world{Backends: []string{guarded}, Pool: encrypted(verify...)}.start(t)
		if got := redisCLI(t, b.Address(t, "main"), "ping"); strings.Contains(got, "PONG") {
			t.Errorf("%q without a certificate", got)
		}
		line := b.WaitSessions(t, 1)[0]
		if line.Reason != "backend_reset" && // which may come before its alert is read
			(line.Reason != "backend_lost" || !strings.Contains(line.Err, "certificate required")) {
			t.Errorf("%s", line.Text)
		}
	})
}

// TestTLSNamesToNginx has nginx say which server name it was asked for.
func TestTLSNamesToNginx(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com", "db.example.com", "fallback.example.com")
	nginx := harness.FreeAddress(t)
	path := filepath.Join(ca.dir, "www")
	harness.StartNginxTCP(t, fmt.Sprintf("server { listen %s ssl; ssl_protocols TLSv1.2 TLSv1.3; "+
		"ssl_certificate %s.crt; ssl_certificate_key %s.key; "+
		"return \"<$ssl_server_name> $ssl_protocol\"; }", nginx, path, path), nginx)
	for _, tc := range []struct {
		pool   []string
		client string
		want   string
	}{
		{[]string{`server_name = "sni"`}, "db.example.com", "<db.example.com> TLSv1.3"},
		{[]string{`server_name = "sni"`}, "DB.Example.com", "<db.example.com> TLSv1.3"},
		{[]string{`server_name = "www.example.com"`}, "db.example.com", "<www.example.com> TLSv1.3"},
		{[]string{`server_name = "sni"`}, "other.example.com", ""},
		{[]string{`server_name = "sni"`, `mode = "insecure"`}, "other.example.com", "<other.example.com> TLSv1.3"},
		{[]string{`server_name = "sni"`, `mode = "insecure"`}, "", "<> TLSv1.3"}, // an IP address is not sent
	} {
		lines := tc.pool
		if !strings.Contains(strings.Join(lines, " "), "insecure") {
			lines = append(lines, ca.fileKey("ca", "ca.crt"))
		}
		b := world{Backends: []string{nginx}, Pool: encrypted(lines...), Listener: []string{tlsTable(ca.pairs("www"))}}.
			start(t)
		got, err := textOverTLS(b.Address(t, "main"), tc.client)
		if got != tc.want || tc.want != "" && err != nil {
			t.Errorf("%v, asked for %q: %q, %v, want %q", tc.pool, tc.client, got, err, tc.want)
		}
		if tc.want == "" {
			if line := b.WaitSessions(t, 1)[0]; line.Reason != "backend_tls" {
				t.Errorf("%s", line.Text)
			}
		}
	}
}

// TestTLSBackendAwaited holds that a backend which accepts and never answers the handshake is left after
// connect_timeout, and another one is tried.
func TestTLSBackendAwaited(t *testing.T) {
	t.Parallel()
	silent, speaking := harness.Serve(t, harness.Silent), tlsBackend(t, "speaking")
	b := world{Backends: []string{silent.Address(), speaking.Address()},
		Pool: append([]string{`algorithm = "first"`, `connect_timeout = "3s"`}, // time for a handshake on a busy machine
			encrypted(`mode = "insecure"`)...)}.start(t)
	t.Cleanup(silent.Close)
	c := b.Dial(t, "main")
	check(t, harness.SendAll(c, "GET / HTTP/1.1\r\n\r\n"))
	if got := readAll(t, c); !strings.Contains(got, "speaking") {
		t.Errorf("%q", got)
	}
	check(t, c.Close())
	if line := b.WaitSessions(t, 1)[0]; line.Backend != "b2" || line.Retries != 1 {
		t.Errorf("%s", line.Text)
	}
}
