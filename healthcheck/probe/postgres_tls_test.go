package probe

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// A certificate is self-signed, for 127.0.0.1 and db.example.
type certificate struct {
	pem, key []byte
	pool     *x509.CertPool // with this one alone
}

func newCertificate(t *testing.T, from, to time.Time) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "db.example"}, DNSNames: []string{"db.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: from, NotAfter: to, IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	c := certificate{
		pem:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		pool: x509.NewCertPool(),
	}
	c.pool.AppendCertsFromPEM(c.pem)
	return c
}

// write writes the two files into folder, readable for the folder's owner.
func (c certificate) write(t *testing.T, folder string, chown func(name string)) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key")
	must(t, os.WriteFile(certFile, c.pem, 0o600))
	must(t, os.WriteFile(keyFile, c.key, 0o600))
	chown(certFile)
	chown(keyFile)
	return certFile, keyFile
}

// A tlsCase is a way to check a server that has a certificate of newCertificate.
type tlsCase struct {
	config *tls.Config
	want   string // "" if healthy
}

func tlsCases(good, other certificate) map[string]tlsCase {
	return map[string]tlsCase{
		"by address": {&tls.Config{RootCAs: good.pool}, ""},
		"by name":    {&tls.Config{RootCAs: good.pool, ServerName: "db.example"}, ""},
		"unchecked":  {&tls.Config{InsecureSkipVerify: true}, ""},
		"wrong name": {&tls.Config{RootCAs: good.pool, ServerName: "redis.example"},
			`certificate is for another name: "db.example, 127.0.0.1", wanted "redis.example"`},
		"unknown": {&tls.Config{RootCAs: other.pool}, "certificate is self-signed"},
		"old version": {&tls.Config{RootCAs: good.pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
			"tls alert: protocol version not supported"},
	}
}

func TestPostgresTLS(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good := newCertificate(t, now.Add(-time.Hour), now.Add(time.Hour))
	expired := newCertificate(t, now.Add(-time.Hour), now.Add(-time.Minute))
	server := startRealPostgres(t)
	chown := func(name string) {
		if server.owner != nil {
			must(t, os.Chown(name, int(server.owner.Uid), int(server.owner.Gid)))
		}
	}
	server.do(t, "CREATE ROLE scram LOGIN PASSWORD 'right'")
	c := Postgres{User: "scram", Password: "right", Database: "postgres", Role: healthcheck.RolePrimary}
	c.TLS = &tls.Config{RootCAs: good.pool}
	_, err := c.Check(deadlineIn(t, patience), server.to)
	wantWords(t, err, "the server does not speak tls", nil)

	good.write(t, server.data, chown)
	server.do(t, "ALTER SYSTEM SET ssl_cert_file = 'tls.crt'", "ALTER SYSTEM SET ssl_key_file = 'tls.key'",
		"ALTER SYSTEM SET ssl = on")
	server.admit(t, "hostssl all scram 127.0.0.1/32 scram-sha-256")
	for name, tt := range tlsCases(good, expired) {
		c.TLS = tt.config
		if _, err := c.Check(deadlineIn(t, patience), server.to); tt.want != "" {
			wantWords(t, err, tt.want, nil)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.TLS = nil
	_, err = c.Check(deadlineIn(t, patience), server.to)
	wantWords(t, err, "not allowed to log in: no pg_hba.conf entry for host...", nil)

	expired.write(t, server.data, chown)
	server.reload(t)
	c.TLS = &tls.Config{RootCAs: expired.pool}
	_, err = c.Check(deadlineIn(t, patience), server.to)
	wantWords(t, err, "certificate expired on "+now.Add(-time.Minute).UTC().Format(time.DateOnly), nil)
}

// TestPostgresTLSNotSpoken checks servers that answer a handshake with something else, or not at all.
func TestPostgresTLSNotSpoken(t *testing.T) {
	t.Parallel()
	config := &tls.Config{ServerName: "db.example"}
	for answer, want := range map[string]string{
		"":              "closed before the answer",
		"N":             "the server does not speak tls",
		"Ecould not":    "the server answered the request for tls with an error",
		"HTTP/1.1 400":  "not a postgresql server",
		"S":             "closed before the tls handshake",
		"SHTTP/1.1 400": `not tls: answer begins with "HTTP/"`,
	} {
		to := serveDialogue(t, func(conn *net.TCPConn) {
			_, _ = io.ReadFull(conn, make([]byte, 8))
			_, _ = io.WriteString(conn, answer)
			_ = conn.CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		})
		_, err := Postgres{User: "u", TLS: config}.Check(deadlineIn(t, patience), to)
		wantWords(t, err, want, nil)
	}
	silent := serveDialogue(t, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) })
	_, err := Postgres{User: "u", TLS: config}.Check(within(t, 100*time.Millisecond), silent)
	wantTimeout(t, err, "timed out waiting for the answer after ", 100*time.Millisecond)
	_, err = Redis{TLS: config}.Check(within(t, 100*time.Millisecond), silent)
	wantTimeout(t, err, "timed out waiting for the tls handshake after ", 100*time.Millisecond)
	plain := serveDialogue(t, func(conn *net.TCPConn) {
		_, _ = conn.Write(bytes.Repeat([]byte("-ERR no"), 10))
		_, _ = io.Copy(io.Discard, conn)
	})
	_, err = Redis{TLS: config}.Check(deadlineIn(t, patience), plain)
	wantWords(t, err, `not tls: answer begins with "-ERR "`, nil)
}
