package l4test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

// NewKeyPair makes a certificate that signs itself, for these names and 127.0.0.1.
func NewKeyPair(t testing.TB, names ...string) l4.TLSKeyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	return l4.TLSKeyPair{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}
}

// Certificate is a key pair for crypto/tls.
func Certificate(t testing.TB, k l4.TLSKeyPair) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(k.CertPEM, k.KeyPEM)
	check(t, err)
	return c
}

// Roots are the authorities that trust these certificates, which sign themselves.
func Roots(t testing.TB, pairs ...l4.TLSKeyPair) *x509.CertPool {
	t.Helper()
	roots := x509.NewCertPool()
	for _, k := range pairs {
		if !roots.AppendCertsFromPEM(k.CertPEM) {
			t.Fatal("no certificate")
		}
	}
	return roots
}

// TLSServer is what a listener ends TLS with.
func TLSServer(t testing.TB, s l4.TLSServerSettings, pairs ...l4.TLSKeyPair) *l4.TLSServer {
	t.Helper()
	server, err := l4.NewTLSServer(s, l4.TLSMaterial{Certificates: pairs})
	check(t, err)
	return server
}

// TLSClient is what connections to backends with this certificate are encrypted with.
func TLSClient(t testing.TB, s l4.TLSClientSettings, backend l4.TLSKeyPair) *l4.TLSClient {
	t.Helper()
	client, err := l4.NewTLSClient(s, l4.TLSClientMaterial{CA: backend.CertPEM})
	check(t, err)
	return client
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
