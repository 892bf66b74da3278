package counts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// serverName is the name in the certificate, and the SNI that clients send.
const serverName = "counts.test"

// A certificate has the files of one key pair, as the balancers read them.
type certificate struct {
	cert, key string
	both      string // both in one file, for HAProxy
}

// writeCertificate makes a self-signed certificate for an ECDSA key.
func writeCertificate(t testing.TB) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: serverName}, DNSNames: []string{serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	certDER, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	check(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	base := filepath.Join(t.TempDir(), "tls")
	c := certificate{cert: base + ".crt", key: base + ".key", both: base + ".pem"}
	check(t, os.WriteFile(c.cert, certPEM, 0o600))
	check(t, os.WriteFile(c.key, keyPEM, 0o600))
	check(t, os.WriteFile(c.both, slices.Concat(certPEM, keyPEM), 0o600))
	return c
}

// clientTLS is what clients of TLS have: TLS 1.3 with the cipher that Go prefers. With a cache they resume.
func clientTLS(cache tls.ClientSessionCache) *tls.Config {
	return &tls.Config{
		ServerName: serverName, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, ClientSessionCache: cache,
	}
}

// dialTLS connects a client by TLS and returns both ends of its session.
func (w *world) dialTLS(config *tls.Config) (*tls.Conn, func()) {
	w.t.Helper()
	client := tls.Client(w.dial(), config)
	check(w.t, client.Handshake())
	w.settle()
	backend := w.accept()
	return client, func() {
		w.t.Helper()
		w.move(client, backend, requestBytes)
		w.move(backend, client, requestBytes)
		w.end(client, backend)
	}
}
