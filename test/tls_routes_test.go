package test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// tlsBackend serves TLS with a certificate whose subject is the backend's name, and answers every request with that
// name, the server name and the protocol of the connection.
func tlsBackend(t testing.TB, name string) *harness.Backend {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	config := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{"http/1.1", "postgresql"},
	}
	return harness.Serve(t, func(ctx context.Context, raw *net.TCPConn) {
		c := tls.Server(raw, config)
		if c.HandshakeContext(ctx) != nil {
			return
		}
		request := make([]byte, 4096)
		if _, err := c.Read(request); err != nil {
			return
		}
		state := c.ConnectionState()
		text := fmt.Sprintf("%s %s %s\n", name, state.ServerName, state.NegotiatedProtocol)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
}

// askTLS connects to an address, and returns what the backend answers.
func askTLS(address, name string, protocols ...string) (string, error) {
	dialer := &net.Dialer{Timeout: harness.Patience}
	c, err := tls.DialWithDialer(dialer, "tcp", address,
		&tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protocols})
	if err != nil {
		return "", err
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\n\r\n")
	answer, err := io.ReadAll(c)
	_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	return strings.TrimSpace(body), err
}

// TestTLSPage runs the configuration of docs/tls.md with real clients, and what the page shows of it: curl, openssl,
// psql, and Go's client, which sends post-quantum key shares.
func TestTLSPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/tls.md")
	check(t, err)
	config := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(string(page))
	if config == nil {
		t.Fatal("the page shows no configuration")
	}
	web, postgres := tlsBackend(t, "web"), tlsBackend(t, "postgres")
	places := []string{`":443"`, fmt.Sprintf("%q", harness.FreeAddress(t)), `"10.0.0.11:443", "10.0.0.12:443"`,
		fmt.Sprintf("%q", web.Address()), `"10.0.0.21:5432"`, fmt.Sprintf("%q", postgres.Address())}
	for i := 0; i < len(places); i += 2 {
		if !strings.Contains(config[1], places[i]) {
			t.Fatalf("the page's configuration has no %s", places[i])
		}
	}
	b := harness.StartBalancer(t, strings.NewReplacer(places...).Replace(config[1]))
	at := b.Address(t, "tls")

	t.Run("go", func(t *testing.T) {
		for _, tt := range []struct{ name, protocol, want string }{
			{"www.example.com", "http/1.1", "web www.example.com http/1.1"},
			{"WWW.Example.com", "http/1.1", "web WWW.Example.com http/1.1"},
			{"a.b.apps.example.com", "http/1.1", "web a.b.apps.example.com http/1.1"},
			{"db.example.com", "postgresql", "postgres db.example.com postgresql"},
			{"db.example.com", "http/1.1", "unrecognized name"},
			{"apps.example.com", "http/1.1", "unrecognized name"},
			{"other.example.com", "http/1.1", "unrecognized name"},
			{"", "http/1.1", "unrecognized name"},
		} {
			got, err := askTLS(at, tt.name, tt.protocol)
			if err != nil {
				got = err.Error()
			}
			if !strings.HasSuffix(got, tt.want) {
				t.Errorf("%q with %q: %q, want %q", tt.name, tt.protocol, got, tt.want)
			}
		}
	})
	t.Run("curl", func(t *testing.T) { curlTLS(t, b, at, string(page)) })
	t.Run("openssl", func(t *testing.T) {
		client := func(args ...string) string {
			stdout, stderr, _ := harness.Run(t, harness.Command{Path: harness.Tool(t, "openssl"),
				Args: append([]string{"s_client", "-connect", at}, args...)})
			return stdout + stderr
		}
		for _, tt := range [][]string{
			{"CN = web", "-servername", "www.example.com", "-tls1_2"},
			{"CN = web", "-servername", "x.apps.example.com", "-tls1_3"},
			{"CN = postgres", "-servername", "db.example.com", "-alpn", "x,postgresql"},
			{"ALPN protocol: postgresql", "-servername", "db.example.com", "-alpn", "x,postgresql"},
			{"unrecognized name", "-servername", "db.example.com", "-alpn", "h2"},
			{"unrecognized name", "-servername", "other.example.com"},
			{"unrecognized name", "-noservername", "-tls1_2"},
		} {
			if got := client(tt[1:]...); !strings.Contains(strings.ReplaceAll(got, "CN=", "CN = "), tt[0]) {
				t.Errorf("%v: want %q in\n%s", tt[1:], tt[0], got)
			}
		}
	})
	t.Run("psql", func(t *testing.T) {
		for _, mode := range []string{"disable", "prefer", "require"} {
			host, port, _ := net.SplitHostPort(at)
			_, stderr, code := harness.Run(t, harness.Command{Path: harness.Tool(t, "psql"),
				Args: []string{fmt.Sprintf("host=%s port=%s sslmode=%s user=x dbname=x", host, port, mode)}})
			if code == 0 || !strings.Contains(stderr, "failed: Connection reset by peer") &&
				!strings.Contains(stderr, "server closed the connection unexpectedly") {
				t.Errorf("%s: exit code %d, %s", mode, code, stderr)
			}
		}
	})
	for reason, least := range map[string]int{"no_route": 8, "not_tls": 3} {
		if n := refusals(t, b, reason); n < least {
			t.Errorf("%d refusals with %s, want %d", n, reason, least)
		}
	}
	explains := regexp.MustCompile(`(?m)^\$ limeload-l4 (explain .*)\n(.*)$`)
	for _, shown := range explains.FindAllStringSubmatch(string(page), -1) {
		stdout, stderr, code := b.Command(t, strings.Fields(shown[1])...)
		line, _, _ := strings.Cut(strings.ReplaceAll(stdout, postgres.Address(), "10.0.0.21:5432"), "\n")
		if strings.ReplaceAll(line, "b1 (", "10.0.0.21:5432 (") != shown[2] || code != 0 {
			t.Errorf("%s: exit code %d, %q, want %q; %s", shown[1], code, line, shown[2], stderr)
		}
	}
}

