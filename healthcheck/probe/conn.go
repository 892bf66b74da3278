package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// finishTime is how long a check waits, after its result is known, for the target to close its side. Most servers do so
// within a round trip. Another server costs the scheduler a slot for this long, and may see a reset.
const finishTime = 100 * time.Millisecond

// A rawConn is a TCP connection, or one to a Unix socket.
type rawConn interface {
	net.Conn
	CloseWrite() error
}

// A checkConn is the TCP connection of one check, plain or with TLS. Reads and writes fail as soon as the check's
// context ends. It belongs to the goroutine of the check. openConn makes it, and the caller must call finish in the
// end.
type checkConn struct {
	net.Conn // for reads and writes: raw, or TLS over raw

	raw     rawConn
	start   time.Time   // of the check
	release func() bool // from here on the end of the context does not end reads and writes

	asksCertificate  bool // the target asked for a client certificate
	lacksCertificate bool // the target asked for one, and none of ours is of a kind that it takes
}

// openConn connects to t on the port that atPort says, sends the target's preamble if that is its own port, and secures
// the connection if config is not nil. Its errors are checkErrors.
func openConn(
	ctx context.Context, t healthcheck.Target, port uint16, config *tls.Config, name string,
) (*checkConn, error) {
	d := net.Dialer{KeepAlive: -1} // it does not live long enough for keepalive
	start := time.Now()
	conn, err := dialStream(ctx, d, t, port)
	if said, ok := errors.AsType[*checkError](err); ok {
		return nil, said
	}
	if err != nil {
		return nil, connectError(ctx, start, err)
	}
	raw := conn.(rawConn)
	// To set the deadline of ctx on raw is not enough: ctx may end earlier, when the target is removed.
	release := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	k := &checkConn{Conn: raw, raw: raw, start: start, release: release}
	if t.Preamble != "" && atPort(t, port) == t.Addr {
		if _, err := io.WriteString(raw, t.Preamble); err != nil {
			err = k.failure(ctx, err, "the answer")
			k.finish(ctx)
			return nil, err
		}
	}
	if config != nil {
		if err := k.secure(ctx, config, name); err != nil {
			k.finish(ctx)
			return nil, err
		}
	}
	return k, nil
}

// secure does the TLS handshake. If config has no ServerName, the certificate must be for name.
func (k *checkConn) secure(ctx context.Context, config *tls.Config, name string) error {
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

// clientCertificate returns a GetClientCertificate that chooses as crypto/tls does by itself, and notes whether a
// certificate was asked for and was missing. A server may answer a missing certificate with any alert; the note
// explains it.
func (k *checkConn) clientCertificate(config *tls.Config) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	given, certificates := config.GetClientCertificate, config.Certificates
	return func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		k.asksCertificate = true
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

// finish ends the connection in order: it closes the sending side, and reads until the target closes its side. If it
// closed with bytes unread, the kernel would send a reset, and a server that speaks first would log one at each check.
// Errors here say nothing about the target's health.
func (k *checkConn) finish(ctx context.Context) {
	k.release()
	defer k.raw.Close()
	until := k.closeBy(ctx)
	k.closeNotify(until)
	if k.raw.SetReadDeadline(until) != nil || k.raw.CloseWrite() != nil {
		return
	}
	// Bounded, since a target may send without end.
	const enough = 64 << 10
	_, _ = io.CopyN(io.Discard, k.raw, enough)
}

// closeBy returns the time by which finish must end if it begins now.
func (k *checkConn) closeBy(ctx context.Context) time.Time {
	until := time.Now().Add(finishTime)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		return deadline
	}
	return until
}

// closeNotify sends the close_notify of TLS, if there is TLS. It does not send the FIN.
func (k *checkConn) closeNotify(until time.Time) {
	conn, ok := k.Conn.(*tls.Conn)
	if !ok {
		return
	}
	// crypto/tls waits up to 5 s for a target that does not read, and replaces our deadline by its own.
	timer := time.AfterFunc(time.Until(until), func() { k.raw.Close() })
	defer timer.Stop()
	_ = conn.CloseWrite()
}

// unanswered puts into words that err came instead of an answer. It returns a checkError as it is.
func (k *checkConn) unanswered(ctx context.Context, err error) error {
	if said, ok := errors.AsType[*checkError](err); ok {
		return said
	}
	return k.failure(ctx, err, "the answer")
}

// failure puts into words that a read or write returned err before what ("the answer") came.
func (k *checkConn) failure(ctx context.Context, err error, what string) error {
	if common := commonFailure(ctx, err); common != nil {
		return common
	}
	var op *net.OpError
	switch {
	case isTimeout(err):
		return timedOut(ctx, k.start, what, err)
	case errors.As(err, &op) && op.Op == remoteAlert:
		alert := escaped(strings.TrimPrefix(op.Err.Error(), "tls: "))
		if k.lacksCertificate {
			return refusedf("tls alert: %s, it asked for a client certificate", alert).because(err)
		}
		// Whatever is wrong with our certificate, the target says so by an alert (RFC 8446, 4.4.2.4).
		if k.asksCertificate && !isAlert(op.Err, alertInternalError) {
			return refusedf("tls alert: %s, it was shown the client certificate", alert).because(err)
		}
		return unhealthyf("tls alert: %s", alert).because(err)
	case errors.Is(err, syscall.ECONNRESET):
		return unhealthyf("reset before %s", what).because(err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return unhealthyf("closed before %s", what).because(err)
	}
	return unhealthyf("waiting for %s: %s", what, escaped(err.Error())).because(err)
}

// remoteAlert is the Op of the *net.OpError that crypto/tls returns for an alert. The alert itself has no exported
// type.
const remoteAlert = "remote error"

// alertInternalError says that something is wrong within the target, and not with what we sent (RFC 8446, 6.2).
const alertInternalError tls.AlertError = 80

// isAlert reports whether an error of crypto/tls is a certain alert.
func isAlert(err error, alert tls.AlertError) bool { return err.Error() == alert.Error() }

// handshakeError puts into words why a TLS handshake failed.
func (k *checkConn) handshakeError(ctx context.Context, err error) error {
	var record tls.RecordHeaderError
	var refused *tls.CertificateVerificationError
	switch {
	case errors.As(err, &refused) && len(refused.UnverifiedCertificates) > 0:
		return certificateError(refused.UnverifiedCertificates[0], refused)
	case errors.As(err, &record):
		// crypto/tls has read five bytes, which are enough to recognise SSH, HTTP or SMTP.
		return unhealthyf("not tls: answer begins with %s", quoted(record.RecordHeader[:])).because(err)
	}
	return k.failure(ctx, err, "the tls handshake")
}

// A budgetReader reads up to left bytes from another reader. Then it returns errEndless.
type budgetReader struct {
	r    io.Reader
	left int
}

// errEndless is the failure of a target that sends far more than a healthy one would.
var errEndless = unhealthyf("answered without end")

// Read implements io.Reader.
func (b *budgetReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errEndless
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
