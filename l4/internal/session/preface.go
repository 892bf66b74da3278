package session

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A Preface is what a session does before its backend is chosen: one for each session and kind. A listener's prefaces
// are composed in a row, see Settings. A new kind of preface is a new type, and no session code changes for it. All
// methods are called onLoop.
type Preface interface {
	// Step goes on with the client, and says how. A preface that wants to go on at another moment returns More, and
	// calls Loop.Proceed then.
	Step(s *Session, why Cause) Step

	// Cut is called when the session ends for a reason that is neither side's. The preface sends the client what it
	// still can. whole reports whether all that was sent is whole, so that an orderly end does not mislead the client.
	Cut(s *Session) (whole bool)

	// Release gives back what the preface holds. It is the last call, when the session passes on or has ended.
	Release(s *Session)

	// Phase is what the session is doing, for the list of sessions.
	Phase() string
}

// An Opener makes the prefaces of one kind for a listener's sessions. Open is called on the loop l; nil means that this
// session has no such preface.
type Opener interface {
	Open(l *Loop, s *Session) Preface
}

// A Cause is why a preface goes on.
type Cause uint8

// The causes.
const (
	Begun   Cause = iota // the preface is new
	Ready                // something has happened to the client's connection, perhaps before this preface began
	Expired              // the moment has come that More named
)

// A Step is how a preface goes on. Its zero value is More without a moment.
type Step struct {
	kind   stepKind
	until  time.Duration
	pass   Pass
	reason tally.Reason
	whole  bool
}

type stepKind uint8

const (
	stepMore stepKind = iota
	stepPass
	stepRefuse
	stepEnd
)

// More waits for the client. until is the moment of the next Expired; 0 leaves the moment as it was.
func More(until time.Duration) Step { return Step{kind: stepMore, until: until} }

// A Pass is what a preface has found out. The zero value changes nothing.
type Pass struct {
	Pool   *pool.Pool     // where the backend is picked; nil = as before
	Client netip.AddrPort // who the client really is, and whom the gate is asked about; invalid = as before
	Name   uint32         // the pool.NameKey of what the client has named, see pool.NameKind; 0 = as before
	Skip   int            // bytes that the preface has peeked at and that are not for the backend
	Omit   int            // of the prefaces that follow, how many this session leaves out
}

// PassOn ends the preface, and the session goes on to the next one, or to its backend.
func PassOn(p Pass) Step { return Step{kind: stepPass, pass: p} }

// Refuse ends the session, and turns the client away as the listener's settings say.
func Refuse(why tally.Reason) Step { return Step{kind: stepRefuse, reason: why} }

// End ends the session. whole reports whether all that was sent is whole, as for Preface.Cut.
func End(why tally.Reason, whole bool) Step { return Step{kind: stepEnd, reason: why, whole: whole} }

// refusedPatience is how long a refused client may take for each preface that it goes through before it can be told
// why. The listener's own limits may be an hour, and there are only so many places for such clients.
const refusedPatience = 5 * time.Second

// nextPreface begins the next preface of a session, or chooses its backend after the last one.
func (l *Loop) nextPreface(s *Session) {
	last := len(s.settings.Prefaces)
	if s.refused != tally.NoReason {
		last = max(s.settings.EndsTLS, s.settings.ForRefused) // what follows would serve it
	}
	for int(s.prefaces) < last {
		opener := s.settings.Prefaces[s.prefaces]
		s.prefaces++
		if s.preface = opener.Open(l, s); s.preface == nil {
			continue
		}
		s.phase = prefacing
		seen := s.watched && (s.client.readable || s.in.ended) // there may be no event of that any more
		if !l.watchClient(s) {
			l.refuse(s, tally.NoDescriptors)
			return
		}
		step := s.preface.Step(s, Begun)
		if s.refused != tally.NoReason && step.until != 0 {
			step.until = min(step.until, l.Now+refusedPatience)
		}
		l.Proceed(s, step)
		if step.kind == stepMore && seen {
			l.Proceed(s, s.preface.Step(s, Ready))
		}
		return
	}
	l.choose(s)
}

// Proceed does what a preface's step says. A preface calls it for steps that it takes outside Step.
func (l *Loop) Proceed(s *Session, step Step) {
	switch step.kind {
	case stepMore:
		if step.until != 0 {
			l.wheel.Arm(&s.timer, s, step.until)
		}
	case stepPass:
		l.passOn(s, &step.pass)
	case stepRefuse:
		l.flush(s)
		l.refuse(s, step.reason)
	case stepEnd:
		l.endPreface(s, step.reason, step.whole)
	}
}