// curlTLS lets curl come to the pool web, and be refused as the page shows it.
func curlTLS(t *testing.T, b *harness.Balancer, at, page string) {
	host, port, _ := net.SplitHostPort(at)
	curl := func(name string) (stdout, stderr string, code int) {
		return harness.Run(t, harness.Command{Path: harness.Tool(t, "curl"), Args: []string{"--silent", "--show-error",
			"--insecure", "--resolve", fmt.Sprintf("%s:%s:%s", name, port, host),
			fmt.Sprintf("https://%s:%s/", name, port)}})
	}
	if got, stderr, _ := curl("www.example.com"); strings.TrimSpace(got) != "web www.example.com http/1.1" {
		t.Errorf("got %q, %s", got, stderr)
	}
	shown := regexp.MustCompile(`(?m)^curl: .*$`).FindString(page)
	version := regexp.MustCompile(`OpenSSL/[0-9.]+: `)
	_, stderr, code := curl("other.example.com")
	got := strings.TrimSpace(stderr)
	if code != 35 || version.ReplaceAllString(got, "") != version.ReplaceAllString(shown, "") {
		t.Errorf("exit code %d, %q; the page shows %q", code, got, shown)
	}
}

// refusals returns how many clients were refused for a reason.
func refusals(t *testing.T, b *harness.Balancer, reason string) int {
	t.Helper()
	var answer struct {
		Listeners []struct{ Ended map[string]int }
	}
	b.Ask(t, "GET", "/v1/listeners", nil, &answer)
	return answer.Listeners[0].Ended[reason]
}

