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

// TLS checks that a target shakes hands and, with Verify, that its certificate is one that clients accept.
// It is a plain value; its zero value checks the target's own port and takes any certificate.
//
// It judges the certificate after the handshake, so that a bad one does not put an alert into the target's log at each
// check, and so that its days are known in any case. It speaks TLS 1.2 and 1.3.
//
// With TLS 1.3 a server refuses a client's certificate only after the client believes the handshake done. The check
// therefore listens for an alert for as long as it takes to part, see partingTime; a slower refusal is missed.
type TLS struct {
	Port         uint16            // instead of the target's; 0 = the target's
	ServerName   string            // sent as SNI, and what the certificate has to be for; "" = none sent, the target's address
	Verify       bool              // the certificate has to be in force, for the name, and by an authority of Roots
	Roots        *x509.CertPool    // nil = the system's
	Certificates []tls.Certificate // for a target that asks for one
	ALPN         []string          // offered; the target has to choose one of them. None = no ALPN
	MinDays      int               // the certificate has to be in force for so many days more; 0 = not looked at
}

// Check shakes hands with t. Its errors wrap their cause, and ErrInconclusive when that is ours.
func (c TLS) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	k, err := openTalk(ctx, t, c.Port, &tls.Config{
		ServerName:         c.ServerName,
		InsecureSkipVerify: true, // c.judge does it, see TLS; nothing is sent that needs the target to be genuine
		Certificates:       c.Certificates,
		NextProtos:         c.ALPN,
	}, addressName(t))
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.part(ctx)
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

// judge looks at what was agreed on in the handshake.
func (c TLS) judge(t healthcheck.Target, state tls.ConnectionState, now time.Time) (detail string, err error) {
	if len(c.ALPN) > 0 && state.NegotiatedProtocol == "" {
		return "", noProtocol(c.ALPN)
	}
	if len(state.PeerCertificates) == 0 {
		return "", unhealthyf("no certificate") // crypto/tls does not let this pass; an index must not rely on that
	}
	leaf := state.PeerCertificates[0]
	if c.Verify {
		options := x509.VerifyOptions{
			DNSName: c.ServerName, Roots: c.Roots, Intermediates: x509.NewCertPool(), CurrentTime: now,
		}
		if options.DNSName == "" {
			options.DNSName = addressName(t)
		}
		for _, cert := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(cert)
		}
		if _, err := leaf.Verify(options); err != nil {
			return "", certificateError(leaf, err)
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

// noProtocol is the failure of a target that chose none of the protocols it was offered.
func noProtocol(offered []string) error {
	return unhealthyf("no application protocol agreed on, offered %s", quoted([]byte(strings.Join(offered, ", "))))
}

// refusal says goodbye and listens for an alert. Anything else that goes wrong here is not the target's health: some
// servers answer a close_notify with a reset.
func (k *talk) refusal(ctx context.Context) error {
	k.release()
	until := k.partUntil(ctx)
	if k.raw.SetReadDeadline(until) != nil {
		return nil
	}
	k.closeNotify(until)
	const enough = 64 << 10 // of a target that does not stop talking
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

// certificateError puts into words what is wrong with leaf or with what vouches for it.
func certificateError(leaf *x509.Certificate, err error) error {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	var roots x509.SystemRootsError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return outOfForce(leaf, invalid.Cert).because(err)
	case errors.As(err, &name):
		return unhealthyf("certificate is for another name: %s, wanted %s", names(leaf), quoted([]byte(name.Host))).because(err)
	case errors.As(err, &authority) && selfSigned(leaf):
		return unhealthyf("certificate is self-signed").because(err)
	case errors.As(err, &authority):
		return unhealthyf("certificate is by an unknown authority").because(err)
	case errors.As(err, &roots):
		return cannotCheckf("no authorities on this machine").because(err)
	}
	return unhealthyf("certificate refused: %s", escaped(err.Error())).because(err)
}

// outOfForce says that a certificate is not in force today: leaf, or one that vouches for it; nil is leaf.
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

// names returns what a certificate is for.
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

// selfSigned reports whether nobody but cert itself vouches for it.
func selfSigned(cert *x509.Certificate) bool {
	// Not CheckSignatureFrom, which wants an authority.
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) &&
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// date returns the day of t, which is all that a person wants to know of it.
func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// inDays returns "1 day" or "n days".
func inDays(n int) string {
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}
