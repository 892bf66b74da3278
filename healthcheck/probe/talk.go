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

// partingTime is how long a check waits, after its verdict, for the target to close as well. Well-behaved servers do
// so within a round trip; the others cost a slot of the scheduler for so long, and may see a reset.
const partingTime = 100 * time.Millisecond

// A talk is the connection of one check over TCP, plain or with TLS. Reads and writes end when the check's context does. It
// belongs to the goroutine of the check; it is of use only when made by openTalk, and whoever made it calls part in
// the end.
type talk struct {
	net.Conn // what is read and written: raw, or TLS over it

	raw     *net.TCPConn
	start   time.Time   // of the check
	release func() bool // cuts the tie between the context and the connection

	asksCertificate  bool // the target asked for a client certificate
	lacksCertificate bool // and there was none that it takes
}

// openTalk connects to t, see atPort, and shakes hands if config is not nil: see
// secure. Its errors are in words.
func openTalk(ctx context.Context, t healthcheck.Target, port uint16, config *tls.Config, name string) (*talk, error) {
	d := net.Dialer{KeepAlive: -1} // it does not live long enough for keepalive
	start := time.Now()
	conn, err := d.DialContext(ctx, "tcp", atPort(t, port).String())
	if err != nil {
		return nil, connectError(ctx, start, err)
	}
	raw := conn.(*net.TCPConn)
	// Not the deadline of ctx at once: an early end of ctx (the target was removed) must count, too.
	release := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	k := &talk{Conn: raw, raw: raw, start: start, release: release}
	if config != nil {
		if err := k.secure(ctx, config, name); err != nil {
			k.part(ctx)
			return nil, err
		}
	}
	return k, nil
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

// part ends the connection so that the target sees an orderly end: it closes its half and reads what the target may say
// until the target closes as well. To close with something unread would make the kernel send a reset, at every check, into
// the log of a server that speaks first. What goes wrong here is not the target's health.
func (k *talk) part(ctx context.Context) {
	k.release()
	defer k.raw.Close()
	until := k.partUntil(ctx)
	k.closeNotify(until)
	if k.raw.SetReadDeadline(until) != nil || k.raw.CloseWrite() != nil {
		return
	}
	// Bounded, since a target may talk faster than it takes to stop listening.
	const enough = 64 << 10
	_, _ = io.CopyN(io.Discard, k.raw, enough)
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

// unanswered puts into words that err came instead of an answer. One that is in words already stays as it is.
func (k *talk) unanswered(ctx context.Context, err error) error {
	if said, ok := errors.AsType[*checkError](err); ok {
		return said
	}
	return k.failure(ctx, err, "the answer")
}

// failure puts into words that err came instead of what ("the answer"). It is for errors of reading and writing.
func (k *talk) failure(ctx context.Context, err error, what string) error {
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
		if k.asksCertificate && !isAlert(op.Err, alertInternalError) { // whatever is wrong with ours is told so (RFC 8446, 4.4.2.4)
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

// remoteAlert is the Op of the *net.OpError that crypto/tls returns for an alert. The alert itself has no exported type.
const remoteAlert = "remote error"

// alertInternalError says that something is wrong with the target, and not with what it was shown (RFC 8446, 6.2).
const alertInternalError tls.AlertError = 80

// isAlert reports whether an error of crypto/tls is that alert.
func isAlert(err error, alert tls.AlertError) bool { return err.Error() == alert.Error() }

// handshakeError puts into words why there is no TLS.
func (k *talk) handshakeError(ctx context.Context, err error) error {
	var record tls.RecordHeaderError
	var refused *tls.CertificateVerificationError
	switch {
	case errors.As(err, &refused) && len(refused.UnverifiedCertificates) > 0:
		return certificateError(refused.UnverifiedCertificates[0], refused)
	case errors.As(err, &record):
		// Five bytes are what crypto/tls read, and enough to know SSH, HTTP or SMTP by.
		return unhealthyf("not tls: answer begins with %s", quoted(record.RecordHeader[:])).because(err)
	}
	return k.failure(ctx, err, "the tls handshake")
}

// A budgetReader reads from another reader until more was read than a healthy target says. Then it returns errEndless.
type budgetReader struct {
	r    io.Reader
	left int
}

// errEndless is what is wrong with a target that says more than a healthy one would.
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
