package l4

import (
	"math"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// settleAfter is the age at which a session's backend connection gets its keepalive and user timeout. They
// count in seconds at least, and most sessions are over before: those save five system calls each. It is also when the pool is told
// that the backend has held the connection.
const settleAfter = pool.HeldAfter

type phase uint8

const (
	unused phase = iota
	asking       // its client's DNS questions are answered, and nothing of it goes to a backend; see dnsTalk
	queued       // waits for a backend with room
	connecting
	relaying
)

// String returns the phase as a lower-case word.
func (p phase) String() string {
	return [...]string{unused: "unused", asking: "asking", queued: "queued", connecting: "connecting", relaying: "relaying"}[p]
}

// A session is one client's connection and its backend's. It belongs to one loop, which uses it onLoop
// only; its memory is used again for a later session, of another generation.
//
// At rest, nothing kept and no pipe held, it is two descriptors and this struct.
type session struct {
	slot[session]

	phase   phase
	settled bool   // settleAfter has passed
	inLine  bool   // stands in loop.again
	watched bool   // the client's connection is registered with the Poller
	left    Reason // why a queued session that is being served just now ends all the same; else reasonNone
	hurried bool   // a side broke while its last bytes are held
	looks   bool   // is to look at its connections, see look
	unread  bool   // the client had sent something when it reset its connection
	behind  bool   // at the last look, a peer had not acknowledged all
	first   Reason // ClientClosed or BackendClosed: whose FIN came first; reasonNone before

	failed  bool         // the last attempt to connect failed, and no other has begun
	failure pool.Outcome // how

	prefilled uint32 // bytes of the prefill that the client has sent, and that the backend's counters do not have yet

	id       uint64
	listener *listener
	settings *ListenerSpec // the listener's when the session began
	pool     *pool.Pool    // that its backend is picked from
	peer     netip.AddrPort
	lease    pool.Lease
	tried    []*pool.Backend
	waiter   *pool.Waiter // nil if it never waited for a backend
	talk     *dnsTalk     // nil but while asking
	link     *link        // nil if neither the client is a socket of ours nor the backend a listener

	client, backend conn
	in, out         direction

	place agePlace[session] // among those that are half closed

	timer     timer
	accepted  time.Duration // these are moments since Server.started
	waiting   time.Duration // began to wait for a backend; once that is over, how long it took
	connect   time.Duration // this attempt began
	connected time.Duration
	asked     time.Duration // the client's first byte was passed on; zero before
	firstByte time.Duration // the backend's first; zero before
	active    time.Duration // bytes last moved
	looked    time.Duration // at its connections, or began to want to
	cause     sock.Errno    // what a call on a lost or reset connection said
	shunned   bool          // the backend has ended the connection at once, and nothing had been sent; see outcome
}

func (s *session) inUse() bool { return s.phase != unused }

// reset keeps the capacity of tried.
func (s *session) reset() {
	clear(s.tried)
	*s = session{slot: s.slot, tried: s.tried[:0]}
}

// A conn is one side of a session. Its readiness is what events said and calls have not yet disproved.
type conn struct {
	fd       int32
	open     bool
	readable bool
	writable bool
	peerDone bool // the peer's FIN is in: a read that does not fill the buffer takes the last
	broken   bool // an error is pending: only reading to the end will tell what and when
	urgent   bool // urgent data came: a short read does not mean that no more is there

	excused    bool // it is full, and the kernel does not give it up for that
	unanswered bool // at the last look, probes of its window had no answer
}

// A direction is one way of the relay.
//
// Invariant: no byte is read while one is held, so at most scratchBytes or a pipe are.
type direction struct {
	bytes  uint64 // taken from the source
	told   uint64 // those of bytes that the listener's and the backend's counters have
	kept   []byte // what the destination would not take; a part of buf
	buf    []byte // of the loop's bufferPool; nil when nothing is kept
	pipe   *sock.Pipe
	rounds uint8 // reads in a row that filled the scratch buffer; in bulk, wake-ups in a row that brought little
	writes uint8 // 0, 1, or more: whether Nagle's algorithm could delay the next
	bulk   bool  // bytes go through a pipe
	ended  bool  // the source's FIN was read
	shut   bool  // and passed on
	dead   bool  // the destination takes no more: it was reset, and its own last bytes are awaited
}

// held tells whether bytes wait for the destination.
func (d *direction) held() bool { return d.buf != nil || d.pipe != nil }

// note takes an event's bits over.
func (c *conn) note(bits uint32) {
	if bits&(sock.PollIn|sock.PollPeerDone|sock.PollError|sock.PollHangup|sock.PollUrgent) != 0 {
		c.readable = true
	}
	if bits&(sock.PollOut|sock.PollError|sock.PollHangup) != 0 {
		c.writable = true
	}
	c.peerDone = c.peerDone || bits&sock.PollPeerDone != 0
	c.broken = c.broken || bits&sock.PollError != 0
	c.urgent = c.urgent || bits&sock.PollUrgent != 0
}

// close closes the connection if it is open, with a reset if cut says so.
func (c *conn) close(cut bool) {
	if !c.open {
		return
	}
	c.open = false
	if cut {
		sock.Reset(int(c.fd))
	} else {
		sock.Close(int(c.fd))
	}
}

// onSession handles one side's event.
func (l *loop) onSession(s *session, c *conn, bits uint32) {
	c.note(bits)
	switch s.phase {
	case relaying:
		l.relay(s)
	case connecting:
		if c == &s.backend {
			l.onConnect(s, bits)
		} else if bits&sock.PollError != 0 {
			s.noteUnread()
			l.abandon(s, ClientReset)
		}
	case queued:
		l.onQueuedClient(s)
	case asking:
		l.onTalk(s, bits)
	}
}

// begin makes a session of a client that was accepted and counted, and starts its connect.
func (l *loop) begin(fd int, peer netip.AddrPort, ls *listener) {
	s := l.sessions.take()
	l.nextID++
	s.id = l.nextID
	s.listener, s.settings = ls, ls.spec.Load()
	s.pool = s.settings.Pool
	s.peer = peer
	s.client = conn{fd: int32(fd), open: true, writable: true}
	s.accepted, s.active = l.now, l.now
	s.timer.session = s
	if c := &l.server.chains; c.open.Load() > 0 && c.comesBack(&s.link, TCP, peer, ls) {
		l.server.noteLoop(ls)
		l.refuse(s, Loop)
		return
	}
	if s.settings.DNS != nil && l.beginTalk(s) {
		return
	}
	// Only now: a client's first bytes usually wait already, and one wait then brings them together
	// with the backend's answer to the connect.
	if l.connect(s) && !l.watchClient(s) {
		l.abandon(s, NoDescriptors)
	}
}

// watchClient registers the client's connection, unless that was done while it waited for a backend. It reports false when
// it cannot.
func (l *loop) watchClient(s *session) bool {
	s.watched = s.watched || l.poller.Add(int(s.client.fd), clientKey(s), s.generation) == 0
	return s.watched
}

// schedule sets the timer to the next moment at which the session must be looked at.
func (l *loop) schedule(s *session) {
	at, ok := s.deadline()
	if !ok {
		l.wheel.stop(&s.timer)
		return
	}
	l.wheel.arm(&s.timer, int64((at+tick-1)/tick))
}

// deadline is when schedule's timer fires; false for never.
func (s *session) deadline() (time.Duration, bool) {
	switch s.phase {
	case queued:
		return s.waiting + s.pool.QueueTimeout(), true
	case connecting:
		return s.connect + s.pool.ConnectTimeout(), true
	case asking:
		return s.active + s.talkSilence(), true
	}
	at, due := time.Duration(math.MaxInt64), false
	if !s.settled {
		at, due = s.connected+settleAfter, true
	}
	if silence := s.silence(); silence > 0 {
		at, due = min(at, s.active+silence), true
	}
	if s.watches() {
		at, due = min(at, s.looked+s.betweenLooks()), true
	}
	return at, due
}

// silence is how long neither side may send anything; zero is without limit. A half-closed session
// is not silent while a receiver has yet to take what was sent.
func (s *session) silence() time.Duration {
	idle, half := s.settings.IdleTimeout, s.settings.HalfCloseTimeout
	if half == 0 || !s.hurried && (s.behind || !s.in.ended && !s.out.ended) {
		return idle
	}
	if idle == 0 {
		return half
	}
	return min(idle, half)
}

// onTimer looks at a session whose timer fired. Bytes moving do not touch the timer, so it often
// fires early and is set again.
func (l *loop) onTimer(s *session) {
	switch s.phase {
	case queued:
		l.onQueueTimeout(s)
		return
	case connecting:
		l.connectFailed(s, pool.ConnectTimeout)
		return
	case asking:
		l.onTalkTimer(s)
		return
	}
	if s.watches() && l.now >= s.looked+s.betweenLooks() && !l.look(s) {
		return
	}
	if silence := s.silence(); silence > 0 && l.now >= s.active+silence {
		switch {
		case silence == s.settings.IdleTimeout:
			l.end(s, Idle)
		case !s.hurried && !l.look(s):
		case !s.hurried && s.behind:
			l.schedule(s)
		case s.client.broken:
			l.lose(s, &s.client, sock.ConnReset)
		case s.backend.broken:
			l.lose(s, &s.backend, sock.ConnReset)
		default:
			l.end(s, HalfClose)
		}
		return
	}
	if !s.settled && l.now >= s.connected+settleAfter {
		s.settled = true
		// An error here leaves the kernel's defaults: the session is no worse for it.
		userTimeout := s.settings.UserTimeout
		if s.backend.excused {
			userTimeout = 0
		}
		_ = sock.SetLiveness(int(s.backend.fd), s.settings.KeepAlive, userTimeout)
		if s.firstByte == 0 {
			s.lease.Held()
		}
	}
	l.schedule(s)
}

// end ends a session that was connected to its backend.
func (l *loop) end(s *session, why Reason) {
	cut := why.abrupt() || s.in.held() || s.out.held()
	s.client.close(cut)
	s.backend.close(cut)
	s.lease.Release(s.outcome(why, l.now))
	l.tell(s)
	l.forget(s, why)
}

// cut ends a session in whatever phase it is, for a reason that is neither side's.
func (l *loop) cut(s *session, why Reason) {
	switch s.phase {
	case queued:
		l.leaveQueue(s, why)
	case connecting:
		l.abandon(s, why)
	case relaying:
		l.end(s, why)
	case asking:
		l.cutTalk(s, why)
	}
}

// refuse ends a session that has no backend connection and no lease.
func (l *loop) refuse(s *session, why Reason) {
	l.dismiss(int(s.client.fd), s.settings.Refuse)
	s.client.open = false
	l.forget(s, why)
}

// probeFor is how long a client has been there at most that only looks whether anybody is. One that has waited for
// longer, and said nothing, may have waited for a backend or for its greeting.
const probeFor = time.Second

// probed tells whether a client has sent nothing and left at once. One that closes its half and takes what the backend
// has to say has come for that.
func (s *session) probed(why Reason, now time.Duration) bool {
	return (why == ClientReset || why == ClientClosed && s.out.bytes == 0) &&
		s.in.bytes == 0 && !s.unread && now-s.accepted < probeFor
}

// noteUnread notes whether a client that has reset its connection before a backend was there had sent something.
func (s *session) noteUnread() { s.unread = sock.Unread(int(s.client.fd)) > 0 }

// forget counts and logs a session whose connections are closed, and gives its memory back.
func (l *loop) forget(s *session, why Reason) {
	if s.probed(why, l.now) {
		why = Probe
	}
	l.wheel.stop(&s.timer)
	l.server.chains.forget(s.link)
	l.release(&s.in)
	l.release(&s.out)
	if s.talk != nil {
		l.endTalk(s)
	}
	s.listener.counters[l.index].count(s, why, l.now)
	if l.server.access.Load() && (why != Probe || l.server.probes.Load()) {
		l.logEnd(s, why)
	}
	ls := s.listener
	ls.halfClosed[l.index].remove(&s.place)
	l.sessions.give(s)
	l.load.Add(-1)
	l.server.leave(ls)
	l.freed = true
}
