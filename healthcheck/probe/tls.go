package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// TLS checks that a TLS handshake succeeds and, with Verify, that clients accept the target's certificate.
// It is a plain value; its zero value checks the target's own port and accepts any certificate.
//
// It judges the certificate after the handshake. So a bad certificate does not cause an alert in the target's log at
// each check, and the days that are left are known in any case. It speaks TLS 1.2 and 1.3.
//
// With TLS 1.3 a server refuses a client's certificate only after the handshake is complete for the client. The check
// therefore waits for an alert while it ends the connection, for up to finishTime. It misses a later refusal.
type TLS struct {
	Port         uint16            // instead of the target's; 0 = the target's
	ServerName   string            // sent as SNI, and the certificate must be for it; "" = no SNI, the target's address
	Verify       bool              // the certificate must be in force, for the name, and by an authority of Roots
	Roots        *x509.CertPool    // nil = the system's
	Certificates []tls.Certificate // for a target that asks for a client certificate
	ALPN         []string          // offered protocols; the target must choose one of them. None = no ALPN
	MinDays      int               // the certificate must be in force for so many more days; 0 = it may have expired
}

// Check does a TLS handshake with t. Its errors wrap their cause; if the cause is on this machine, they wrap
// ErrInconclusive as well.
func (c TLS) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	k, err := openConn(ctx, t, c.Port, &tls.Config{
		ServerName:         c.ServerName,
		InsecureSkipVerify: true, // judge verifies, see TLS; nothing confidential is sent
		Certificates:       c.Certificates,
		NextProtos:         c.ALPN,
	}, addressName(t))
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.finish(ctx)
	latency := time.Since(k.start)
	state := k.Conn.(*tls.Conn).ConnectionState()
	detail, err := c.judge(t, state, time.Now())
	if err != nil {
		return healthcheck.Result{}, err
	}
	if err := k.refusal(ctx); err != nil {
		return healthcheck.Result{}, err
	}
	return healthcheck.Result{Latency: latency, Detail: detail}, nil
}

// judge returns what is wrong with the outcome of the handshake, or the detail of a healthy target.
func (c TLS) judge(t healthcheck.Target, state tls.ConnectionState, now time.Time) (detail string, err error) {
	if len(c.ALPN) > 0 && state.NegotiatedProtocol == "" {
		return "", noProtocol(c.ALPN)
	}
	if len(state.PeerCertificates) == 0 {
		return "", unhealthyf("no certificate") // crypto/tls refuses this, but the index below must not rely on it
	}
	leaf := state.PeerCertificates[0]
	if c.Verify {
		name := c.ServerName
		if name == "" {
			name = addressName(t)
		}
		if err := verifyCertificate(state, c.Roots, name, now); err != nil {
			return "", err
		}
	}
	left := leaf.NotAfter.Sub(now)
	days := int(left / (24 * time.Hour))
	switch {
	case left < 0 && c.MinDays > 0:
		return "", unhealthyf("certificate expired on %s", date(leaf.NotAfter))
	case left < 0:
		return "certificate expired on " + date(leaf.NotAfter), nil
	case days < c.MinDays:
		return "", unhealthyf("certificate valid for %s only, wanted %d", inDays(days), c.MinDays)
	}
	return "certificate valid for " + inDays(days), nil
}

// verifyCertificate returns what is wrong with the certificate of a finished handshake: it must be for name, and by an
// authority of roots. If roots is nil, those of the system count.
func verifyCertificate(state tls.ConnectionState, roots *x509.CertPool, name string, now time.Time) error {
	leaf := state.PeerCertificates[0] // crypto/tls refuses a server without one
	options := x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	if _, err := leaf.Verify(options); err != nil {
		return certificateError(leaf, err)
	}
	return nil
}

// noProtocol is the failure of a target that chose none of the protocols it was offered.
func noProtocol(offered []string) error {
	return unhealthyf("no application protocol agreed on, offered %s", quoted([]byte(strings.Join(offered, ", "))))
}

// refusal sends a close_notify and waits for an alert, which it returns as an error. Other errors here say nothing
// about the target's health: some servers answer a close_notify with a reset.
func (k *checkConn) refusal(ctx context.Context) error {
	k.release()
	until := k.closeBy(ctx)
	if k.raw.SetReadDeadline(until) != nil {
		return nil
	}
	k.closeNotify(until)
	const enough = 64 << 10 // a target may send without end
	buf := make([]byte, 4<<10)
	for read := 0; read < enough; {
		n, err := k.Read(buf)
		read += n
		var op *net.OpError
		if errors.As(err, &op) && op.Op == remoteAlert {
			return k.failure(ctx, err, "the end")
		}
		if err != nil {
			return nil
		}
	}
	return nil
}

// certificateError puts into words what is wrong with leaf, or with a certificate of its chain.
func certificateError(leaf *x509.Certificate, err error) error {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	var roots x509.SystemRootsError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return outOfForce(leaf, invalid.Cert).because(err)
	case errors.As(err, &name):
		wanted := quoted([]byte(name.Host))
		return unhealthyf("certificate is for another name: %s, wanted %s", names(leaf), wanted).because(err)
	case errors.As(err, &authority) && selfSigned(leaf):
		return unhealthyf("certificate is self-signed").because(err)
	case errors.As(err, &authority):
		return unhealthyf("certificate is by an unknown authority").because(err)
	case errors.As(err, &roots):
		return cannotCheckf("no authorities on this machine").because(err)
	}
	return unhealthyf("certificate refused: %s", escaped(err.Error())).because(err)
}

// outOfForce is the failure of a certificate that is not in force: leaf, or one of its chain; a nil cert stands for
// leaf.
func outOfForce(leaf, cert *x509.Certificate) *checkError {
	if cert == nil {
		cert = leaf
	}
	own, early := cert.Equal(leaf), time.Now().Before(cert.NotBefore)
	switch {
	case own && early:
		return unhealthyf("certificate not valid before %s", date(cert.NotBefore))
	case own:
		return unhealthyf("certificate expired on %s", date(cert.NotAfter))
	case early:
		return unhealthyf("certificate of the authority not valid before %s", date(cert.NotBefore))
	}
	return unhealthyf("certificate of the authority expired on %s", date(cert.NotAfter))
}

// names returns the names that a certificate is for.
func names(cert *x509.Certificate) string {
	all := cert.DNSNames
	for _, ip := range cert.IPAddresses {
		all = append(all[:len(all):len(all)], ip.String())
	}
	if len(all) == 0 {
		return "none"
	}
	return quoted([]byte(strings.Join(all, ", ")))
}

// selfSigned reports whether cert is signed by its own key.
func selfSigned(cert *x509.Certificate) bool {
	// CheckSignatureFrom would fail if cert is not an authority.
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) &&
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// date returns the day of t in UTC.
func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// inDays returns "1 day" or "n days".
func inDays(n int) string {
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}
