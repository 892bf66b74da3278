package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/test/harness"
)

// A tlsFolder has files of TLS.
type tlsFolder struct {
	t       *testing.T
	dir     string
	address string // for a listener
}

func newTLSFolder(t *testing.T) tlsFolder {
	return tlsFolder{t, t.TempDir(), harness.FreeAddress(t)}
}

func (f tlsFolder) path(name string) string { return filepath.Join(f.dir, name) }

// write replaces a file as careful programs do.
func (f tlsFolder) write(name string, data []byte) {
	f.t.Helper()
	err := os.WriteFile(f.path(name+".new"), data, 0o600)
	if err == nil {
		err = os.Rename(f.path(name+".new"), f.path(name))
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// newPair makes a certificate that signs itself, and its key.
func newPair(t *testing.T, name string, life time.Duration) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(life), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// pair writes a certificate and its key to NAME.crt and NAME.key.
func (f tlsFolder) pair(file, name string) {
	f.t.Helper()
	cert, key := newPair(f.t, name, time.Hour)
	f.write(file+".crt", cert)
	f.write(file+".key", key)
}

// TestCheckFilesOfTLS holds that mistakes in files of TLS are found with the line of their key.
func TestCheckFilesOfTLS(t *testing.T) {
	f := newTLSFolder(t)
	f.pair("a", "a.test")
	f.pair("b", "b.test")
	late, lateKey := newPair(t, "late.test", -time.Hour)
	f.write("late.crt", late)
	f.write("late.key", lateKey)
	f.write("text", []byte("x"))
	f.write("empty", nil)
	f.write("a.crt.ocsp", []byte("x"))
	file := f.path("lb.toml")
	in := func(name string) string { return fmt.Sprintf("%q", f.path(name)) }
	for _, tt := range []struct{ listener, pool, err, warning string }{
		{`certificates = [{ cert = "b.crt", key = "b.key" }]`, ``, ``, ``},
		{`certificates = [{ cert = "b.crt", key = "a.key" }]`, ``,
			`5: listener.a.tls.certificates[0].key: ` + in("a.key") + `: it is not the key of the certificate for "CN=b.test"`, ``},
		{`certificates = [{ cert = "b.crt", key = "b.key" }, { cert = "none", key = "b.key" }]`, ``,
			`5: listener.a.tls.certificates[1].cert: ` + in("none") + `: no such file or directory`, ``},
		{`certificates = [{ cert = "late.crt", key = "late.key" }]`, ``, ``,
			`5: listener.a.tls.certificates[0].cert: ` + in("late.crt") + `: the certificate of "CN=late.test" has expired on 20`},
		{`certificates = [{ cert = "a.crt", key = "a.key" }]`, ``, ``,
			`5: listener.a.tls.certificates[0].cert: ` + in("a.crt.ocsp") + `: not sent to clients: the certificate's file has no`},
		{`certificates = [{ cert = "b.crt", key = "b.key" }], client_auth = "required", client_ca = "text"`, ``,
			`5: listener.a.tls.client_ca: ` + in("text") + `: there is no certificate in it: needs a PEM file`, ``},
		{`certificates = [{ cert = "b.crt", key = "b.key" }], client_auth = "required", client_ca = "b.crt", client_crl = "empty"`, ``,
			`5: listener.a.tls.client_crl: ` + in("empty") + `: there is no revocation list in it: needs a PEM file`, ``},
		{`certificates = [{ cert = "b.crt", key = "b.key" }], ticket_key_file = "empty"`, ``,
			`5: listener.a.tls.ticket_key_file: ` + in("empty") + ": there is no key in it: make one with `openssl rand -base64 32`", ``},
		{`certificates = [{ cert = "b.crt", key = "b.key" }]`, `ca = "empty"`,
			`8: pool.p.tls.ca: ` + in("empty") + `: there is no certificate in it: needs a PEM file`, ``},
		{`certificates = [{ cert = "b.crt", key = "b.key" }]`, `cert = "a.crt", key = "b.key"`,
			`8: pool.p.tls.key: ` + in("b.key") + `: it is not the key of the certificate for "CN=a.test"`, ``},
		{`certificates = [{ cert = "b.crt", key = "b.key" }]`, `cert = "a.crt", key = "a.key", ca = "late.crt"`, ``,
			`8: pool.p.tls.ca: ` + in("late.crt") + `: the certificate of "CN=late.test" has expired on 20`},
	} {
		cfg, err := conf.Parse(file, fmt.Appendf(nil, "[admin]\naddress = ''\n[listener.a]\naddress = '127.0.0.1:1'\n"+
			"tls = { %s }\npool = 'p'\n[pool.p]\ntls = { %s }\nbackends = ['127.0.0.1:2']\n", tt.listener, tt.pool))
		if err != nil {
			t.Fatal(err)
		}
		warnings, err := Check(t.Context(), cfg)
		got := ""
		if err != nil {
			got = strings.TrimPrefix(err.Error(), file+":")
		}
		if got != tt.err {
			t.Errorf("%s %s: got\n%s, want\n%s", tt.listener, tt.pool, got, tt.err)
		}
		if tt.warning == "" && len(warnings) > 0 || tt.warning != "" &&
			(len(warnings) != 1 || !strings.HasPrefix(warnings[0], file+":"+tt.warning)) {
			t.Errorf("%s %s: warnings %q, want %q", tt.listener, tt.pool, warnings, tt.warning)
		}
	}
}

// TestTLSSettings holds what the tables tls mean for the data plane.
func TestTLSSettings(t *testing.T) {
	cfg, err := conf.Parse("lb.toml", []byte(`[listener.a]
address = ':1'
pool = 'p'
[listener.a.tls]
certificates = [{ cert = "a", key = "b" }]
min_version = "1.3"
strict_sni = true
client_auth = "optional"
client_ca = "ca"
starttls = "postgres"
handshake_timeout = "1s"
[pool.p]
backends = ['10.0.0.1:1', 'db.test:2', '[::ffff:10.0.0.3]:3']
[pool.p.discovery]
type = "dns"
name = "found.test"
port = 1
[pool.p.tls]
server_name = "sni"
starttls = "postgres"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := l4.TLSServerSettings{MinVersion: 0x304, MaxVersion: 0x304, StrictNames: true,
		ClientAuth: l4.TLSClientAuthOptional, ALPN: []string{"postgresql"}, StartTLS: true, Required: true,
		HandshakeTimeout: time.Second, KernelTLS: true}
	if got := serverSettings(&cfg.Listeners[0]); !got.Equal(&want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c := &cfg.Pools[0]
	if got, want := clientSettings(c), (l4.TLSClientSettings{Verify: true, FromClient: true, StartTLS: true,
		DefaultName: "found.test", KernelTLS: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c.Backends[1].Addr = netip.MustParseAddrPort("10.0.0.2:2")
	names := backendNames(c)
	if len(names) != 3 || names[c.Backends[0].Addr] != "10.0.0.1" || names[c.Backends[1].Addr] != "db.test" ||
		names[netip.MustParseAddrPort("10.0.0.3:3")] != "10.0.0.3" {
		t.Errorf("names %v", names)
	}
	c.TLS.Mode, c.TLS.ServerName, c.Discovery = "insecure", "x.test", nil
	if got, want := clientSettings(c), (l4.TLSClientSettings{ServerName: "x.test", StartTLS: true, KernelTLS: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// tlsTables are tables of a listener and a pool with the files of a folder.
func tlsTables(f tlsFolder, more string) string {
	return fmt.Sprintf(`
[listener.secure]
address = %q
pool = "secure"
[listener.secure.tls]
certificates = [{ cert = %q, key = %q }]
%s
[pool.secure]
backends = ["127.0.0.1:9"]
[pool.secure.tls]
ca = %q
`, f.address, f.path("live/a.crt"), f.path("live/a.key"), more, f.path("live/a.crt"))
}

// shows returns the names of the certificate that a listener has.
func (l *liveDaemon) shows(listener string) string {
	s := l.securedNow().servers[listener]
	if s == nil {
		return "no TLS"
	}
	return strings.Join(s.Certificates()[0].Names, " ")
}

// eventually waits until a listener shows a certificate.
func (l *liveDaemon) eventually(what string, is func() bool) {
	l.t.Helper()
	for limit := time.Now().Add(harness.Patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			l.t.Fatalf("not in time: %s", what)
		}
	}
}

// TestFollowsFilesOfTLS changes files in the ways of Kubernetes, certbot and careless programs, under a running daemon.
func TestFollowsFilesOfTLS(t *testing.T) {
	f := newTLSFolder(t)
	version := func(n int, name string) {
		t.Helper()
		folder := fmt.Sprintf("v%d", n)
		if err := os.Mkdir(f.path(folder), 0o700); err != nil {
			t.Fatal(err)
		}
		f.pair(folder+"/a", name)
		_ = os.Remove(f.path("live.new"))
		if err := os.Symlink(folder, f.path("live.new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(f.path("live.new"), f.path("live")); err != nil {
			t.Fatal(err)
		}
	}
	version(1, "one.test")
	l := runDaemon(t, "", tlsTables(f, ""))
	server, client := l.securedNow().servers["secure"], l.securedNow().clients["secure"]
	before := client.Config("", netip.MustParseAddrPort("127.0.0.1:9"))
	shows := func(want string) {
		t.Helper()
		l.eventually(want, func() bool { return l.shows("secure") == want })
	}
	shows("one.test")
	version(2, "two.test") // the folder of the files is replaced
	shows("two.test")
	f.pair("live/a", "three.test") // by renames, one after the other
	shows("three.test")
	cert, key := newPair(t, "four.test", time.Hour) // in place, with a pause in between
	if err := os.WriteFile(f.path("live/a.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if got := l.shows("secure"); got != "three.test" {
		t.Errorf("half a pair is taken up: %s", got)
	}
	if err := os.WriteFile(f.path("live/a.crt"), cert, 0o600); err != nil {
		t.Fatal(err)
	}
	shows("four.test")
	l.mu.RLock()
	r := l.tlsReloads
	l.mu.RUnlock()
	if r.failed != 0 || r.failing || r.done < 6 {
		t.Errorf("%+v", r)
	}
	if s := l.securedNow(); s.servers["secure"] != server || s.clients["secure"] != client ||
		client.Config("", netip.MustParseAddrPort("127.0.0.1:9")) == before {
		t.Error("the server or the client is another, or the client has the authorities of before")
	}
	plan, err := l.Plan(t.Context(), nil)
	if err != nil || !plan.Same {
		t.Errorf("a plan after that: error %v, %+v", err, plan)
	}

	f.write("live/a.key", []byte("broken"))
	l.eventually("a failure", func() bool {
		l.mu.RLock()
		defer l.mu.RUnlock()
		return l.tlsReloads.failing
	})
	if got := l.shows("secure"); got != "four.test" {
		t.Errorf("a broken file is taken up: %s", got)
	}
	if families := scrape(t, l.metrics, textForm); families["limeload_tls_reload_failure"].GetMetric()[0].GetGauge().GetValue() != 1 {
		t.Error("the metric does not say so")
	}
	f.write("live/a.key", key) // as before
	l.eventually("no failure", func() bool {
		l.mu.RLock()
		defer l.mu.RUnlock()
		return !l.tlsReloads.failing
	})
}

// TestReloadOfTLS changes the configuration of TLS, with and without mistakes.
func TestReloadOfTLS(t *testing.T) {
	f := newTLSFolder(t)
	if err := os.Mkdir(f.path("live"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.pair("live/a", "one.test")
	l := runDaemon(t, "", tlsTables(f, ""))
	server, client := l.securedNow().servers["secure"], l.securedNow().clients["secure"]
	if _, err := l.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := l.securedNow(); s.servers["secure"] != server || s.clients["secure"] != client {
		t.Error("a reload without changes makes another server or client")
	}
	s, err := l.served("secure")
	if err != nil || s.pool.Secure() != any(client) {
		t.Errorf("the pool has %v, error %v", s.pool.Secure(), err)
	}
	fate := func(p admin.Plan, name string) string {
		i := slices.IndexFunc(p.Listeners, func(c admin.ListenerChange) bool { return c.Name == name })
		return p.Listeners[i].What
	}
	l.configure(tlsTables(f, "strict_sni = true"))
	plan, err := l.Plan(t.Context(), nil)
	if err != nil || fate(plan, "secure") != "changed" {
		t.Errorf("error %v, plan %+v", err, plan)
	}
	if l.securedNow().servers["secure"] != server {
		t.Error("a plan changes something")
	}
	if _, err := l.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.securedNow().servers["secure"] == server {
		t.Error("other settings do not make another server")
	}
	server = l.securedNow().servers["secure"]
	l.configure(tlsTables(f, "strict_sni = true\nticket_key_file = 'none'"))
	_, err = l.Reload(t.Context())
	if err == nil || !strings.Contains(err.Error(), "listener.secure.tls.ticket_key_file") || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("error %v", err)
	}
	if l.securedNow().servers["secure"] != server {
		t.Error("a failed reload changes something")
	}
	// A configuration of a request must not read other files.
	text := fmt.Sprintf("[listener.x]\naddress = '127.0.0.1:1'\npool = 'p'\ntls = { certificates = [{ cert = %q, key = '/etc/hostname' }] }\n"+
		"[pool.p]\nbackends = ['127.0.0.1:9']\n", f.path("live/a.crt"))
	plan, err = l.Plan(t.Context(), &admin.Configuration{Name: "other.toml", Text: []byte(text)})
	if err != nil || !slices.ContainsFunc(plan.Warnings, func(w string) bool {
		return strings.Contains(w, `listener.x.tls.certificates[0].key: "/etc/hostname" is not read for a plan`)
	}) {
		t.Errorf("error %v, warnings %q", err, plan.Warnings)
	}
	l.configure("")
	if _, err := l.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := l.shows("secure"); got != "no TLS" {
		t.Errorf("the listener is gone, and has %s", got)
	}
}

// TestCertificateMetrics holds that the times of expiry are those of the files.
func TestCertificateMetrics(t *testing.T) {
	f := newTLSFolder(t)
	if err := os.Mkdir(f.path("live"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.pair("live/a", "one.test")
	tables := strings.Replace(tlsTables(f, ""), "[pool.secure.tls]", fmt.Sprintf("[pool.secure.tls]\ncert = %q\nkey = %q",
		f.path("live/a.crt"), f.path("live/a.key")), 1)
	l := runDaemon(t, "", tables)
	families := scrape(t, l.metrics, textForm)
	for _, name := range []string{"limeload_tls_certificate_not_after_seconds", "limeload_tls_client_certificate_not_after_seconds"} {
		m := families[name].GetMetric()
		if len(m) != 1 || m[0].GetLabel()[0].GetValue() != f.path("live/a.crt") ||
			time.Until(time.Unix(int64(m[0].GetGauge().GetValue()), 0)).Round(time.Minute) != time.Hour {
			t.Errorf("%s: %v", name, m)
		}
	}
	found := l.Status().Certificates
	if len(found) != 2 || found[0].Listener != "secure" || found[0].Pool != "" || found[1].Pool != "secure" {
		t.Fatalf("the API has the certificates %+v", found)
	}
	for _, c := range found {
		if c.Name != f.path("live/a.crt") || time.Until(c.NotAfter).Round(time.Minute) != time.Hour {
			t.Errorf("the API has the certificate %+v", c)
		}
	}
}
