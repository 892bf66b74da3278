package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/reach"
)

// Kinds of the errors of Sentinels, beside ErrNoMajority, ErrLogin, ErrTLS, ErrNoAnswer and ErrBadAnswer.
const (
	ErrNoSuchMaster = kind("no such master") // the Sentinels watch no master of that name
	ErrNoSentinel   = kind("not a Sentinel") // such as an ordinary Redis server
	ErrUnwilling    = kind("it refused")     // too many clients, protected mode and the like
)

// maxShownReply is how much of a Sentinel's reply is in an error, in characters.
const maxShownReply = 100

// sentinelTimeout bounds the answer of one Sentinel, and each step of a subscription. In a network of their own they
// answer within a millisecond, and across an ocean within half a second.
const sentinelTimeout = time.Second

// A sentinelConn is a connection to a Sentinel, logged in as soon as its first reply is read.
type sentinelConn struct {
	net.Conn
	replies *replyReader
	login   []byte // the command that logs in, until it is sent
	asked   bool   // a login was sent whose reply was not read yet
	secure  bool   // it speaks TLS
	release func() bool
}

// connect connects to an endpoint while ctx is not done. The connection ends with life, if the caller does not close it
// before.
func (s *Sentinel) connect(ctx, life context.Context, endpoint string) (*sentinelConn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return nil, endpointFault(err, false)
	}
	c := &sentinelConn{Conn: raw, secure: s.TLS != nil}
	if s.TLS != nil {
		secure := tls.Client(raw, s.tlsFor(endpoint))
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, handshakeFault(err)
		}
		c.Conn = secure
	}
	c.release = context.AfterFunc(life, func() { raw.Close() })
	c.replies = newReplyReader(c.Conn)
	switch {
	case s.User != "":
		c.login = appendCommand(nil, "AUTH", s.User, s.Password)
	case s.Password != "": // with one argument, since Sentinels before 6.2 have no users
		c.login = appendCommand(nil, "AUTH", s.Password)
	}
	return c, nil
}

// tlsFor returns the settings of TLS for one endpoint.
func (s *Sentinel) tlsFor(endpoint string) *tls.Config {
	if s.TLS.ServerName != "" {
		return s.TLS
	}
	t := s.TLS.Clone()
	t.ServerName, _, _ = net.SplitHostPort(endpoint) // an endpoint without a port is no endpoint
	return t
}

// Close closes the connection.
func (c *sentinelConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// send sends commands, in front of the first ones the login.
func (c *sentinelConn) send(commands []byte) error {
	if c.login != nil {
		commands, c.login, c.asked = append(c.login, commands...), nil, true
	}
	// A Sentinel that has too many clients says so and closes. Its reply can be read even if the write fails, and without
	// a reply the read fails, too.
	_, _ = c.Write(commands)
	if !c.asked {
		return nil
	}
	c.asked = false
	v, err := c.read()
	switch {
	case err != nil:
		return err
	case v.kind != '-':
		return nil
	case strings.HasPrefix(v.text, "DENIED") || strings.HasPrefix(v.text, "ERR max number of clients"):
		return replyFault(v.text)
	case strings.HasPrefix(v.text, "WRONGPASS") || strings.HasPrefix(v.text, "ERR invalid password"):
		return &endpointError{kind: ErrLogin, detail: "wrong user or password"}
	case strings.Contains(v.text, "without any password configured") || strings.Contains(v.text, "no password is set"):
		return &endpointError{kind: ErrLogin, detail: "the Sentinel has no password, so password_file must not be there"}
	}
	// No other text is shown: a server that does not know AUTH repeats its arguments, and with them the password.
	return &endpointError{kind: ErrLogin}
}

// read returns the next reply.
func (c *sentinelConn) read() (redisReply, error) {
	v, err := c.replies.read()
	if err != nil {
		return redisReply{}, endpointFault(err, !c.secure)
	}
	return v, nil
}

// An endpointError says why one Sentinel gave no answer. Its text does not depend on ports or times of ours.
type endpointError struct {
	kind   kind
	detail string // may be empty
}

// Error returns the kind and the detail.
func (e *endpointError) Error() string {
	if e.detail == "" {
		return string(e.kind)
	}
	return string(e.kind) + ": " + e.detail
}

// Unwrap returns the kind.
func (e *endpointError) Unwrap() error { return e.kind }

// endpointFault returns the error of a connection that failed or had something else than replies. plain says that it is
// not encrypted, and that replies were expected.
func endpointFault(err error, plain bool) error {
	const alert = `it begins with '\x15'` // the type of an alert (RFC 8446, 5.1)
	switch {
	case errors.Is(err, errNoRESP) && plain && strings.Contains(err.Error(), alert):
		return &endpointError{ErrTLS, "the server speaks TLS: needs tls = true"}
	case errors.Is(err, errNoRESP):
		return &endpointError{ErrNoSentinel, err.Error()}
	case plain && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return &endpointError{ErrNoAnswer, "it closed the connection; if it speaks TLS, it needs tls = true"}
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return &endpointError{ErrNoAnswer, "it closed the connection"}
	case errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled):
		return &endpointError{ErrNoAnswer, "timed out"}
	}
	if resolving, is := errors.AsType[*net.DNSError](err); is {
		return &endpointError{ErrNoAnswer, fmt.Sprintf("look up %s: %s", resolving.Name, resolving.Err)}
	}
	return &endpointError{ErrNoAnswer, reach.InWords(err)}
}

// handshakeFault returns the error of a TLS handshake.
func handshakeFault(err error) error {
	if _, is := errors.AsType[tls.RecordHeaderError](err); is {
		return &endpointError{ErrTLS, "the server does not speak TLS: needs tls = false"}
	}
	if detail, is := reach.TLS(err); is {
		return &endpointError{ErrTLS, detail}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, io.EOF) ||
		errors.Is(err, net.ErrClosed) {
		return &endpointError{ErrTLS, "no answer to the handshake; if it does not speak TLS, it needs tls = false"}
	}
	return &endpointError{ErrTLS, reach.InWords(err)}
}

// replyFault returns the error that an error reply stands for.
func replyFault(text string) error {
	code, _, _ := strings.Cut(text, " ")
	switch {
	case strings.HasPrefix(text, "ERR No such master"):
		return &endpointError{kind: ErrNoSuchMaster}
	case code == "NOAUTH":
		return &endpointError{ErrLogin, "the Sentinel wants a login: needs password_file"}
	case code == "NOPERM":
		return &endpointError{ErrLogin, "the user may not run SENTINEL and SUBSCRIBE"}
	case strings.HasPrefix(text, "ERR unknown command"):
		return &endpointError{ErrNoSentinel, "it does not know the command SENTINEL, as an ordinary Redis server"}
	case code == "DENIED":
		return &endpointError{ErrUnwilling, "protected mode: it needs a password, or bind"}
	}
	return &endpointError{ErrUnwilling, quoted(text)}
}

// quoted returns the beginning of a text from the network, fit for a log.
func quoted(text string) string { return fmt.Sprintf("%.*q", maxShownReply, text) }
