// Package reach says in words why an endpoint could not be reached, and what to do about it: a name without an address,
// a refused connection, a certificate that is not trusted, one side that speaks TLS and the other not.
//
// It connects only to find out what an endpoint speaks that has failed, decides nothing and does not log. Its functions
// may be called from any goroutine. The same cause has the same text: no port of ours, and no address of a DNS server.
package reach

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// What to do if only one side speaks TLS.
const (
	PlainEndpoint  = `it does not speak TLS: needs an endpoint that begins with "http://"`
	SecureEndpoint = `it speaks TLS: needs an endpoint that begins with "https://"`
)

// TLS returns what went wrong in a TLS handshake, and what to do about it. ok is false if err is no such failure.
func TLS(err error) (detail string, ok bool) {
	if unknown, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		by := "an unknown authority"
		if unknown.Cert != nil && unknown.Cert.Issuer.CommonName != "" {
			by = Quote(unknown.Cert.Issuer.CommonName)
		}
		return "its certificate is signed by " + by + ": set ca to a file with the certificate of that authority", true
	}
	if name, is := errors.AsType[x509.HostnameError](err); is {
		return fmt.Sprintf("its certificate is not for %q: set server_name to a name that the certificate has",
			name.Host), true
	}
	if invalid, is := errors.AsType[x509.CertificateInvalidError](err); is {
		if invalid.Reason == x509.Expired {
			return "its certificate has expired or is not valid yet", true
		}
		return "its certificate is not valid: " + strings.TrimPrefix(invalid.Error(), "x509: "), true
	}
	if wrong, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		return "its certificate is not trusted: " + strings.TrimPrefix(wrong.Err.Error(), "x509: "), true
	}
	if alert, is := errors.AsType[tls.AlertError](err); is {
		return ofAlert(alert), true
	}
	if op, is := errors.AsType[*net.OpError](err); is && op.Op == "remote error" {
		if alert, is := op.Err.(tls.AlertError); is {
			return ofAlert(alert), true
		}
		text := op.Err.Error()
		if strings.Contains(text, "certificate") {
			return "it refuses our certificate (" + text + "): set cert and key to a certificate that it trusts", true
		}
		return "it ended the handshake: " + text, true
	}
	if _, is := errors.AsType[tls.RecordHeaderError](err); is { // its text contains an address of ours
		return PlainEndpoint, true
	}
	return "", false
}

// ofAlert returns what an alert of the other side means.
func ofAlert(alert tls.AlertError) string {
	const badCertificate, accessDenied, certificateRequired = 42, 49, 116 // RFC 8446, 6
	if alert >= badCertificate && alert <= accessDenied || alert == certificateRequired {
		return fmt.Sprintf("it refuses our certificate (%s): set cert and key to a certificate that it trusts",
			strings.TrimPrefix(alert.Error(), "tls: "))
	}
	return "it ended the handshake: " + strings.TrimPrefix(alert.Error(), "tls: ")
}

// NoAnswer returns the words for an endpoint that cannot be reached or does not answer.
func NoAnswer(err error) string {
	if d, is := errors.AsType[*net.DNSError](err); is {
		return fmt.Sprintf("its host %q: %v", d.Name, OfHost(err))
	}
	if errors.Is(err, context.Canceled) {
		return "ended"
	}
	return InWords(err)
}

// OfHost returns the error of a lookup without the address of the DNS server, which may differ each time.
func OfHost(err error) error {
	e, is := errors.AsType[*net.DNSError](err)
	switch {
	case is && e.IsNotFound:
		return errors.New("no such host")
	case is && e.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return errors.New("timed out")
	case is:
		return errors.New(e.Err)
	}
	return err
}

// InWords returns the text of err without the addresses that package net adds: our own port differs each time.
func InWords(err error) string {
	if IsTimeout(err) {
		return "timed out"
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		return call.Err.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}

// IsTimeout reports whether err says that something took too long.
func IsTimeout(err error) bool {
	timeout, is := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || is && timeout.Timeout()
}

// maxQuotedBytes bounds a text from outside in an error.
const maxQuotedBytes = 80

// Quote quotes a text from outside for an error, shortened.
func Quote(text string) string {
	if len(text) > maxQuotedBytes {
		return strconv.Quote(text[:maxQuotedBytes]) + "..."
	}
	return strconv.Quote(text)
}
