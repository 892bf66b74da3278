package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A postgresTLS is what tests of Postgres with TLS on both sides of the balancer have in common: certificates, and a
// server that speaks TLS 1.2 only. So the version that psql reports says whether TLS ends at the balancer or at the
// server.
type postgresTLS struct {
	dir    string // with front.crt, back.crt (authorities), roots.crt (both), and NAME.crt and NAME.key as below
	server *harness.Postgres
}

// The names of certificates' files. All are for db.example.com but the client's.
const (
	frontPair  = "listener" // by the authority in front.crt
	backPair   = "server"   // by the authority in back.crt
	clientPair = "client"   // by the authority in front.crt, for the user limeload
)

// postgresAccess are lines of pg_hba.conf: for the superuser, one who must come with TLS, and one with a password.
func postgresAccess() []string {
	return []string{
		"local all all trust", "host all limeload 127.0.0.1/32 trust", "hostssl all tlsonly 127.0.0.1/32 trust",
		"host all scram 127.0.0.1/32 scram-sha-256",
	}
}

func newPostgresTLS(t testing.TB) *postgresTLS {
	t.Helper()
	x := &postgresTLS{dir: t.TempDir(), server: harness.StartPostgres(t)}
	front, back := newAuthority(t, x.dir, "front"), newAuthority(t, x.dir, "back")
	front.pair(t, frontPair, ecdsaKey(t), "db.example.com")
	front.pair(t, clientPair, ecdsaKey(t))
	back.pair(t, backPair, ecdsaKey(t), "db.example.com")
	var roots []byte
	for _, name := range []string{"front.crt", "back.crt"} {
		pem, err := os.ReadFile(x.file(name))
		check(t, err)
		roots = append(roots, pem...)
	}
	check(t, os.WriteFile(x.file("roots.crt"), roots, 0o600))
	x.secure(t, x.server)
	harness.MustRun(t, x.psql(t, x.server.Port, "sslmode=disable",
		"create role tlsonly login", "create role scram login password 'secret'"))
	return x
}

// secure restarts a server with TLS.
func (x *postgresTLS) secure(t testing.TB, server *harness.Postgres) {
	t.Helper()
	server.SecureWith(t, x.file(backPair+".crt"), x.file(backPair+".key"), postgresAccess(),
		"ssl_max_protocol_version = 'TLSv1.2'")
}

func (x *postgresTLS) file(name string) string { return filepath.Join(x.dir, name) }

// listenerTLS is the line of a listener that ends TLS, with further keys such as ", required = false".
func (x *postgresTLS) listenerTLS(more string) string {
	return fmt.Sprintf("tls = { certificates = [{ cert = %q, key = %q }], starttls = \"postgres\"%s }",
		x.file(frontPair+".crt"), x.file(frontPair+".key"), more)
}

// poolTLS is the line of a pool that verifies its backends by the authority in this file.
func (x *postgresTLS) poolTLS(authority string) string {
	return fmt.Sprintf("tls = { ca = %q, server_name = \"db.example.com\", starttls = \"postgres\" }", x.file(authority))
}

// psql returns the command that runs commands. connection has further parameters, and wins.
func (x *postgresTLS) psql(t testing.TB, port, connection string, commands ...string) harness.Command {
	t.Helper()
	args := []string{"-XAtq", "-d", x.connection(port) + " " + connection}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return harness.Command{
		Path: harness.Tool(t, "psql"), Args: args, Env: []string{"LC_ALL=C", "PGPASSWORD=secret", "HOME=" + x.dir},
	}
}

// connection is how libpq finds the port, with a name that it can verify.
func (x *postgresTLS) connection(port string) string {
	return fmt.Sprintf("host=db.example.com hostaddr=127.0.0.1 port=%s user=%s dbname=%s sslrootcert=%s", port,
		x.server.User, x.server.Database, x.file("roots.crt"))
}

