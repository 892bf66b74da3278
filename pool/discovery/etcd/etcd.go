// Package etcd keeps a connection to etcd v3: it reads the keys below a prefix, follows their changes, and notices a
// member that hangs, is cut off or has no majority. Discovery and the fleet share it.
//
// It decides nothing about the keys, does not log, and reconnects nothing: a Session ends with the first failure, and
// its owner decides which member comes next. A Session's methods may be called from any goroutine.
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

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
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
	// MaxBytes bounds an answer. The configuration and the history of a cluster may take some hundred kilobytes.
	MaxBytes = 8 << 20
)

// The ends of a session, beside those that the library and the network report.
var (
	// ErrTooMany says that there are more keys than asked for.
	ErrTooMany   = errors.New("there are too many keys")
	ErrLost      = errors.New("the connection was lost")
	ErrCompacted = errors.New("the history of the keys was compacted")
	ErrBehind    = errors.New("the watch does not deliver the changes")
)

// A Login has the settings for the connection to one cluster of etcd. It is a plain value.
type Login struct {
	User, Password string      // "": without a login
	TLS            *tls.Config // for endpoints that begin with https://; nil: as Go does
}

// An Session is one connection to one member of etcd. It ends with the first failure: nothing reconnects it, so
// that the caller decides which member comes next. Its methods may be called from any goroutine.
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

func (e *HandshakeError) Error() string { return e.Err.Error() }
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

// A KeyChange is one key with its new value. It is a plain value.
type KeyChange struct {
	Key      string // without the prefix
	Value    []byte // nil if the key was deleted, and else not nil
	Revision int64  // of the store, at this change
	Lease    int64  // with which the key ends; 0: none
}

// Client returns the client of the session, for requests that are not here.
func (s *Session) Client() *clientv3.Client { return s.client }

// Endpoint returns the member's URL.
func (s *Session) Endpoint() string { return s.endpoint }

// readPage is how many keys one request of Read asks for.
const readPage = 1000

// Read returns up to most keys below a prefix, and the revision of the answer, which a majority of etcd has confirmed.
// The error wraps ErrTooMany if there are more.
func (s *Session) Read(prefix string, most int) (keys []KeyChange, revision int64, err error) {
	for from := prefix; ; {
		ctx, cancel := s.Request()
		r, err := s.client.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)),
			clientv3.WithLimit(readPage), clientv3.WithRev(revision))
		cancel()
		if err != nil {
			return nil, 0, s.Failure(err)
		}
		if revision == 0 {
			revision = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			keys = append(keys, KeyChange{strings.TrimPrefix(string(kv.Key), prefix), kv.Value, kv.ModRevision, kv.Lease})
		}
		if len(keys) > most {
			return nil, 0, ErrTooMany
		}
		if !r.More {
			return keys, revision, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// Names returns up to limit names that stand directly below a prefix. It is only used to explain a mistake.
func (s *Session) Names(prefix string, limit int) []string {
	ctx, cancel := s.Request()
	defer cancel()
	var found []string
	for from := prefix; len(found) <= limit; {
		r, err := s.client.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithKeysOnly(),
			clientv3.WithLimit(1))
		if err != nil || len(r.Kvs) == 0 {
			break
		}
		name, _, below := strings.Cut(strings.TrimPrefix(string(r.Kvs[0].Key), prefix), "/")
		if below {
			found = append(found, name)
			from = clientv3.GetPrefixRangeEnd(prefix + name + "/") // skips the other keys of that name
		} else {
			from = string(r.Kvs[0].Key) + "\x00"
		}
	}
	return found
}

// Follow calls apply with the changes below a prefix after a revision, until the session ends or ctx does. The error
// says why. probed is a key that changes often: if a read finds it newer than what the watch has delivered, the watch
// is of no use any more, which is ErrBehind.
func (s *Session) Follow(
	ctx context.Context, prefix, probed string, revision int64, apply func([]KeyChange),
) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	var seen atomic.Int64 // the last revision that the watch has delivered
	seen.Store(revision)
	var probing sync.WaitGroup
	defer probing.Wait()
	defer cancel()
	probing.Go(func() { s.probe(ctx, probed, &seen) })
	watched := s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	for r := range watched {
		switch err := r.Err(); {
		case r.CompactRevision > 0 || errors.Is(err, rpctypes.ErrCompacted):
			return ErrCompacted
		case err != nil:
			return s.Failure(err)
		}
		var changes []KeyChange
		last := seen.Load() // not the revision of the answer, which may be that of changes still to come
		for _, e := range r.Events {
			last = max(last, e.Kv.ModRevision)
			c := KeyChange{Key: strings.TrimPrefix(string(e.Kv.Key), prefix), Revision: e.Kv.ModRevision, Lease: e.Kv.Lease}
			if e.Type == clientv3.EventTypePut {
				c.Value = append([]byte{}, e.Kv.Value...) // an empty value is no nil
			}
			changes = append(changes, c)
		}
		if len(changes) > 0 {
			apply(changes)
		}
		seen.Store(last)
	}
	return s.Failure(ErrLost)
}

// probe ends the session when a read that needs a majority fails, or when it finds the key newer than what the watch had
// delivered one read earlier.
func (s *Session) probe(ctx context.Context, key string, seen *atomic.Int64) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var known int64 // the revision of the key at the last read
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if known > seen.Load() {
			s.end(ErrBehind)
			return
		}
		request, cancel := s.Request()
		r, err := s.client.Get(request, key)
		cancel()
		if err != nil {
			s.end(s.Failure(err))
			return
		}
		if len(r.Kvs) > 0 {
			known = r.Kvs[0].ModRevision
		}
	}
}
