package session

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
)

// countHandshake counts a handshake that has succeeded.
func (l *Loop) countHandshake(s *Session, side tally.Side, c *tlsconn.Conn) {
	state := c.State()
	l.counters(s).Handshake(side, state.Version, state.DidResume)
}

// handshakeResult is what the error of a handshake is counted as. crypto/tls has no types for most of its errors.
func handshakeResult(err error) tally.HandshakeResult {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return tally.HandshakeCertificate
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return tally.HandshakeLeft
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return tally.HandshakeRejected // an alert of the peer's
	}
	text := err.Error()
	for _, known := range [...]struct {
		part   string
		result tally.HandshakeResult
	}{
		{"didn't provide a certificate", tally.HandshakeNoCertificate},
		{"unsupported versions", tally.HandshakeVersion},
		{"unsupported version", tally.HandshakeVersion},
		{"cipher suite", tally.HandshakeCipher},
		{"key exchange", tally.HandshakeCipher},
		{"signature algorithms", tally.HandshakeCipher},
		{"application protocol", tally.HandshakeProtocol},
		{"certificate", tally.HandshakeCertificate},
	} {
		if strings.Contains(text, known.part) {
			return known.result
		}
	}
	return tally.HandshakeRejected
}
