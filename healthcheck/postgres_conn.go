package healthcheck

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A dialogue is the one connection of a check that asks its target and waits for answers. Redis and Postgres both use it.
// Only the goroutine of the check uses it; it is of use only when made by dialDialogue, and is ended by end.
type dialogue struct {
	conn  net.Conn     // what is read and written: tcp, or TLS over it
	tcp   *net.TCPConn // the same as conn as long as there is no TLS
	start time.Time    // of the check
	stop  func() bool  // makes the context's end mean nothing to the connection any more
}

// dialDialogue connects to t, or to another port of it. Its errors are in words already.
//
// The connection gets the deadline of ctx; that ctx was cancelled ends each read and write, too.
func dialDialogue(ctx context.Context, t Target, port uint16) (*dialogue, error) {
	addr := t.Addr
	if port != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), port)
	}
	dialer := net.Dialer{KeepAlive: -1} // it does not live long enough for keepalive
	start := time.Now()
	conn, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, connectError(ctx, start, err)
	}
	d := &dialogue{conn: conn, tcp: conn.(*net.TCPConn), start: start}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // fails only when closed, which it is not
	}
	d.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return d, nil
}

// secure puts TLS over the connection. Without a name in config the certificate has to be for the target's address.
func (d *dialogue) secure(ctx context.Context, t Target, config *tls.Config) error {
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = t.Addr.Addr().WithZone("").String()
	}
	conn := tls.Client(d.tcp, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return d.tlsError(ctx, err)
	}
	d.conn = conn
	return nil
}

// end closes the connection so that the target sees an orderly end, see part.
func (d *dialogue) end(ctx context.Context) {
	d.stop()
	if secured, ok := d.conn.(*tls.Conn); ok {
		_ = secured.CloseWrite() // part closes what is below in any case
	}
	part(ctx, d.tcp)
}

// answerError puts into words that no answer came. An err that is a checkError already stays as it is.
func (d *dialogue) answerError(ctx context.Context, err error) error {
	var said *checkError
	var op *net.OpError
	switch {
	case errors.As(err, &said):
		return said
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		if errors.Is(ctx.Err(), context.Canceled) {
			return &checkError{words: "cancelled", causes: []error{err, ErrInconclusive}}
		}
		after := time.Since(d.start)
		if deadline, ok := ctx.Deadline(); ok {
			after = deadline.Sub(d.start)
		}
		words := fmt.Sprintf("timed out after %v waiting for an answer", after.Round(time.Millisecond))
		return &checkError{words: words, causes: []error{err}}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &checkError{words: "connection closed before it answered", causes: []error{err}}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &checkError{words: "connection reset before it answered", causes: []error{err}}
	case errors.As(err, &op) && op.Op == "remote error": // an alert: with TLS 1.3 it may follow the handshake
		return &checkError{words: "tls refused: " + excerpt(strings.TrimPrefix(op.Err.Error(), "tls: ")), causes: []error{err}}
	}
	return &checkError{words: "no answer: " + excerpt(err.Error()), causes: []error{err}}
}

// tlsError puts into words why there is no TLS.
func (d *dialogue) tlsError(ctx context.Context, err error) error {
	var (
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		authority x509.UnknownAuthorityError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		words     string
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().After(invalid.Cert.NotAfter):
		words = "certificate expired on " + invalid.Cert.NotAfter.UTC().Format(time.DateOnly)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		words = "certificate not valid before " + invalid.Cert.NotBefore.UTC().Format(time.DateOnly)
	case errors.As(err, &name):
		words = "certificate is not for " + excerpt(name.Host)
	case errors.As(err, &authority):
		words = "certificate signed by an unknown authority"
	case errors.As(err, &verify):
		words = "certificate refused: " + excerpt(verify.Err.Error())
	case errors.As(err, &record):
		words = "answered something else than tls"
	default:
		return d.answerError(ctx, err)
	}
	return &checkError{words: words, causes: []error{err}}
}

// unhealthyf is a checkError that has no cause but what the target said.
func unhealthyf(format string, args ...any) *checkError {
	return &checkError{words: fmt.Sprintf(format, args...)}
}

// longestExcerpt is how many characters of what a target said are shown: enough for a person to recognise it, too few to
// flood a log.
const longestExcerpt = 100

// excerpt returns the start of s, without what a terminal might not show.
func excerpt(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == longestExcerpt {
			b.WriteString("...")
			break
		}
		if !strconv.IsPrint(r) || r == '\uFFFD' {
			r = '?'
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}

// firstLine returns the excerpt of the first line of what is still to be read and has arrived already.
func firstLine(arrived []byte) string {
	if i := bytes.IndexAny(arrived, "\r\n\x00"); i >= 0 {
		arrived = arrived[:i]
	}
	return excerpt(string(arrived))
}

// errEndless is what a target gets that says more than a healthy one would.
var errEndless = unhealthyf("answered without end")

// A budgetReader reads from another reader until more was read than a healthy target says.
type budgetReader struct {
	r    io.Reader
	left int
}

// Read implements io.Reader.
func (b *budgetReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errEndless
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
