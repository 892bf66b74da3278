// Package etcd keeps a connection to etcd v3: it reads the keys below a prefix, follows their changes, and notices a
// member that hangs, is cut off or has no majority. Discovery and the fleet share it.
//
// It decides nothing about the keys, does not log, and reconnects nothing: a Session ends with the first failure, and
// its owner decides which member comes next. Explain says what such a failure means and what to do about it.
//
// A Login is a plain value, and a Session's methods may be called from any goroutine.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const (
	// ConnectTimeout bounds the TCP connection to one member of etcd: the others wait for their turn.
	ConnectTimeout = 2 * time.Second
	// Timeout bounds a login and a request. A member without a leader says so at once; one that takes longer is of
	// no use during a failover.
	Timeout = 3 * time.Second
	// probeEvery is how often a connection is tried by a read that needs a majority. A member that hangs or is cut
	// off is left after this time and Timeout.
	probeEvery = 3 * time.Second
	// ping and pong are for the pings of HTTP/2; shorter pauses are not allowed by the library and by etcd. The
	// kernel gives up sent data that is not confirmed for pong.
	ping = 10 * time.Second
	pong = 3 * time.Second
	// MaxBytes bounds one answer of etcd, and so what the library buffers of it. By default etcd takes no key above
	// 1.5 MiB; a page of keys that is larger is read in smaller ones.
	MaxBytes = 8 << 20
)

// The ends of a session, or of a Follow, beside those that the library and the network report.
var (
	// ErrTooMany says that there are more keys, or more bytes in them, than asked for.
	ErrTooMany = errors.New("there are too many keys")
	// ErrLost says that the connection was made and then lost.
	ErrLost = errors.New("the connection was lost")
	// ErrBehind says that a read has found a change that the watch has not delivered.
	ErrBehind = errors.New("the watch does not deliver the changes")
	// ErrCompacted says that etcd does not have the changes any more that a watch asks for. The session goes on: Read
	// has the present keys.
	ErrCompacted = errors.New("the history of the keys was compacted")
	// ErrFlood says that etcd has more changes to deliver at once than MaxBytes, such as after a long pause. The session
	// goes on: Read has the present keys.
	ErrFlood = errors.New("there are too many changes at once")
)

// A Login has the settings for the connection to one cluster of etcd. It is a plain value.
type Login struct {
	User, Password string      // "": without a login
	TLS            *tls.Config // for endpoints that begin with https://; nil: as Go does
}

// A Session is one connection to one member of etcd. It ends with the first failure: nothing reconnects it, so
// that the caller decides which member comes next. Its methods may be called from any goroutine. The zero value is of no
// use, see Login.Open.
type Session struct {
	// set once, then read-only
	client   *clientv3.Client
	endpoint string
	ctx      context.Context // ends with the session
	end      context.CancelCauseFunc
	dialed   atomic.Bool

	mu sync.Mutex
	// mu guards the field below
	broken error // why the connection could not be made
}

// Open connects to a member of etcd, whose endpoint is a URL, and logs in if there is a user. The caller ends the
// session with Close.
func (l Login) Open(ctx context.Context, endpoint string) (*Session, error) {
	s := &Session{endpoint: endpoint}
	s.ctx, s.end = context.WithCancelCause(ctx)
	options := []grpc.DialOption{
		grpc.WithContextDialer(s.dial),
		// with the 64 KiB of HTTP/2, a page of keys would take several round trips, and Timeout on a slow connection
		grpc.WithInitialWindowSize(MaxBytes), grpc.WithInitialConnWindowSize(MaxBytes),
	}
	if strings.HasPrefix(endpoint, "https://") {
		c := l.TLS
		if c == nil {
			c = &tls.Config{}
		}
		options = append(options,
			grpc.WithTransportCredentials(handshakes{credentials.NewTLS(c.Clone()), c.ServerName, s}))
	}
	var err error
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, Username: l.User, Password: l.Password, Context: s.ctx, DialTimeout: Timeout,
		DialKeepAliveTime: ping, DialKeepAliveTimeout: pong, DialOptions: options,
		MaxCallRecvMsgSize: MaxBytes, MaxUnaryRetries: 2, // the second is for a token that has expired
		Logger: zap.NewNop(),
	})
	if err != nil {
		s.end(nil)
		return nil, s.Failure(err)
	}
	return s, nil
}

// Close ends the session and everything that it has started.
func (s *Session) Close() {
	s.end(nil)
	_ = s.client.Close() // it can only say that its context has ended
}

// dial makes the one connection of the session. The library calls it again when that connection is lost.
func (s *Session) dial(ctx context.Context, addr string) (net.Conn, error) {
	if s.dialed.Swap(true) {
		s.end(ErrLost)
		return nil, ErrLost
	}
	d := net.Dialer{Timeout: ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3,
	}}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		s.breaks(err)
	}
	return c, err
}

// breaks ends the session and notes why its connection could not be made. The library would try again after a second,
// and its error would only have the text of this one.
func (s *Session) breaks(err error) {
	s.mu.Lock()
	s.broken = err
	s.mu.Unlock()
	s.end(err)
}

// handshakes is the TLS of a session, which notes why a handshake failed.
type handshakes struct {
	credentials.TransportCredentials
	name    string // that the certificate must have; "": the endpoint's host. The library knows only the latter
	session *Session
}

// ClientHandshake does the handshake of a connection of ours.
func (h handshakes) ClientHandshake(
	ctx context.Context, authority string, raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	if h.name != "" {
		authority = h.name
	}
	c, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		h.session.breaks(&HandshakeError{err})
	}
	return c, info, err
}

// Clone returns a copy that notes its errors in the same session.
func (h handshakes) Clone() credentials.TransportCredentials {
	return handshakes{h.TransportCredentials.Clone(), h.name, h.session}
}

// A HandshakeError is the error of a TLS handshake.
type HandshakeError struct{ Err error }

// Error returns the text of the library's error.
func (e *HandshakeError) Error() string { return e.Err.Error() }

// Unwrap returns the library's error.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Failure returns the reason of an error: that the connection was not made, or was lost, rather than that a request
// failed because of it.
func (s *Session) Failure(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	if cause := context.Cause(s.ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// Request returns a context for one request, which a member without a leader refuses at once.
func (s *Session) Request() (context.Context, context.CancelFunc) {
	return context.WithTimeout(clientv3.WithRequireLeader(s.ctx), Timeout)
}

// Client returns the client of the session, for requests that are not here.
func (s *Session) Client() *clientv3.Client { return s.client }

// Endpoint returns the member's URL.
func (s *Session) Endpoint() string { return s.endpoint }
