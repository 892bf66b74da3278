package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// A talk is the connection of one check that says something to its target, plain or with TLS: HTTP, GRPC, Script and TLS
// use it. Reads and writes end when the check's context does. It belongs to the goroutine of the check; it is of use
// only when made by openTalk, and whoever made it calls part in the end.
type talk struct {
	net.Conn // what is read and written: raw, or TLS over it

	raw     *net.TCPConn
	start   time.Time   // of the check
	release func() bool // cuts the tie between the context and the connection

	lacksCertificate bool // the target asked for a client certificate, and there was none that it takes
}

// openTalk connects to t, at port instead of its own unless that is 0. Its errors are those of a TCP check.
func openTalk(ctx context.Context, t Target, port uint16) (*talk, error) {
	addr := t.Addr
	if port != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), port)
	}
	d := net.Dialer{KeepAlive: -1} // as TCP.Check
	start := time.Now()
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, connectError(ctx, start, err)
	}
	raw := conn.(*net.TCPConn)
	// Not the deadline of ctx at once: an early end of ctx (the target was removed) must count, too.
	release := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	return &talk{Conn: raw, raw: raw, start: start, release: release}, nil
}

// secure shakes hands. Where config has no ServerName, the certificate has to be for name.
func (k *talk) secure(ctx context.Context, config *tls.Config, name string) error {
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName = name
	}
	config.GetClientCertificate = k.clientCertificate(config)
	conn := tls.Client(k.raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return k.handshakeError(ctx, err)
	}
	k.Conn = conn
	return nil
}

// clientCertificate returns what crypto/tls does by itself, and notes a certificate that is missing: with that the server's
// alert, which may be any, can be understood.
func (k *talk) clientCertificate(config *tls.Config) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	given, certificates := config.GetClientCertificate, config.Certificates
	return func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if given != nil {
			return given(request)
		}
		for i := range certificates {
			if request.SupportsCertificate(&certificates[i]) == nil {
				return &certificates[i], nil
			}
		}
		k.lacksCertificate = true
		return new(tls.Certificate), nil
	}
}

// part ends the connection so that the target sees an orderly end.
func (k *talk) part(ctx context.Context) {
	k.release()
	k.closeNotify(k.partUntil(ctx))
	part(ctx, k.raw)
}

// partUntil returns when the parting has to be over that begins now.
func (k *talk) partUntil(ctx context.Context) time.Time {
	until := time.Now().Add(partingTime)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		return deadline
	}
	return until
}

// closeNotify ends this side of TLS, if there is TLS. The FIN follows in any case.
func (k *talk) closeNotify(until time.Time) {
	conn, ok := k.Conn.(*tls.Conn)
	if !ok {
		return
	}
	// crypto/tls allows itself 5 s when the target does not read, with a deadline of its own that replaces any other.
	timer := time.AfterFunc(time.Until(until), func() { k.raw.Close() })
	defer timer.Stop()
	_ = conn.CloseWrite()
}

// addressName returns what a certificate has to be for when nothing else is said: the target's address.
func addressName(t Target) string { return t.Addr.Addr().WithZone("").String() }

// failure puts into words that err came instead of what ("the answer"). It is for errors of reading and writing.
func (k *talk) failure(ctx context.Context, err error, what string) error {
	if ours := connectError(ctx, k.start, err); errors.Is(ours, ErrInconclusive) {
		return ours
	}
	var timeout net.Error
	var op *net.OpError
	causes := []error{err}
	words := ""
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		words, causes = "cancelled", append(causes, context.Canceled, ErrInconclusive)
	case errors.As(err, &timeout) && timeout.Timeout():
		after := time.Since(k.start)
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
			after = deadline.Sub(k.start)
		}
		words = fmt.Sprintf("timed out waiting for %s after %v", what, after.Round(time.Millisecond))
	case errors.As(err, &op) && op.Op == remoteAlert:
		words = "tls alert: " + escaped(strings.TrimPrefix(op.Err.Error(), "tls: "))
		if k.lacksCertificate {
			words += ", it asked for a client certificate"
		}
	case errors.Is(err, syscall.ECONNRESET):
		words = "reset before " + what
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		words = "closed before " + what
	default:
		words = "waiting for " + what + ": " + escaped(err.Error())
	}
	return &checkError{words: words, causes: causes}
}

// remoteAlert is the Op of the *net.OpError that crypto/tls returns for an alert. The alert itself has no exported type.
const remoteAlert = "remote error"

// handshakeError puts into words why there is no TLS.
func (k *talk) handshakeError(ctx context.Context, err error) error {
	var record tls.RecordHeaderError
	var refused *tls.CertificateVerificationError
	switch {
	case errors.As(err, &refused) && len(refused.UnverifiedCertificates) > 0:
		return certificateError(refused.UnverifiedCertificates[0], refused)
	case errors.As(err, &record):
		// Five bytes are what crypto/tls read, and enough to know SSH, HTTP or SMTP by.
		return &checkError{words: "not tls: answer begins with " + quoted(record.RecordHeader[:]), causes: []error{err}}
	}
	return k.failure(ctx, err, "the tls handshake")
}

// longestQuote is how many characters of what a target said go into an error: enough to recognise it, and no more than a
// line in a log.
const longestQuote = 100

// quoted returns b in quotes and cut to about longestQuote characters, all of them printable.
func quoted(b []byte) string {
	if len(b) == 0 {
		return "nothing"
	}
	text, whole := printable(b)
	if !whole {
		return `"` + text + `"...`
	}
	return `"` + text + `"`
}

// escaped is quoted without the quotes, for words of our own that may have foreign ones in them.
func escaped(s string) string {
	text, whole := printable([]byte(s))
	if !whole {
		text += "..."
	}
	return text
}

// printable returns up to longestQuote characters of b, with escapes for all but printable ASCII, and whether that is all.
func printable(b []byte) (text string, whole bool) {
	var out []byte
	for len(b) > 0 {
		_, size := utf8.DecodeRune(b)
		piece := string(b[:size])
		if piece != `"` { // the quotes around it are for people, who can do without escapes in between
			quote := strconv.QuoteToASCII(piece)
			piece = quote[1 : len(quote)-1]
		}
		if len(out)+len(piece) > longestQuote {
			return string(out), false
		}
		out, b = append(out, piece...), b[size:]
	}
	return string(out), true
}
