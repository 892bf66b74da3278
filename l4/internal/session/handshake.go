package session

import (
	"cmp"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// maxHandshakes is how many handshakes with clients a loop has in progress; more wait in line, in the socket. Each takes
// some 25 KB. Tests set it, before they make a server.
var maxHandshakes = 2048

// handshakePatience is how long a handshake may wait for its client while others wait in line.
const handshakePatience = time.Second

// A Terminator is the Opener of prefaces that end TLS at the listener. It reads the whole ClientHello first, as an
// Inspector, which costs a timer and nothing else. Then begins the handshake.
type Terminator struct {
	Inspector
	server *tlsconn.Server
}

// handshakeTimeout is how long a handshake may take if the server has no limit of its own: no client may stay for ever.
const handshakeTimeout = time.Minute

// NewTerminator makes a Terminator for so many loops. Without routes all clients go to the listener's pool.
func NewTerminator(server *tlsconn.Server, routes []Route, loops int) *Terminator {
	t := &Terminator{server: server}
	t.Inspector = *NewInspector(routes, cmp.Or(server.Settings().HandshakeTimeout, handshakeTimeout), loops)
	t.Inspector.terminator = t
	return t
}

// A shaking is the preface of one session while the handshake with its client is in progress, or waits in line.
type shaking struct {
	on    *Loop
	of    *Terminator
	conn  *tlsconn.Conn // nil while it waits in line
	pass  Pass
	out   loop.ByteQueue         // not taken by the client yet
	place loop.AgePlace[Session] // among those that wait for their clients
}

// shake goes on with a client whose hello is complete, and in the socket. until is the deadline if it is not set yet.
func (t *Terminator) shake(l *Loop, s *Session, h *wire.Hello, pass Pass, until time.Duration) Step {
	if p := s.pool; s.settings.EndsTLS == 0 && s.settings.Farewell != nil {
		if pass.Pool != nil {
			p = pass.Pool
		}
		if s.pool = p; p.Eligible() == 0 && p.QueueMax() == 0 && p.HoldTimeout() == 0 {
			return Refuse(tally.NoBackend) // after the handshake it could not be told
		}
	}
	l.more(s).serverName = string(h.ServerName())
	p := &shaking{on: l, of: t, pass: pass}
	s.preface = p
	s.unread = true // what the client has sent is not what a backend would get
	if l.handshakes >= l.maxHandshakes {
		l.handshakeLine.Put(tlsconn.LaneOf(s.peer.Addr()), s.Ref())
		return More(until)
	}
	step := p.begin(s)
	if step.kind == stepMore && until != 0 {
		step.until = until
	}
	return step
}

// begin begins the handshake.
func (p *shaking) begin(s *Session) Step {
	if p.conn = p.on.threads.Server(p.of.server, s.peer.Addr()); p.conn == nil {
		return Refuse(tally.Drained)
	}
	p.on.handshakes++
	return p.goOn(s)
}

// Phase implements Preface.
func (p *shaking) Phase() string { return "handshaking" }

// Cut implements Preface: the client is owed nothing.
func (p *shaking) Cut(*Session) (whole bool) { return true }

// Release implements Preface.
func (p *shaking) Release(s *Session) {
	l := p.on
	p.out.Release(&l.Buffers)
	l.shaking.Remove(&p.place)
	if p.conn == nil {
		return // its place in the line is found to be empty
	}
	l.handshakes--
	if p.conn != s.clientTLS() {
		p.conn.Close(&l.Buffers)
	}
}

// Step implements Preface.
func (p *shaking) Step(s *Session, why Cause) Step {
	if why == Expired {
		p.count(tally.HandshakeLate, s)
		return Refuse(tally.HandshakeTimeout)
	}
	if e, broken := s.Broken(); broken {
		return p.lost(s, e)
	}
	if p.conn == nil || p.conn.Working() {
		return More(0)
	}
	return p.goOn(s)
}

// lost ends the session of a client that is gone.
func (p *shaking) lost(s *Session, e sock.Errno) Step {
	p.count(tally.HandshakeLeft, s)
	step := Lost(s, e)
	s.unread = true // it has sent a hello
	return step
}

func (p *shaking) count(why tally.HandshakeResult, s *Session) {
	p.on.counters(s).HandshakeFailed(tally.ClientSide, why)
}

// goOn goes on with the handshake as far as it can.
func (p *shaking) goOn(s *Session) Step {
	l := p.on
	p.out.Append(&l.Buffers, p.conn.Outgoing())
	if p.out.Size() > 0 {
		n, e := l.writeClient(s, p.out.Bytes())
		p.out.Done(&l.Buffers, n)
		if e != 0 && e != sock.Again {
			return p.lost(s, e)
		}
		if p.out.Size() > 0 {
			return More(0) // there is an event when there is room
		}
	}
	switch p.conn.Result() {
	case tlsconn.Done:
		return p.done(s)
	case tlsconn.Broken:
		return p.failed(s)
	}
	if !s.client.readable {
		if !p.place.In() {
			l.shaking.Add(&p.place, s)
			s.active = l.Now
		}
		return More(0)
	}
	n, e := sock.Read(int(s.client.fd), l.Scratch)
	switch {
	case n > 0:
		if n < len(l.Scratch) && !s.client.peerDone && !s.client.urgent {
			s.client.readable = false
		}
		p.conn.Feed(l.Scratch[:n])
	case e == 0:
		p.conn.FeedEnd()
	case e == sock.Again:
		s.client.readable = false
		return p.goOn(s)
	default:
		return p.lost(s, e)
	}
	l.shaking.Remove(&p.place)
	p.work(s)
	return More(0)
}

// work has a thread go on with the handshake.
func (p *shaking) work(s *Session) {
	ref, conn, l := s.Ref(), p.conn, p.on
	conn.Go(func() bool {
		return l.Post(func() {
			if !conn.Reported() {
				return
			}
			if s, alive := ref.Get(); alive {
				l.Proceed(s, p.goOn(s))
			}
		})
	})
}

// done passes a session on whose client is served by TLS from now on.
func (p *shaking) done(s *Session) Step {
	l := p.on
	l.countHandshake(s, tally.ClientSide, p.conn)
	l.more(s).client = p.conn
	p.conn.Established(int(s.client.fd), &l.Buffers)
	s.client.readable = true // something may have come behind the handshake
	s.unread = false
	s.active = l.Now
	return PassOn(p.pass)
}

// failed ends a session whose handshake has failed. The client has its alert; what it has sent is read, since to close
// with bytes unread would send a reset, which may overtake the alert.
func (p *shaking) failed(s *Session) Step {
	l := p.on
	err := p.conn.HandshakeError()
	result := handshakeResult(err)
	p.count(result, s)
	l.more(s).failure = err.Error()
	sock.Read(int(s.client.fd), l.Scratch)
	return End(tally.HandshakeFailed, true)
}

// nextHandshakes begins handshakes that wait in line, when there is room for them. If there is none, the one that has
// waited longest for its client makes room.
func (l *Loop) nextHandshakes() {
	for l.handshakeLine.Waiting() > 0 {
		s, alive := l.handshakeLine.First().Get()
		var p *shaking
		if alive {
			p, alive = s.preface.(*shaking)
		}
		if !alive || p.conn != nil {
			l.handshakeLine.Take()
			continue
		}
		if l.handshakes >= l.maxHandshakes && !l.endIdleHandshake() {
			return
		}
		l.handshakeLine.Take()
		l.Proceed(s, p.begin(s))
	}
}

// handshakesDue is when the next handshake may have to make room; false for never.
func (l *Loop) handshakesDue() (time.Duration, bool) {
	if l.handshakeLine.Waiting() == 0 {
		return 0, false
	}
	s := l.shaking.First()
	if s == nil {
		return 0, false
	}
	return s.active + handshakePatience, true
}

// endIdleHandshake ends the handshake that has waited longest for its client. It reports false if none has waited for
// handshakePatience.
func (l *Loop) endIdleHandshake() bool {
	s := l.shaking.First()
	if s == nil || l.Now < s.active+handshakePatience {
		return false
	}
	l.Proceed(s, s.preface.(*shaking).Step(s, Expired))
	return true
}