// passOn ends a session's preface, and begins what follows.
func (l *Loop) passOn(s *Session, p *Pass) {
	l.flush(s)
	l.releasePreface(s)
	l.wheel.Stop(&s.timer) // its moment means nothing to the next one
	s.phase = connecting   // until connect says otherwise
	s.prefaces += uint8(p.Omit)
	if p.Pool != nil {
		s.pool = p.Pool
	}
	if p.Client.IsValid() {
		s.peer = p.Client
		if why := s.listener.AdmitNamed(s.peer, &s.admitted, l.Now); why != gate.Admitted {
			if why.Ends().AtGate() {
				l.counters(s).Ended[why.Ends()].Add(1)
			}
			l.refuse(s, why.Ends())
			return
		}
	}
	if p.Name != 0 {
		s.name = p.Name
	}
	for left := p.Skip; left > 0; {
		n, e := sock.Read(int(s.client.fd), l.Scratch[:min(left, len(l.Scratch))])
		if n == 0 || e != 0 { // it was there a moment ago
			s.cause = e
			l.endPreface(s, tally.ClientReset, false)
			return
		}
		left -= n
	}
	l.nextPreface(s)
}

// endPreface ends a session that has no backend yet. If all that was sent is whole, a drain is an orderly end to it.
func (l *Loop) endPreface(s *Session, why tally.Reason, whole bool) {
	cut := why.Abrupt() && why != tally.Drained || !whole || s.owes()
	if !cut {
		s.goodbye()
	}
	s.client.close(cut)
	l.flush(s)
	l.forget(s, why)
}

// releasePreface gives back what the session's preface holds, if it has one.
func (l *Loop) releasePreface(s *Session) {
	if p := s.preface; p != nil {
		s.preface = nil
		p.Release(s)
	}
}

// Lost ends a session whose client is gone; e says how, and is zero if nobody knows.
func Lost(s *Session, e sock.Errno) Step {
	s.cause = e
	s.noteUnread()
	if e == 0 || e == sock.ConnReset || e == sock.BrokenPipe {
		return End(tally.ClientReset, false)
	}
	return End(tally.ClientLost, false)
}

// Preface returns the session's preface; nil if it has none now.
func (s *Session) Preface() Preface { return s.preface }

// Ref returns a Ref to the session.
func (s *Session) Ref() Ref { return loop.RefTo(s) }

// Client is the client's address and port: those that a PROXY header has named, if there was one, and else those of the
// connection.
func (s *Session) Client() netip.AddrPort { return s.peer }

// Came returns the session's link if its client is a socket of this process; nil otherwise.
func (s *Session) Came() *dial.Link { return s.link }

// Pool is where the session's backend is picked.
func (s *Session) Pool() *pool.Pool { return s.pool }

// Listener is the listener that the client has come by.
func (s *Session) Listener() *Listener { return s.listener }

// Settings are what the session began with. They are read-only.
func (s *Session) Settings() *Settings { return s.settings }

// Active is when the client last did something.
func (s *Session) Active() time.Duration { return s.active }

// SetActive says that the client did something at that moment.
func (s *Session) SetActive(at time.Duration) { s.active = at }

// Readable reports whether Read may find something.
func (s *Session) Readable() bool { return s.client.readable }

// Writable reports whether Write may send something. There is an event when it may again.
func (s *Session) Writable() bool { return s.client.writable && !s.owes() }

// Ended reports whether the client has sent its FIN, and all before it was read.
func (s *Session) Ended() bool { return s.in.ended }

// Broken reports whether the client's connection is broken, and how.
func (s *Session) Broken() (e sock.Errno, broken bool) {
	if !s.client.broken {
		return 0, false
	}
	return sock.ConnectError(int(s.client.fd)), true
}

// Read reads from the client into Loop.Scratch, once, and counts the bytes. It returns no bytes at the client's FIN,
// which Ended then reports, and with sock.Again when there is nothing. Behind TLS it reads what was encrypted.
func (l *Loop) Read(s *Session) (n int, e sock.Errno) {
	if c := s.clientTLS(); c != nil {
		return l.readSecure(s, c)
	}
	n, e = l.readClient(s)
	s.in.bytes += uint64(n)
	return n, e
}

// readClient reads from the client's connection into Loop.Scratch, once.
func (l *Loop) readClient(s *Session) (n int, e sock.Errno) {
	c := &s.client
	n, e = sock.Read(int(c.fd), l.Scratch)
	switch {
	case e == sock.Again:
		c.readable, c.urgent = false, false
	case e != 0:
	case n == 0:
		s.endOf(&s.in, l.Now)
	case n < len(l.Scratch) && !c.urgent: // see copyOnce
		c.readable = false
		if c.peerDone {
			s.endOf(&s.in, l.Now)
		}
	}
	return n, e
}

// Write sends the client as much of p as its connection takes, and counts the bytes. With sock.Again it takes no more
// for now. Behind TLS it encrypts them first.
func (l *Loop) Write(s *Session, p []byte) (n int, e sock.Errno) {
	if c := s.clientTLS(); c != nil {
		return l.writeSecure(s, c, p)
	}
	n, e = l.writeClient(s, p)
	s.out.bytes += uint64(n)
	return n, e
}

// writeClient sends the client's connection as much of p as it takes.
func (l *Loop) writeClient(s *Session, p []byte) (n int, e sock.Errno) {
	for n < len(p) {
		one, e := sock.Write(int(s.client.fd), p[n:], false)
		if e != 0 {
			if e == sock.Again {
				s.client.writable = false
			}
			return n, e
		}
		n += one
		s.active = l.Now
	}
	return n, 0
}
