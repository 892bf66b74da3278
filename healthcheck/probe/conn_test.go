package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// A tlsAuthority signs the certificates of a test.
type tlsAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTLSAuthority(t testing.TB, name string) *tlsAuthority {
	t.Helper()
	a := &tlsAuthority{cert: &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	pair := a.issue(t, a.cert)
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// roots returns the pool of a alone.
func (a *tlsAuthority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue completes template and signs it. An authority without a key signs with the new key.
func (a *tlsAuthority) issue(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-240 * time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(30*24*time.Hour + time.Hour)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// server returns a certificate for 127.0.0.1 and lime.example.
func (a *tlsAuthority) server(t testing.TB) tls.Certificate {
	t.Helper()
	return a.issue(t, loopbackTemplate())
}

func loopbackTemplate() *x509.Certificate {
	return &x509.Certificate{
		DNSNames: []string{"lime.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// overTLS returns a handler that does the TLS handshake and then calls next.
func overTLS(config *tls.Config, next func(ctx context.Context, c net.Conn)) harness.Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		conn := tls.Server(c, config)
		defer conn.Close()
		if conn.HandshakeContext(ctx) == nil {
			next(ctx, conn)
		}
	}
}

// readToEnd reads until the other side closes its sending side.
func readToEnd(_ context.Context, c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// targetAt returns the target at an address.
func targetAt(address string) healthcheck.Target {
	return healthcheck.Target{ID: "a", Addr: netip.MustParseAddrPort(address)}
}

// sendTo sends v over c, and gives up when ctx ends: if the test has failed already, nobody receives, and the end of
// the server would wait for its handler for ever.
func sendTo[T any](ctx context.Context, c chan<- T, v T) {
	select {
	case c <- v:
	case <-ctx.Done():
	}
}

// deadlineIn returns a context for a check. Checks that need not time out get patience.
func deadlineIn(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

const (
	patience = 20 * time.Second       // of a check that has to end by itself, on a slow machine
	hurry    = 300 * time.Millisecond // of a check that has to time out
)

// failsWith fails the test unless err matches an expression as a whole, is short and printable, and wraps causes.
func failsWith(t *testing.T, err error, want string, causes ...error) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", want)
		return
	}
	documented(t, err)
	got := err.Error()
	if !regexp.MustCompile(`^(?:` + want + `)$`).MatchString(got) {
		t.Errorf("error %q, want %q", got, want)
	}
	if len(got) > 400 || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("error %q is too long, or not printable", got)
	}
	if errors.Is(err, healthcheck.ErrInconclusive) && !strings.HasPrefix(got, "cannot check: ") &&
		!strings.Contains(got, "cancelled") {
		t.Errorf("error %q is inconclusive", got)
	}
	for _, cause := range causes {
		if !errors.Is(err, cause) {
			t.Errorf("error %q does not wrap %v", got, cause)
		}
	}
}

// failsAtLast is failsWith for a check that fails while it waits. It tries longer and longer timeouts, since on a slow
// machine hurry may end before the check waits.
func failsAtLast(t *testing.T, want string, check func(ctx context.Context) error) {
	t.Helper()
	for d := hurry; ; d *= 4 {
		err := check(deadlineIn(t, d))
		if d > patience || err != nil && regexp.MustCompile(`^(?:`+want+`)$`).MatchString(err.Error()) {
			failsWith(t, err, want)
			return
		}
	}
}

// hostile returns the servers that each checker must survive. answer is the beginning of a good answer.
func hostile(answer string) map[string]harness.Handler {
	endless := func(c net.Conn, what string) {
		go func() { _, _ = io.Copy(io.Discard, c) }() // ends with the connection
		block := []byte(strings.Repeat(what, 1+4096/len(what)))
		for err := error(nil); err == nil; {
			_, err = c.Write(block)
		}
	}
	return map[string]harness.Handler{
		"closes":        harness.CloseAtOnce,
		"resets":        harness.ResetAtOnce,
		"silent":        harness.Silent,
		"reads nothing": harness.Unread,
		"endless zeros": func(_ context.Context, c *net.TCPConn) { endless(c, "\x00") },
		"endless text":  func(_ context.Context, c *net.TCPConn) { endless(c, "lorem ipsum\r\n") },
		"endless answer": func(_ context.Context, c *net.TCPConn) {
			_, _ = io.WriteString(c, answer)
			endless(c, "x: y\r\n")
		},
		"speaks first":   harness.SpeakFirst("SSH-2.0-OpenSSH_9.6\r\n"),
		"half an answer": func(_ context.Context, c *net.TCPConn) { _, _ = io.WriteString(c, answer[:len(answer)/2]) },
		"then resets": func(_ context.Context, c *net.TCPConn) {
			_, _ = io.WriteString(c, answer[:len(answer)/2])
			harness.Reset(c)
		},
		"a byte at a time": func(ctx context.Context, c *net.TCPConn) {
			dribble(ctx, c, strings.Repeat("\xff\x00", 1000))
		},
	}
}

// dribble sends text byte by byte.
func dribble(ctx context.Context, c net.Conn, text string) {
	for i := range len(text) {
		if _, err := c.Write([]byte{text[i]}); err != nil || ctx.Err() != nil {
			return
		}
	}
}

// survives runs check against every hostile server. The check must fail soon, with a checkError.
func survives(t *testing.T, answer string, check func(ctx context.Context, to healthcheck.Target) error) {
	for name, handle := range hostile(answer) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			to := targetAt(harness.Serve(t, handle).Address())
			start := time.Now()
			err := check(deadlineIn(t, hurry), to)
			failsWith(t, err, `.*[a-z]{3}.*`)
			if took := time.Since(start); took > patience {
				t.Errorf("the check took %v", took)
			}
		})
	}
}

func TestConnFailuresInWords(t *testing.T) {
	k := &checkConn{start: time.Now()}
	for err, want := range map[error]string{
		syscall.ENOBUFS:        "cannot check: no buffer space available",
		syscall.ECONNRESET:     "reset before the answer",
		syscall.EPIPE:          "closed before the answer",
		io.ErrUnexpectedEOF:    "closed before the answer",
		os.ErrDeadlineExceeded: "timed out waiting for the answer after .*s",
		errors.New("x\ny"):     `waiting for the answer: x\\ny`,
		&net.OpError{Op: remoteAlert, Err: errors.New("tls: internal error")}: "tls alert: internal error",
	} {
		wrapped := fmt.Errorf("read: %w", err)
		if want[0] == 'w' {
			wrapped = err
		}
		got := k.failure(t.Context(), wrapped, "the answer")
		failsWith(t, got, want, err)
		if errors.Is(got, healthcheck.ErrInconclusive) != (err == syscall.ENOBUFS) {
			t.Errorf("%v is inconclusive: %v", got, errors.Is(got, healthcheck.ErrInconclusive))
		}
	}
}
