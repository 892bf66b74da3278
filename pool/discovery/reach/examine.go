package reach

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// examineTimeout bounds an attempt to find out what an endpoint speaks.
const examineTimeout = time.Second

// examine connects to an endpoint that has failed, to find out what it speaks.
func examine(ctx context.Context, endpoint string, with func(net.Conn) bool) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	d := net.Dialer{Timeout: examineTimeout}
	c, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	defer c.Close()
	if c.SetDeadline(time.Now().Add(examineTimeout)) != nil {
		return false
	}
	return with(c)
}

// SpeaksTLS reports whether an endpoint, a URL, answers a TLS handshake. It is shown nothing of ours.
func SpeaksTLS(ctx context.Context, endpoint string) bool {
	return examine(ctx, endpoint, func(c net.Conn) bool {
		err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
		_, alert := errors.AsType[tls.AlertError](err)
		return err == nil || alert || isRemoteAlert(err)
	})
}

// isRemoteAlert reports whether err is an alert of the other side of a TLS connection.
func isRemoteAlert(err error) bool {
	op, is := errors.AsType[*net.OpError](err)
	return is && op.Op == "remote error"
}

// WantsCertificate reports whether an endpoint, a URL, asks clients for a certificate.
func WantsCertificate(ctx context.Context, endpoint string) bool {
	asked := false
	examine(ctx, endpoint, func(c net.Conn) bool {
		secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				return &tls.Certificate{}, nil
			}})
		return secure.HandshakeContext(ctx) == nil
	})
	return asked
}

// SpeaksPlain reports whether an endpoint, a URL, answers HTTP without TLS.
func SpeaksPlain(ctx context.Context, endpoint string) bool {
	answer := AskPlain(ctx, endpoint, "/version")
	line, _, whole := strings.Cut(answer, "\n")
	return whole && strings.HasPrefix(line, "HTTP/1.") && !strings.Contains(line, " 400 ")
}

// maxAnswerBytes bounds what is read of an answer.
const maxAnswerBytes = 4 << 10

// AskPlain returns the beginning of the answer to an HTTP request without TLS; "" if there is none.
func AskPlain(ctx context.Context, endpoint, path string) (answer string) {
	examine(ctx, endpoint, func(c net.Conn) bool {
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.0\r\n\r\n"); err != nil {
			return false
		}
		text, err := io.ReadAll(io.LimitReader(c, maxAnswerBytes))
		answer = string(text) // what came before an error counts
		return err == nil
	})
	return answer
}
