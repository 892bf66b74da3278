package session

import (
	"math"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// settleAfter is the age at which a session's backend connection gets its keepalive and user timeout. They count in
// seconds at least, and most sessions are over before: those save five system calls each. It is also when the pool
// learns that the backend has held the connection.
const settleAfter = pool.HeldAfter

type phase uint8

const (
	unused     phase = iota
	prefacing        // a preface has the client, and there is no backend yet
	queued           // waits for a backend with room, or an eligible one
	connecting       // to its backend
	relaying         // bytes between both
	detached         // on its way to another process, and served by nobody; see Detach
)

var phaseNames = [...]string{
	unused: "unused", prefacing: "prefacing", queued: "queued", connecting: "connecting", relaying: "relaying",
	detached: "relaying",
}

// A Session is one client's connection and its backend's. It belongs to one loop; its memory is used again for a later
// session, of another generation.
//
// At rest, nothing kept and no pipe held, it is two descriptors and this struct.
type Session struct {
	loop.Slot[Session]

	phase    phase
	settled  bool         // settleAfter has passed
	inLine   bool         // stands in Loop.again
	watched  bool         // the client's connection is registered
	left     tally.Reason // why a queued session ends that is being served just now, or a detached one; else NoReason
	hurried  bool         // a side broke while its last bytes are held
	looks    bool         // is to look at its connections, see look
	unread   bool         // the client had sent something when it reset its connection
	behind   bool         // at the last look, a peer had not acknowledged all
	first    tally.Reason // ClientClosed or BackendClosed: whose FIN came first; NoReason before
	failed   bool         // the last attempt to connect failed, and no other has begun
	failure  pool.Outcome // how
	shunned  bool         // the backend has ended the connection at once, and nothing had been sent; see outcome
	prefaces uint8        // of settings.Prefaces that have begun
	refused  tally.Reason // why the client is refused, while its farewell is said; NoReason before
	admitted gate.Place   // at its client, at the gate

	prefilled uint32 // bytes of the prefill that the client has sent, and that the backend's counters do not have yet
	name      uint32 // the pool.NameKey of what the client has named last, see pool.NameKind; 0 without one

	id       tally.ID
	listener *Listener
	settings *Settings  // the listener's when the session began
	pool     *pool.Pool // where its backend is picked; nil until a preface says so, if the listener has none
	peer     netip.AddrPort
	lease    pool.Lease
	attempts *attempts               // those that have failed; nil for none
	waiter   *wait                   // nil if it never waited for a backend
	preface  Preface                 // nil but while prefacing
	extra    *extra                  // nil for most
	place    *loop.AgePlace[Session] // among those that are half closed; nil while it is not
	link     *dial.Link              // nil if neither the client is a socket of ours nor the backend a listener

	client, backend conn
	in, out         direction

	timer     loop.Timer[Session]
	accepted  time.Duration // these are moments since Loop.Started
	connect   time.Duration // this attempt began
	connected time.Duration
	asked     time.Duration // the client's first byte was passed on; zero before
	firstByte time.Duration // the backend's first; zero before
	active    time.Duration // bytes last moved
	looked    time.Duration // at its connections, or began to want to
	cause     sock.Errno    // what a call on a lost or reset connection said
}

// InUse implements loop.Slotted.
func (s *Session) InUse() bool { return s.phase != unused }

// Reset implements loop.Slotted. It keeps the memory of attempts.
func (s *Session) Reset() {
	if s.attempts != nil {
		s.attempts.forget()
	}
	*s = Session{Slot: s.Slot, attempts: s.attempts}
}

// onConn handles the event of one side.
func (l *Loop) onConn(s *Session, c *conn, bits uint32) {
	c.note(bits)
	switch s.phase {
	case relaying:
		l.relay(s)
	case connecting:
		if c == &s.backend {
			l.onConnect(s, bits)
		} else if bits&sock.PollError != 0 {
			s.noteUnread()
			l.abandon(s, tally.ClientReset)
		}
	case queued:
		l.onQueuedClient(s)
	case prefacing:
		l.flushClient(s)
		l.Proceed(s, s.preface.Step(s, Ready))
	}
}

// begin makes a session of a client that was accepted and counted, and starts its first preface, or its connect.
func (l *Loop) begin(a *arrival) {
	s := l.take(a)
	if a.looped {
		l.refuse(s, tally.Loop)
		return
	}
	if len(s.settings.Prefaces) > 0 {
		l.nextPreface(s)
		return
	}
	l.choose(s)
}

// take makes a session of a client that was accepted, and that loads this loop.
func (l *Loop) take(a *arrival) *Session {
	s := l.sessions.Take()
	s.id = tally.ID(l.NextID())
	s.listener, s.settings = a.listener, a.listener.settings.Load()
	s.pool = s.settings.Pool
	s.peer, s.link, s.admitted = a.client.Addr, a.client.From, a.place
	if a.unix {
		x := l.more(s)
		x.unix, x.process = true, a.process
	}
	s.client = conn{fd: int32(a.fd), open: true, writable: true}
	s.accepted, s.active = l.Now, l.Now
	return s
}

// choose starts the connect to a backend, when the prefaces are over.
func (l *Loop) choose(s *Session) {
	if s.refused != tally.NoReason {
		l.beginFarewell(s, s.refused)
		return
	}
	if version := s.pool.SendProxy(); version != 0 {
		l.sendProxy(s, version)
	}
	// The client's connection is registered only now, if no preface has done so. A client's first bytes usually wait
	// already, and one wait then brings them together with the backend's answer to the connect.
	if l.connect(s) && !l.watchClient(s) {
		l.abandon(s, tally.NoDescriptors)
	}
}

// watchClient registers the client's connection, unless that was done before. It reports false when it cannot.
func (l *Loop) watchClient(s *Session) bool {
	s.watched = s.watched || l.conns.Add(int(s.client.fd), clientSlot(s), s.Generation()) == 0
	return s.watched
}

// schedule sets the timer to the next moment at which the session must be looked at.
func (l *Loop) schedule(s *Session) {
	at, ok := s.deadline()
	if !ok {
		l.wheel.Stop(&s.timer)
		return
	}
	l.wheel.Arm(&s.timer, s, at)
}

// deadline is when schedule's timer fires; false for never. A preface says itself when.
func (s *Session) deadline() (time.Duration, bool) {
	switch s.phase {
	case queued:
		return s.waiter.due, true
	case connecting:
		return s.connect + s.pool.ConnectTimeout(), true
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
	if x := s.extra; x != nil && x.turns != nil && x.turns.retry > 0 {
		at, due = min(at, x.turns.retry), true
	}
	return at, due
}

// silence is how long neither side may send anything; zero is without limit. A half-closed session is not silent while
// a receiver has yet to take what was sent.
func (s *Session) silence() time.Duration {
	idle, half := s.settings.IdleTimeout, s.settings.HalfCloseTimeout
	if half == 0 || !s.hurried && (s.behind || !s.in.ended && !s.out.ended) {
		return idle
	}
	if idle == 0 {
		return half
	}
	return min(idle, half)
}

// onSessionTimer looks at a session whose timer fired. Bytes moving do not touch the timer, so it often fires early and
// is set again.
func (l *Loop) onSessionTimer(s *Session) {
	switch s.phase {
	case queued:
		l.onWaitTimer(s)
		return
	case connecting:
		l.connectLate(s)
		return
	case prefacing:
		l.Proceed(s, s.preface.Step(s, Expired))
		return
	}
	if s.extra != nil && !l.retryLeave(s) {
		return
	}
	if s.watches() && l.Now >= s.looked+s.betweenLooks() && !l.look(s) {
		return
	}
	if silence := s.silence(); silence > 0 && l.Now >= s.active+silence {
		if !s.heldBack() {
			l.onSilence(s, silence)
			return
		}
		s.active = l.Now // neither side is silent
	}
	if !s.settled && l.Now >= s.connected+settleAfter {
		l.settle(s)
	}
	l.schedule(s)
}

// onSilence ends a session that was silent for too long, unless a receiver has only been slow.
func (l *Loop) onSilence(s *Session, silence time.Duration) {
	switch {
	case silence == s.settings.IdleTimeout:
		l.end(s, tally.Idle)
	case !s.hurried && !l.look(s):
	case !s.hurried && s.behind:
		l.schedule(s)
	case s.client.broken:
		l.lose(s, &s.client, sock.ConnReset)
	case s.backend.broken:
		l.lose(s, &s.backend, sock.ConnReset)
	default:
		l.end(s, tally.HalfClose)
	}
}

// settle does what a session needs that lasts: see settleAfter.
func (l *Loop) settle(s *Session) {
	s.settled = true
	userTimeout := s.settings.UserTimeout
	if s.backend.excused {
		userTimeout = 0
	}
	// An error here leaves the kernel's defaults: the session is no worse for it.
	_ = sock.SetLiveness(int(s.backend.fd), s.settings.KeepAlive, userTimeout)
	if s.firstByte == 0 {
		s.lease.Held()
	}
	if s.extra != nil {
		s.extra.tlvs, s.extra.about = nil, nil // no other backend will get them
	}
}

// end ends a session that was connected to its backend.
func (l *Loop) end(s *Session, why tally.Reason) {
	cut := why.Abrupt() || s.in.held() || s.out.held() || s.owes()
	if !cut {
		s.goodbye()
	}
	s.client.close(cut)
	s.backend.close(cut)
	s.lease.Release(s.outcome(why, l.Now))
	l.flush(s)
	l.forget(s, why)
}

// Cut ends a session in whatever phase it is, for a reason that is neither side's.
func (l *Loop) Cut(s *Session, why tally.Reason) {
	switch s.phase {
	case queued:
		l.leaveQueue(s, why)
	case connecting:
		l.abandon(s, why)
	case relaying:
		l.end(s, why)
	case detached:
		s.left = why // if it comes back
	case prefacing:
		if s.refused != tally.NoReason {
			l.cutFarewell(s, why)
			return
		}
		l.endPreface(s, why, s.preface.Cut(s))
	}
}

// refuse ends a session that has no backend connection and no lease. Its client may be told why first.
func (l *Loop) refuse(s *Session, why tally.Reason) {
	if s.settings.farewell(why) != nil && l.bidFarewell(s, why) {
		return
	}
	l.dismiss(int(s.client.fd), s.listener.Listener, s.settings.refusal(why))
	s.client.open = false
	l.forget(s, why)
}

// probeFor is how long a client has been there at most that only looks whether anybody is. One that has waited for
// longer, and said nothing, may have waited for a backend or for its greeting.
const probeFor = time.Second

// probed reports whether a client has sent nothing and left at once. One that closes its half and takes what the
// backend has to say has come for that.
func (s *Session) probed(why tally.Reason, now time.Duration) bool {
	return (why == tally.ClientReset || why == tally.ClientClosed && s.out.bytes == 0) &&
		s.in.bytes == 0 && !s.unread && now-s.accepted < probeFor
}

// noteUnread notes whether a client that has reset its connection before a backend was there had sent something.
func (s *Session) noteUnread() { s.unread = sock.Unread(int(s.client.fd)) > 0 }

// forget counts and logs a session whose connections are closed, and gives its memory back.
func (l *Loop) forget(s *Session, why tally.Reason) {
	if s.probed(why, l.Now) {
		why = tally.Probe
	}
	if s.refused != tally.NoReason {
		why = s.refused // whatever has become of telling the client
	}
	l.wheel.Stop(&s.timer)
	l.dialer.Forget(s.link)
	l.release(&s.in)
	l.release(&s.out)
	l.releasePreface(s)
	s.forgetHeard()    // before anybody learns that the session is over
	if !why.AtGate() { // it is counted already, and a flood of clients must not flood the log
		l.count(s, why)
		if l.access.Logs(why, why.InOrder(), &l.sample) {
			l.logEnd(s, why)
		}
	}
	l.noMore(s)
	ls, bade := s.listener, s.refused != tally.NoReason
	place, client := s.admitted, s.peer.Addr()
	l.noHalfClosed(s)
	l.sessions.Give(s)
	l.load.Add(-1)
	if bade {
		ls.LeaveFarewell()
	} else if ls.LeaveSession(place, client) {
		l.wakeHeld(ls)
	}
	l.Freed = true
}

// count adds a session that ends to the listener's figures, all but its bytes.
func (l *Loop) count(s *Session, why tally.Reason) {
	c := l.counters(s)
	c.Ended[why].Add(1)
	switch w := s.waiter; {
	case s.phase == relaying:
		c.Duration.Observe(l.Now - s.accepted)
	case w != nil && !w.counted && (why != tally.QueueFull && why != tally.HoldFull || w.waiting > 0):
		c.QueueTime.Observe(s.waited(l.Now))
	}
}

func (l *Loop) counters(s *Session) *tally.Counters { return &s.listener.Counters[l.Index] }

// Entry describes a session.
func (l *Loop) Entry(s *Session) tally.Entry {
	e := tally.Entry{
		ID: s.id, Protocol: sock.TCP, Listener: s.listener.Name, Pool: s.pool, Client: s.peer,
		Phase: phaseNames[s.phase], Began: s.accepted, Active: s.active,
		BytesIn: s.in.bytes, BytesOut: s.out.bytes, Retries: len(s.tried()),
	}
	if s.byUnix() {
		e.Process = s.extra.process
	}
	switch s.phase {
	case prefacing:
		e.Phase = s.preface.Phase()
	case relaying, detached:
		e.Connected = s.connected
	}
	e.Via = s.Via()
	if s.phase != queued {
		e.Backend = s.lease.Backend()
	}
	if s.extra != nil {
		e.Port = s.extra.port
	}
	return e
}
