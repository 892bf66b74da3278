package test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// An authority signs certificates for tests, and writes them to files.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes an authority whose files are in dir, and writes its own certificate to NAME.crt.
func newAuthority(t testing.TB, dir, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	a := &authority{dir: dir, key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	check(t, err)
	a.cert, err = x509.ParseCertificate(der)
	check(t, err)
	a.write(t, name+".crt", "CERTIFICATE", der)
	return a
}

// write replaces a file.
func (a *authority) write(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	path := filepath.Join(a.dir, name)
	check(t, os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	check(t, os.Rename(path+".new", path))
}

// pair writes a certificate and its key to NAME.crt and NAME.key.
func (a *authority) pair(t testing.TB, name string, key crypto.Signer, hosts ...string) {
	t.Helper()
	a.issue(t, name, key, forHosts(hosts...))
}

// forHosts is a change of a certificate for issue: the names that it is for.
func forHosts(hosts ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = hosts }
}

// issue is pair for a certificate that change may change before it is signed. It returns the certificate.
func (a *authority) issue(
	t testing.TB, name string, key crypto.Signer, change func(*x509.Certificate),
) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	check(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	a.write(t, name+".crt", "CERTIFICATE", der)
	a.write(t, name+".key", "PRIVATE KEY", private)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert
}

// list writes a revocation list with the certificates of these files.
func (a *authority) list(t testing.TB, name string, revoked ...string) {
	t.Helper()
	var entries []x509.RevocationListEntry
	for _, file := range revoked {
		data, err := os.ReadFile(filepath.Join(a.dir, file+".crt"))
		check(t, err)
		block, _ := pem.Decode(data)
		cert, err := x509.ParseCertificate(block.Bytes)
		check(t, err)
		entries = append(entries, x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: entries,
	}, a.cert, a.key)
	check(t, err)
	a.write(t, name, "X509 CRL", der)
}

func ecdsaKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

// TestTLSFilesOfPage starts the configuration of docs/tls.md that terminates TLS, and replaces its files.
func TestTLSFilesOfPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/tls.md")
	check(t, err)
	_, part, _ := strings.Cut(string(page), "## Terminating TLS")
	config := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(part)
	if config == nil {
		t.Fatal("the page shows no configuration")
	}
	dir := t.TempDir()
	ca := newAuthority(t, dir, "backends-ca")
	clients := newAuthority(t, dir, "clients-ca")
	clients.list(t, "clients.crl")
	ca.pair(t, "db", ecdsaKey(t), "db.example.com")
	slow, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	ca.pair(t, "db-rsa", slow, "db.example.com")
	ticket := base64.StdEncoding.EncodeToString(make([]byte, 32))
	check(t, os.WriteFile(filepath.Join(dir, "ticket.keys"), []byte(ticket+"\n"), 0o600))
	places := []string{`":5432"`, fmt.Sprintf("%q", harness.FreeAddress(t)), `"db1.example.com:5432"`,
		fmt.Sprintf("%q", harness.Serve(t, harness.Echo).Address()), "/etc/limeload/tls/", dir + "/"}
	for i := 0; i < len(places); i += 2 {
		if !strings.Contains(config[1], places[i]) {
			t.Fatalf("the page's configuration has no %s", places[i])
		}
	}
	b := harness.StartBalancer(t, strings.NewReplacer(places...).Replace(config[1]))
	stdout, stderr, code := b.Command(t, "check", "--config", b.File())
	if code != 0 || strings.Contains(stdout, "warning") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	ca.pair(t, "db", ecdsaKey(t), "db.example.com")
	b.WaitLine(t, "certificates taken up", func(l harness.Line) bool { return l.Message == "certificates taken up" })
	ca.write(t, "db.key", "PRIVATE KEY", []byte("x"))
	broken := b.WaitLine(t, "a report", func(l harness.Line) bool {
		return l.Message == "certificates not taken up: the old ones stay"
	})
	if !strings.Contains(fmt.Sprint(broken), "listener.db.tls.certificates[0].key") {
		t.Errorf("the report does not name the key: %v", broken)
	}
	stdout, stderr, code = b.Command(t, "check", "--config", b.File())
	if code == 0 || !strings.Contains(stderr, "listener.db.tls.certificates[0].key") {
		t.Errorf("check of a broken file: exit code %d, %s%s", code, stdout, stderr)
	}
}