// TestTLSRoutesReload changes routes while a session goes on, and removes a backend of a pool that only a route names.
func TestTLSRoutesReload(t *testing.T) {
	t.Parallel()
	one, two := harness.Serve(t, harness.Name("one")), harness.Serve(t, harness.Name("two"))
	three, four := harness.Serve(t, harness.Echo), harness.Serve(t, harness.Echo)
	listen := harness.FreeAddress(t)
	config := func(pool, backends string) string {
		return fmt.Sprintf("[listener.main]\naddress = %q\npool = 'one'\n"+
			"routes = [{ sni = ['*.example.com'], pool = %q }]\n[pool.one]\nbackends = [%q]\n"+
			"[pool.two]\nbackends = [%q]\n[pool.three]\nbackends = %s\non_remove = 'close'\n",
			listen, pool, one.Address(), two.Address(), backends)
	}
	both := harness.BackendList(three.Address(), four.Address())
	b := harness.StartBalancer(t, config("three", both))
	hello := goHello(t, "a.example.com")
	echoes := b.Dial(t, "main") // one of two sessions has the backend that is removed
	other := b.Dial(t, "main")
	for _, c := range []net.Conn{echoes, other} {
		_, err := c.Write(hello)
		check(t, err)
	}
	harness.Eventually(t, "both sessions have their backends", func() error {
		var list struct {
			Sessions []struct{ Pool, Backend, Phase string }
		}
		b.Ask(t, "GET", "/v1/sessions", nil, &list)
		for _, s := range list.Sessions {
			if s.Pool != "three" || s.Phase != "relaying" {
				return fmt.Errorf("%+v", list)
			}
		}
		if len(list.Sessions) != 2 {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	b.Configure(t, config("two", both))
	stdout, _, _ := b.Command(t, "plan")
	if !strings.Contains(stdout, "listener main: changed") || !strings.Contains(stdout, "routes") {
		t.Errorf("the plan is\n%s", stdout)
	}
	b.Reload(t, config("two", both))
	c := b.Dial(t, "main")
	_, err := c.Write(hello)
	check(t, err)
	if got := make([]byte, 3); readFull(c, got) != nil || string(got) != "two" {
		t.Errorf("a new session gets %q", got)
	}
	_, err = echoes.Write([]byte("still there"))
	check(t, err)
	b.Reload(t, config("three", harness.BackendList(four.Address())))
	line := b.WaitLine(t, "a session ends with its backend", func(l harness.Line) bool {
		return l.Reason == "backend_removed"
	})
	if line.Pool != "three" {
		t.Errorf("%+v", line)
	}
}

func readFull(c net.Conn, p []byte) error {
	_, err := io.ReadFull(c, p)
	return err
}

// goHello returns the ClientHello of Go's client.
func goHello(t testing.TB, name string) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() // ends with the pipe
	hello := make([]byte, 16<<10)
	n, err := server.Read(hello)
	check(t, err)
	return hello[:n]
}

// TestTLSHashSNI holds that all sessions for one name go to one backend, whoever the client is, and that the names
// spread over the backends.
func TestTLSHashSNI(t *testing.T) {
	t.Parallel()
	var addresses []string
	for _, name := range []string{"a", "b", "c"} {
		addresses = append(addresses, tlsBackend(t, name).Address())
	}
	b := harness.StartBalancer(t, fmt.Sprintf("[listener.main]\naddress = %q\n"+
		"routes = [{ sni = ['*'], pool = 'all' }]\n[pool.all]\nalgorithm = 'client_hash'\nhash_key = 'sni'\nbackends = %s\n",
		harness.FreeAddress(t), harness.BackendList(addresses...)))
	at := b.Address(t, "main")
	spread := make(map[string]bool)
	for i := range 20 {
		name := fmt.Sprintf("tenant%d.example.com", i)
		var first string
		for range 3 {
			got, err := askTLS(at, name)
			check(t, err)
			if first == "" {
				first = got
			}
			if got != first {
				t.Errorf("%s comes to %q and to %q", name, first, got)
			}
		}
		spread[first[:1]] = true
		stdout, _, _ := b.Command(t, "explain", "--sni", strings.ToUpper(name), "192.0.2.9")
		want := fmt.Sprintf("would get b%d ", 1+strings.IndexByte("abc", first[0]))
		if !strings.Contains(stdout, want) {
			t.Errorf("%s: want %q in %s", name, want, stdout)
		}
	}
	if len(spread) != 3 {
		t.Errorf("20 names come to %d of 3 backends", len(spread))
	}
}

// TestTLSRoutesBesideNginx compares the choice with that of nginx's ssl_preread, whose map has the same names.
func TestTLSRoutesBesideNginx(t *testing.T) {
	t.Parallel()
	exact, wide := tlsBackend(t, "exact"), tlsBackend(t, "wide")
	long, rest := tlsBackend(t, "long"), tlsBackend(t, "rest")
	listen := harness.FreeAddress(t)
	b := harness.StartBalancer(t, fmt.Sprintf(`
[listener.main]
address = %q
pool = "rest"
routes = [
  { sni = ["*.example.com"], pool = "wide" },
  { sni = ["*.db.example.com"], pool = "long" },
  { sni = ["www.example.com", "example.com"], pool = "exact" },
]
[pool.rest]
backends = [%q]
[pool.wide]
backends = [%q]
[pool.long]
backends = [%q]
[pool.exact]
backends = [%q]
`, listen, rest.Address(), wide.Address(), long.Address(), exact.Address()))
	nginx := harness.StartNginxPreread(t, fmt.Sprintf("*.example.com %s; *.db.example.com %s; www.example.com %s; "+
		"example.com %s; default %s;", wide.Address(), long.Address(), exact.Address(), exact.Address(), rest.Address()))
	for _, name := range []string{"www.example.com", "WWW.EXAMPLE.com", "example.com", "a.example.com",
		"a.b.example.com", "db.example.com", "a.db.example.com", "a.b.db.example.com", "xdb.example.com", "example.org", "com", "localhost", ""} {
		ours, err := askTLS(b.Address(t, "main"), name)
		check(t, err)
		theirs, err := askTLS(nginx.Address, name)
		check(t, err)
		if ours != theirs {
			t.Errorf("%q comes to %q, with nginx to %q", name, ours, theirs)
		}
	}
}
