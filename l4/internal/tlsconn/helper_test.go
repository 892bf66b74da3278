package tlsconn

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rsaKeyOnce makes one RSA key for all tests, since each takes a while.
var rsaKeyOnce = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// must is for what fails only if the test is wrong.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var serialNumbers atomic.Int64

// An issuer is an authority of a test.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte // of the certificate
}

// A request says what a certificate of a test is like. Zero fields are those of a usual one, for servers and clients.
type request struct {
	name     string   // the common name
	names    []string // host names
	ips      []net.IP
	from, to time.Time
	key      crypto.Signer
	ca       bool
	chain    []byte // PEM, put after the certificate
	usage    []x509.ExtKeyUsage
}

func newAuthority(t testing.TB, name string) *issuer { return (*issuer)(nil).authority(t, name) }

// authority makes an authority that a signs; nil signs itself.
func (a *issuer) authority(t testing.TB, name string) *issuer {
	t.Helper()
	key := newKey(t)
	cert := a.sign(t, request{name: name, key: key, ca: true})
	return &issuer{cert, key, encode("CERTIFICATE", cert.Raw)}
}

func (a *issuer) sign(t testing.TB, r request) *x509.Certificate {
	t.Helper()
	now := time.Now()
	if r.from.IsZero() {
		r.from = now.Add(-time.Hour)
	}
	if r.to.IsZero() {
		r.to = now.Add(90 * 24 * time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serialNumbers.Add(1) + 1000), Subject: pkix.Name{CommonName: r.name},
		NotBefore: r.from, NotAfter: r.to, DNSNames: r.names, IPAddresses: r.ips, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if r.usage != nil {
		template.ExtKeyUsage = r.usage
	}
	if r.ca {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
	}
	parent, signer := template, r.key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, r.key.Public(), signer))
	return must(x509.ParseCertificate(der))
}

// pair makes a certificate with its key.
func (a *issuer) pair(t testing.TB, r request) KeyPair {
	t.Helper()
	if r.key == nil {
		r.key = newKey(t)
	}
	cert := a.sign(t, r)
	return KeyPair{
		Name: r.name, CertPEM: slices.Concat(encode("CERTIFICATE", cert.Raw), r.chain), KeyPEM: encodeKey(t, r.key),
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeKey(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	return encode("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
}

// leafOf returns the certificate of a pair.
func leafOf(t testing.TB, p KeyPair) *x509.Certificate {
	t.Helper()
	return must(parseCertificates(p.CertPEM))[0]
}

// list makes a revocation list with these certificates.
func (a *issuer) list(t testing.TB, until time.Time, revoked ...KeyPair) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: until}
	if until.IsZero() {
		l.NextUpdate = time.Now().Add(time.Hour)
	}
	for _, p := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: leafOf(t, p).SerialNumber, RevocationTime: time.Now(),
		})
	}
	der := must(x509.CreateRevocationList(rand.Reader, l, a.cert, a.key))
	return encode("X509 CRL", der)
}

// answer makes an OCSP answer about a certificate, from template, that a signs.
func (a *issuer) answer(t testing.TB, p KeyPair, template ocsp.Response) []byte {
	t.Helper()
	template.SerialNumber = leafOf(t, p).SerialNumber
	if template.ThisUpdate.IsZero() {
		template.ThisUpdate = time.Now().Add(-time.Hour)
	}
	return must(ocsp.CreateResponse(a.cert, a.cert, template, a.key))
}

func (p KeyPair) forClient(t testing.TB) tls.Certificate {
	t.Helper()
	return must(tls.X509KeyPair(p.CertPEM, p.KeyPEM))
}

func newServer(t testing.TB, s ServerSettings, m Material) *Server {
	t.Helper()
	return must(NewServer(s, m))
}

// A line is one end of a connection whose writes never wait, as those of net.Pipe do: both sides may send an alert at
// once.
type line struct {
	net.Conn // for the methods that crypto/tls does not use
	in, out  chan []byte
	rest     []byte
	hangUp   func()
}

func newLine() (a, b *line) {
	ab, ba := make(chan []byte, 64), make(chan []byte, 64)
	a = &line{in: ba, out: ab, hangUp: sync.OnceFunc(func() { close(ab) })}
	b = &line{in: ab, out: ba, hangUp: sync.OnceFunc(func() { close(ba) })}
	return a, b
}

func (l *line) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		var open bool
		if l.rest, open = <-l.in; !open {
			return 0, io.EOF
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *line) Write(p []byte) (int, error) {
	l.out <- bytes.Clone(p)
	return len(p), nil
}

func (l *line) Close() error {
	l.hangUp()
	return nil
}

func (l *line) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (l *line) SetDeadline(time.Time) error      { return nil }
func (l *line) SetReadDeadline(time.Time) error  { return nil }
func (l *line) SetWriteDeadline(time.Time) error { return nil }

// An exchange is what a client has seen of a server, and the other way round.
type exchange struct {
	client, server       tls.ConnectionState
	clientErr, serverErr error
}

// connect does a handshake, and moves a byte to the client and back, so that tickets arrive.
func connect(t testing.TB, server *tls.Config, client *tls.Config) exchange {
	t.Helper()
	var e exchange
	a, b := newLine()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer a.Close()
		conn := tls.Server(a, server)
		if e.serverErr = conn.Handshake(); e.serverErr != nil {
			return
		}
		var one [1]byte
		if _, e.serverErr = conn.Write([]byte{1}); e.serverErr == nil {
			_, e.serverErr = conn.Read(one[:])
		}
		e.server = conn.ConnectionState()
	}()
	conn := tls.Client(b, client)
	if e.clientErr = conn.Handshake(); e.clientErr == nil {
		var one [1]byte
		if _, e.clientErr = conn.Read(one[:]); e.clientErr == nil {
			_, e.clientErr = conn.Write(one[:])
		}
		e.client = conn.ConnectionState()
	}
	_ = b.Close()
	<-done
	return e
}

// works fails the test unless both sides were content.
func (e exchange) works(t testing.TB) exchange {
	t.Helper()
	if e.clientErr != nil || e.serverErr != nil {
		t.Fatalf("client: %v; server: %v", e.clientErr, e.serverErr)
	}
	return e
}

// trusting returns the configuration of a client that trusts an authority, and asks for a name.
func trusting(a *issuer, name string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{RootCAs: roots, ServerName: name}
}

// wantFaults compares faults with texts such as "key 0: it is not ...", of which each has to be a part of one.
func wantFaults(t testing.TB, got Faults, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d faults:\n%s\nwant %d: %q", len(got), got.Error(), len(want), want)
		return
	}
	for i, w := range want {
		if text := got[i].Error(); !strings.Contains(text, w) {
			t.Errorf("got %q, want %q", text, w)
		}
	}
}

// faultsOf returns the faults of an error.
func faultsOf(t testing.TB, err error) Faults {
	t.Helper()
	all, ok := errors.AsType[Faults](err)
	if err != nil && !ok {
		t.Errorf("error %T: %v", err, err)
	}
	return all
}

func port(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(n))
}
