package discovery

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
	// etcdConnectTimeout bounds the TCP connection to one member of etcd: the others wait for their turn.
	etcdConnectTimeout = 2 * time.Second
	// etcdTimeout bounds a login and a request. A member without a leader says so at once; one that takes longer is of
	// no use during a failover.
	etcdTimeout = 3 * time.Second
	// etcdProbeEvery is how often a connection is tried by a read that needs a majority. A member that hangs or is cut
	// off is left after this time and etcdTimeout.
	etcdProbeEvery = 3 * time.Second
	// etcdPing and etcdPong are for the pings of HTTP/2; shorter pauses are not allowed by the library and by etcd. The
	// kernel gives up sent data that is not confirmed for etcdPong.
	etcdPing = 10 * time.Second
	etcdPong = 3 * time.Second
	// maxEtcdBytes bounds an answer. The configuration and the history of a cluster may take some hundred kilobytes.
	maxEtcdBytes = 8 << 20
	// maxEtcdKeys bounds the keys of one cluster: its members and a dozen others.
	maxEtcdKeys = maxClusterMembers + 100
)

var (
	errEtcdLost      = errors.New("the connection was lost")
	errEtcdCompacted = errors.New("the history of the keys was compacted")
	errEtcdBehind    = errors.New("the watch does not deliver the changes")
)

// etcd has the settings for the connection to one cluster of etcd. It is a plain value.
type etcd struct {
	user, password string
	tls            *tls.Config // nil: as Go does
}

// An etcdSession is one connection to one member of etcd. It ends with the first failure: nothing reconnects it, so
// that the caller decides which member comes next. Its methods may be called from any goroutine.
type etcdSession struct {
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

// open connects to a member of etcd, and logs in if there is a user. The caller closes the session.
func (e etcd) open(ctx context.Context, endpoint string) (*etcdSession, error) {
	s := &etcdSession{endpoint: endpoint}
	s.ctx, s.end = context.WithCancelCause(ctx)
	options := []grpc.DialOption{grpc.WithContextDialer(s.dial)}
	if strings.HasPrefix(endpoint, "https://") {
		c := e.tls
		if c == nil {
			c = &tls.Config{}
		}
		options = append(options,
			grpc.WithTransportCredentials(handshakes{credentials.NewTLS(c.Clone()), c.ServerName, s}))
	}
	var err error
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, Username: e.user, Password: e.password, Context: s.ctx, DialTimeout: etcdTimeout,
		DialKeepAliveTime: etcdPing, DialKeepAliveTimeout: etcdPong, DialOptions: options,
		MaxCallRecvMsgSize: maxEtcdBytes, MaxUnaryRetries: 2, // the second is for a token that has expired
		Logger: zap.NewNop(),
	})
	if err != nil {
		s.end(nil)
		return nil, s.failure(err)
	}
	return s, nil
}

// close ends the session and everything that it has started.
func (s *etcdSession) close() {
	s.end(nil)
	_ = s.client.Close() // it can only say that its context has ended
}

// dial makes the one connection of the session. The library calls it again when that connection is lost.
func (s *etcdSession) dial(ctx context.Context, addr string) (net.Conn, error) {
	if s.dialed.Swap(true) {
		s.end(errEtcdLost)
		return nil, errEtcdLost
	}
	d := net.Dialer{Timeout: etcdConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{
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
func (s *etcdSession) breaks(err error) {
	s.mu.Lock()
	s.broken = err
	s.mu.Unlock()
	s.end(err)
}

// handshakes is the TLS of a session, which notes why a handshake failed.
type handshakes struct {
	credentials.TransportCredentials
	name    string // that the certificate must have; "": the endpoint's host. The library knows only the latter
	session *etcdSession
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
		h.session.breaks(&handshakeError{err})
	}
	return c, info, err
}

// Clone returns a copy that notes its errors in the same session.
func (h handshakes) Clone() credentials.TransportCredentials {
	return handshakes{h.TransportCredentials.Clone(), h.name, h.session}
}

// A handshakeError is the error of a TLS handshake.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// failure returns the reason of an error: that the connection was not made, or was lost, rather than that a request
// failed because of it.
func (s *etcdSession) failure(err error) error {
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

// request returns a context for one request, which a member without a leader refuses at once.
func (s *etcdSession) request() (context.Context, context.CancelFunc) {
	return context.WithTimeout(clientv3.WithRequireLeader(s.ctx), etcdTimeout)
}

// A keyChange is one key with its new value; nil if it was deleted.
type keyChange struct {
	key   string // without the prefix
	value []byte
}

// read returns the keys below a prefix, and the revision of the answer, which a majority of etcd has confirmed.
func (s *etcdSession) read(prefix string) (keys []keyChange, revision int64, err error) {
	ctx, cancel := s.request()
	defer cancel()
	r, err := s.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithLimit(maxEtcdKeys))
	if err != nil {
		return nil, 0, s.failure(err)
	}
	if r.More {
		return nil, 0, &ClusterError{Kind: ErrTooMuchData, Detail: "more keys than a cluster has"}
	}
	for _, kv := range r.Kvs {
		keys = append(keys, keyChange{strings.TrimPrefix(string(kv.Key), prefix), kv.Value})
	}
	return keys, r.Header.Revision, nil
}

// names returns up to limit names that stand directly below a prefix. It is only used to explain a mistake.
func (s *etcdSession) names(prefix string, limit int) []string {
	ctx, cancel := s.request()
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

// follow calls apply with the changes below a prefix after a revision, until the session ends. The error says why.
func (s *etcdSession) follow(prefix string, revision int64, apply func([]keyChange)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
	defer cancel()
	var seen atomic.Int64 // the last revision that the watch has delivered
	seen.Store(revision)
	var probing sync.WaitGroup
	defer probing.Wait()
	defer cancel()
	probing.Go(func() { s.probe(ctx, prefix, &seen) })
	watched := s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	for r := range watched {
		switch err := r.Err(); {
		case r.CompactRevision > 0 || errors.Is(err, rpctypes.ErrCompacted):
			return errEtcdCompacted
		case err != nil:
			return s.failure(err)
		}
		var changes []keyChange
		last := seen.Load() // not the revision of the answer, which may be that of changes still to come
		for _, e := range r.Events {
			last = max(last, e.Kv.ModRevision)
			c := keyChange{key: strings.TrimPrefix(string(e.Kv.Key), prefix)}
			if e.Type == clientv3.EventTypePut {
				c.value = append([]byte{}, e.Kv.Value...) // an empty value is no nil
			}
			changes = append(changes, c)
		}
		if len(changes) > 0 {
			apply(changes)
		}
		seen.Store(last)
	}
	return s.failure(errEtcdLost)
}

// probe ends the session when a read that needs a majority fails, or when it finds the leader's key newer than what the
// watch had delivered one read earlier.
func (s *etcdSession) probe(ctx context.Context, prefix string, seen *atomic.Int64) {
	tick := time.NewTicker(etcdProbeEvery)
	defer tick.Stop()
	var known int64 // the revision of the leader's key at the last read
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if known > seen.Load() {
			s.end(errEtcdBehind)
			return
		}
		request, cancel := s.request()
		r, err := s.client.Get(request, prefix+leaderKey)
		cancel()
		if err != nil {
			s.end(s.failure(err))
			return
		}
		if len(r.Kvs) > 0 {
			known = r.Kvs[0].ModRevision
		}
	}
}