// outcome runs psql, and returns the version of TLS on either side, such as "TLSv1.3, plain", or what psql prints if
// it fails.
func (x *postgresTLS) outcome(t *testing.T, port, connection string) string {
	t.Helper()
	const backendSide = "select coalesce(version, 'plain') from pg_stat_ssl where pid = pg_backend_pid()"
	stdout, stderr, code := harness.Run(t, x.psql(t, port, connection, `\conninfo`, backendSide))
	if code != 0 {
		return strings.NewReplacer(`connection to server at "127.0.0.1", port `+port+" failed: ", "", "psql: error: ", "",
			"\n", " / ").Replace(stderr)
	}
	client := "plain"
	if found := regexp.MustCompile(`protocol: (\S+),`).FindStringSubmatch(stdout); found != nil {
		client = found[1]
	}
	lines := strings.Split(stdout, "\n")
	return client + ", " + lines[len(lines)-1]
}

// A grid is a balancer with a listener for each pair of a kind of listener and a kind of pool, named KIND-KIND.
func (x *postgresTLS) grid(t *testing.T, listeners, pools [][2]string) (ports map[string]string) {
	t.Helper()
	var config strings.Builder
	for _, p := range pools {
		fmt.Fprintf(&config, "[pool.%s]\nretries = 0\nbackends = [%q]\n%s\n", p[0], x.server.Address(), p[1])
		for _, l := range listeners {
			fmt.Fprintf(&config, "[listener.%s-%s]\naddress = %q\npool = %q\n%s\n", l[0], p[0],
				harness.FreeAddress(t), p[0], l[1])
		}
	}
	b := harness.StartBalancer(t, config.String())
	ports = make(map[string]string)
	for _, p := range pools {
		for _, l := range listeners {
			name := l[0] + "-" + p[0]
			_, port, _ := strings.Cut(b.Address(t, name), ":")
			ports[name] = port
		}
	}
	return ports
}

// What psql prints in the cells of the matrix, and the versions on the clients' side and the backends'.
const (
	bothPlain   = "plain, plain"
	through     = "TLSv1.2, TLSv1.2" // from the client to the server
	onlyClient  = "TLSv1.3, plain"
	onlyBackend = "plain, TLSv1.2"
	twice       = "TLSv1.3, TLSv1.2" // it ends here, and begins again
	notHere     = "server does not support SSL, but SSL was required"
	mustTLS     = `FATAL:  listener "LISTENER" requires TLS: connect with sslmode=require, or better verify-full`
	distrusted  = `FATAL:  no TLS handshake with a backend of pool "wrong" succeeded`
)

