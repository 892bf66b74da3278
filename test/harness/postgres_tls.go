package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// UseTLS makes the server offer TLS from its next start on, with a certificate for 127.0.0.1 that signs itself.
func (p *Postgres) UseTLS(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "postgres"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "server.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	p.write(t, "server.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	p.write(t, "postgresql.auto.conf", []byte("ssl = on\n"))
}

// write writes a file of the server's data folder, which only its user can read.
func (p *Postgres) write(t testing.TB, name string, content []byte) {
	t.Helper()
	path := filepath.Join(p.data, name)
	err := os.WriteFile(path, content, 0o600)
	if err == nil && p.owner != nil {
		err = os.Chown(path, int(p.owner.Uid), int(p.owner.Gid))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// SecureWith restarts the server with TLS, with the certificate and key in these PEM files, these lines of
// pg_hba.conf, and further settings such as "ssl_max_protocol_version = 'TLSv1.2'".
func (p *Postgres) SecureWith(t testing.TB, certificate, key string, access []string, settings ...string) {
	t.Helper()
	for name, source := range map[string]string{"server.crt": certificate, "server.key": key} {
		content, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		p.write(t, name, content)
	}
	p.write(t, "pg_hba.conf", []byte(strings.Join(access, "\n")+"\n"))
	p.write(t, "postgresql.auto.conf", []byte(strings.Join(append(settings, "ssl = on"), "\n")+"\n"))
	p.Signal(t, syscall.SIGINT)
	p.Wait(t)
	p.Restart(t)
}
