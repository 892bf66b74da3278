package session

import (
	"net/netip"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// An extra is what few sessions have, so that the others do not pay for it. Its zero value says nothing.
type extra struct {
	// from a PROXY header that has named the client; via is invalid without one
	via   netip.AddrPort // whose connection it is
	local netip.AddrPort // the address that the client has connected to
	tlvs  []byte         // for the backend; nil when it has settled

	about *wire.ProxyTLS // what a PROXY header says of TLS with the client; nil when none was sent, or it has settled

	unix    bool             // the client has come by a Unix socket, and has no address
	process sock.Credentials // and this is its process

	port uint16 // that the client has connected to, if a backend without a port was to be connected to; else 0

	client, backend *tlsconn.Conn // nil where the bytes are plain, or the handshake has not begun
	opening         *opening      // of the backend's connection; nil before and after
	serverName      string        // in the ClientHello of a client with TLS, in lower case; "" without one
	header          []byte        // a PROXY header that the backend gets before its handshake; nil without one
	failure         string        // of the last handshake, for the log; "" for none

	overhears Overhearer // looks at what the backend says first; nil if nobody is to
	overheard bool       // it needs no more

	pace  *pace  // nil without a limit of bandwidth
	turns *turns // nil unless it can be asked to leave its backend
}

// maxFreeExtras is how many of them a loop keeps to be used again.
const maxFreeExtras = 4096

// more returns the session's extra, which it gets if it has none.
func (l *Loop) more(s *Session) *extra {
	if s.extra == nil {
		s.extra = l.freeExtras.Take()
	}
	return s.extra
}

// forgetHeard is the last call of the session's Overhearer, if it has one.
func (s *Session) forgetHeard() {
	if x := s.extra; x != nil && x.overhears != nil {
		x.overhears.Forget(s)
		x.overhears = nil
	}
}

// noMore gives the session's extra back, if it has one.
func (l *Loop) noMore(s *Session) {
	x := s.extra
	if x == nil {
		return
	}
	l.unlimit(s, x)
	l.forgetTurns(x)
	l.closeBackendTLS(s)
	s.extra = nil
	if x.client != nil {
		l.counters(s).Secured(tally.ClientSide, false)
		x.client.Close(&l.Buffers)
	}
	*x = extra{}
	l.freeExtras.GiveUpTo(maxFreeExtras, x)
}

// byUnix reports whether the client has come by a Unix socket.
func (s *Session) byUnix() bool { return s.extra != nil && s.extra.unix }

// ListenerPort is the port of the listener's address that the client has connected to; 0 if it has come by a Unix
// socket, or if the kernel has forgotten it with a connection that was reset. A PROXY header does not change it.
//
// It costs a system call the first time. It is called onLoop.
func (l *Loop) ListenerPort(s *Session) uint16 {
	if s.byUnix() {
		return 0
	}
	x := l.more(s)
	if x.port == 0 {
		if at, err := sock.LocalAddr(int(s.client.fd)); err == nil {
			x.port = at.Port()
		}
	}
	return x.port
}

// BackendPort is the port that a backend without one of its own is, or was, connected at; else it may be 0.
func (s *Session) BackendPort() uint16 {
	if s.extra == nil {
		return 0
	}
	return s.extra.port
}

// addressOf is where a backend of the session is, or was, connected to.
func (s *Session) addressOf(b *pool.Backend) pool.Address {
	at := b.Addr()
	if s.extra != nil {
		at = at.WithPort(s.extra.port)
	}
	return at
}

// Via is whose connection a session has, if a PROXY header has named another client; else it is invalid.
func (s *Session) Via() netip.AddrPort {
	if s.extra == nil {
		return netip.AddrPort{}
	}
	return s.extra.via
}