// TestPostgresTLSMatrix runs psql with each sslmode, for each kind of listener and of pool.
func TestPostgresTLSMatrix(t *testing.T) {
	t.Parallel()
	const profile = "profile = \"postgres\"\n"
	x := newPostgresTLS(t)
	ports := x.grid(t, [][2]string{
		{"bare", ""}, {"plain", profile}, {"required", profile + x.listenerTLS("")},
		{"optional", profile + x.listenerTLS(", required = false")},
	}, [][2]string{
		{"off", ""}, {"insecure", `tls = { mode = "insecure", starttls = "postgres" }`},
		{"verify", x.poolTLS("back.crt")}, {"wrong", x.poolTLS("front.crt")},
	})
	for _, tc := range []struct{ listener, disable, prefer, require, verifyFull string }{
		{"bare-off", bothPlain, through, through, through},
		{"bare-insecure", onlyBackend, onlyBackend, notHere, notHere},
		{"bare-verify", onlyBackend, onlyBackend, notHere, notHere},
		{"plain-off", bothPlain, through, through, through},
		{"plain-insecure", onlyBackend, onlyBackend, notHere, notHere},
		{"plain-verify", onlyBackend, onlyBackend, notHere, notHere},
		{"plain-wrong", distrusted, distrusted, notHere, notHere},
		{"required-off", mustTLS, onlyClient, onlyClient, onlyClient},
		{"required-insecure", mustTLS, twice, twice, twice},
		{"required-verify", mustTLS, twice, twice, twice},
		{"required-wrong", mustTLS, distrusted, distrusted, distrusted},
		{"optional-off", bothPlain, onlyClient, onlyClient, onlyClient},
		{"optional-insecure", onlyBackend, twice, twice, twice},
		{"optional-verify", onlyBackend, twice, twice, twice},
		{"optional-wrong", distrusted, distrusted, distrusted, distrusted},
	} {
		for mode, want := range map[string]string{
			"disable": tc.disable, "prefer": tc.prefer, "require": tc.require, "verify-full": tc.verifyFull,
		} {
			want = strings.ReplaceAll(want, "LISTENER", tc.listener)
			if got := x.outcome(t, ports[tc.listener], "sslmode="+mode); got != want {
				t.Errorf("%s, sslmode=%s: %q, want %q", tc.listener, mode, got, want)
			}
		}
	}

	// A server that wants TLS from this user sees whether the balancer's connection has it, and not the client's.
	const noEntry = `FATAL:  no pg_hba.conf entry for host "127.0.0.1", user "tlsonly", database "postgres", ` +
		"no encryption"
	for listener, want := range map[string]string{
		"plain-off": through, "required-off": noEntry, "required-verify": twice,
	} {
		if got := x.outcome(t, ports[listener], "user=tlsonly sslmode=require"); got != want {
			t.Errorf("%s, hostssl: %q, want %q", listener, got, want)
		}
	}
	if got := x.outcome(t, ports["plain-verify"], "user=tlsonly sslmode=disable"); got != onlyBackend {
		t.Errorf("without TLS, hostssl: %q", got)
	}
	const unknown = "SSL error: certificate verify failed"
	for _, roots := range []string{"front.crt", "back.crt"} {
		want := map[string]string{"front.crt": twice, "back.crt": unknown}[roots]
		connection := "sslmode=verify-full sslrootcert=" + x.file(roots)
		if got := x.outcome(t, ports["required-verify"], connection); got != want {
			t.Errorf("%s: %q, want %q", roots, got, want)
		}
	}
	connection := "sslmode=verify-full host=other.example.com"
	if got := x.outcome(t, ports["required-verify"], connection); !strings.Contains(got,
		`server certificate for "db.example.com" does not match host name "other.example.com"`) {
		t.Errorf("another name: %q", got)
	}
}

// TestPostgresChannelBinding logs in with a password (SCRAM). Channel binding binds a login to the certificate that the
// client sees, so it works through to the server, and behind a listener that has the server's certificate.
func TestPostgresChannelBinding(t *testing.T) {
	t.Parallel()
	const profile = "profile = \"postgres\"\n"
	x := newPostgresTLS(t)
	ports := x.grid(t, [][2]string{
		{"plain", profile}, {"own", profile + x.listenerTLS(", required = false")},
		{"same", profile + strings.ReplaceAll(x.listenerTLS(""), frontPair+".", backPair+".")},
	}, [][2]string{{"off", ""}, {"verify", x.poolTLS("back.crt")}})
	const (
		noTLS      = "channel binding required, but SSL not in use"
		notOffered = "channel binding is required, but server did not offer an authentication method that supports " +
			"channel binding"
		failed = "FATAL:  SCRAM channel binding check failed"
	)
	for _, tc := range []struct{ listener, sslmode, disable, prefer, require string }{
		{"plain-off", "disable", bothPlain, bothPlain, noTLS},
		{"plain-off", "require", through, through, through},
		{"plain-verify", "disable", onlyBackend, onlyBackend, noTLS},
		{"own-off", "disable", bothPlain, bothPlain, noTLS},
		{"own-off", "require", onlyClient, onlyClient, notOffered},
		{"own-verify", "disable", onlyBackend, onlyBackend, noTLS},
		{"own-verify", "require", twice, failed, failed},
		{"same-off", "require", onlyClient, onlyClient, notOffered},
		{"same-verify", "require", twice, twice, twice},
	} {
		for binding, want := range map[string]string{
			"disable": tc.disable, "prefer": tc.prefer, "require": tc.require,
		} {
			connection := fmt.Sprintf("user=scram sslmode=%s channel_binding=%s", tc.sslmode, binding)
			if got := x.outcome(t, ports[tc.listener], connection); got != want {
				t.Errorf("%s, %s: %q, want %q", tc.listener, connection, got, want)
			}
		}
	}
}
