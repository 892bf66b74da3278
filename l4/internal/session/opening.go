package session

import (
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// An opening is what a connection to a backend begins with if it is encrypted: a PROXY header, a protocol's own request
// for TLS, and the handshake. It is a part of connecting, with the same deadline: when it fails, another backend is
// tried, since no byte of the client has gone anywhere.
type opening struct {
	client *tlsconn.Client
	conn   *tlsconn.Conn  // nil until the handshake begins
	out    loop.ByteQueue // not taken by the backend yet
	asked  bool           // the answer to the request for TLS is awaited
}

// tlsOf is how connections to a pool's backends are encrypted; nil if they are not.
func tlsOf(p *pool.Pool) *tlsconn.Client {
	c, _ := p.Secure().(*tlsconn.Client)
	return c
}

// open begins the opening of a connection that was just made.
func (l *Loop) open(s *Session, c *tlsconn.Client) {
	x := l.more(s)
	o := &opening{client: c}
	x.opening = o
	sock.SetNoDelay(int(s.backend.fd))
	o.out.Append(&l.Buffers, x.header)
	if c.Settings().StartTLS {
		o.asked = true
		o.out.Append(&l.Buffers, wire.AppendPostgresSSLRequest(nil))
	} else if !l.beginBackendTLS(s, o) {
		return
	}
	l.goOnOpening(s)
}

// beginBackendTLS begins the handshake. It reports false when there is none, and the session has ended.
func (l *Loop) beginBackendTLS(s *Session, o *opening) bool {
	to := s.addressOf(s.lease.Backend()).AddrPort
	if o.conn = l.threads.Client(o.client, s.extra.serverName, to, s.peer.Addr()); o.conn == nil {
		l.abandon(s, tally.Drained)
		return false
	}
	l.workOnOpening(s, o)
	return true
}

// workOnOpening has a thread go on with the handshake.
func (l *Loop) workOnOpening(s *Session, o *opening) {
	ref, conn := s.Ref(), o.conn
	conn.Go(func() bool {
		return l.Post(func() {
			if !conn.Reported() {
				return
			}
			if s, alive := ref.Get(); alive {
				l.goOnOpening(s)
			}
		})
	})
}

// goOnOpening goes on with an opening as far as it can.
func (l *Loop) goOnOpening(s *Session) {
	o := s.extra.opening
	for {
		if o.conn != nil && o.conn.Working() {
			return
		}
		if o.conn != nil {
			o.out.Append(&l.Buffers, o.conn.Outgoing())
		}
		if e := l.sendOpening(s, o); e == sock.Again {
			return // there is an event when there is room
		} else if e != 0 {
			l.openingFailed(s, e, "")
			return
		}
		if o.conn != nil {
			switch o.conn.Result() {
			case tlsconn.Done:
				l.opened(s, o)
				return
			case tlsconn.Broken:
				l.openingFailed(s, 0, o.conn.HandshakeError().Error())
				return
			}
		}
		if !s.backend.readable {
			return
		}
		if !l.readOpening(s, o) {
			return
		}
	}
}

// sendOpening sends what waits for the backend.
func (l *Loop) sendOpening(s *Session, o *opening) sock.Errno {
	for o.out.Size() > 0 {
		n, e := sock.Write(int(s.backend.fd), o.out.Bytes(), false)
		if e != 0 {
			return e
		}
		o.out.Done(&l.Buffers, n)
	}
	return 0
}

// readOpening reads once from the backend. It reports false when the opening is over, or waits for a thread.
func (l *Loop) readOpening(s *Session, o *opening) bool {
	p := l.Scratch
	if o.asked {
		p = p[:1] // what comes behind the answer is a record, or comes from somebody in between (CVE-2021-23222)
	}
	n, e := sock.Read(int(s.backend.fd), p)
	switch {
	case e == sock.Again:
		s.backend.readable = false
		return false
	case e != 0:
		l.openingFailed(s, e, "")
		return false
	case o.asked && n == 0:
		l.openingFailed(s, 0, "the backend has closed the connection when it was asked for TLS")
		return false
	case o.asked && p[0] != 'S':
		l.openingFailed(s, 0, "the backend does not speak TLS")
		return false
	case o.asked:
		o.asked = false
		l.beginBackendTLS(s, o)
		return false
	case n == 0:
		o.conn.FeedEnd()
	default:
		o.conn.Feed(p[:n])
	}
	l.workOnOpening(s, o)
	return false
}

// opened goes on with a session whose connection to the backend is encrypted now.
func (l *Loop) opened(s *Session, o *opening) {
	x := s.extra
	x.backend, x.opening, x.header = o.conn, nil, nil
	o.out.Release(&l.Buffers)
	l.countHandshake(s, tally.BackendSide, x.backend)
	x.backend.Established(int(s.backend.fd), &l.Buffers)
	s.backend.readable, s.backend.writable = true, true
	l.connectedTo(s)
}

// openingFailed gives the backend back and tries another. e is what a call said about the connection, or text says what
// is wrong with the handshake.
func (l *Loop) openingFailed(s *Session, e sock.Errno, text string) {
	x := s.extra
	s.cause, x.failure = e, text
	result := tally.HandshakeLeft
	if e != 0 {
		x.failure = sock.Text(e)
	} else {
		result = tally.HandshakeRejected
		if c := x.opening.conn; c != nil {
			result = handshakeResult(c.HandshakeError())
		}
	}
	l.counters(s).HandshakeFailed(tally.BackendSide, result)
	l.connectFailed(s, x.opening.outcome(pool.TLSFailed))
}

// outcome is what a failed opening says about the backend: failed, or nothing if the client may be why. A client that names
// the server chooses what the backend has to answer, and clients that make the threads busy delay the handshake.
func (o *opening) outcome(failed pool.Outcome) pool.Outcome {
	if o.client.Settings().FromClient || o.conn != nil && o.conn.Working() {
		return pool.Neutral
	}
	return failed
}

// connectLate gives up a connect that was not over in time, be it the handshake or the connection itself.
func (l *Loop) connectLate(s *Session) {
	outcome := pool.ConnectTimeout
	if x := s.extra; x != nil && x.opening != nil {
		s.cause, x.failure = 0, "the handshake was not over within connect_timeout"
		l.counters(s).HandshakeFailed(tally.BackendSide, tally.HandshakeLate)
		outcome = x.opening.outcome(outcome)
	}
	l.connectFailed(s, outcome)
}

// closeBackendTLS gives up TLS with a backend.
func (l *Loop) closeBackendTLS(s *Session) {
	x := s.extra
	if o := x.opening; o != nil {
		x.opening = nil
		o.out.Release(&l.Buffers)
		if o.conn != nil {
			o.conn.Close(&l.Buffers)
		}
	}
	if x.backend != nil {
		l.counters(s).Secured(tally.BackendSide, false)
		x.backend.Close(&l.Buffers)
		x.backend = nil
	}
}

// leaveBackend closes the connection to a backend that is still being made.
func (l *Loop) leaveBackend(s *Session) {
	s.backend.close(false)
	if s.extra != nil {
		l.closeBackendTLS(s)
	}
}
