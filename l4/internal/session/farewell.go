package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A Farewell tells refused clients in their own protocol why they are refused. Open is called on the loop l, and makes
// the preface that talks to one client. The preface never passes the session on, and ends it with the reason why.
//
// While a farewell is said, the client does not count as a session, and there are only so many farewells at once (see
// gate.Listener.AdmitFarewell). Clients beyond that are turned away as Settings.Refuse says.
type Farewell interface {
	Open(l *Loop, s *Session, why tally.Reason) Preface
}

// hurriedFarewell is how long a farewell may take once the process waits for it to end.
const hurriedFarewell = time.Second

// explained reports whether a reason is one that a client can be told: it wanted a backend, and gets none.
func explained(why tally.Reason) bool {
	switch why {
	case tally.MaxSessions, tally.ClientSessions, tally.ClientRate, tally.Rate, tally.NoBackend, tally.BackendsFull,
		tally.QueueFull, tally.QueueTimeout, tally.HoldFull, tally.HoldTimeout, tally.ConnectFailed,
		tally.BackendTLS, tally.NoSource, tally.NoDescriptors, tally.Drained:
		return true
	}
	return false
}

// bidFarewell begins to tell a client why it is refused. It reports false, and does nothing, if the client cannot be
// told. The session may have ended when it returns.
func (l *Loop) bidFarewell(s *Session, why tally.Reason) bool {
	if !explained(why) || s.refused != tally.NoReason {
		return false
	}
	ends := s.settings.EndsTLS
	if s.clientTLS() != nil && ends == 0 {
		return false // it is told in TLS's own way, which is over
	}
	shaking := ends > 0 && s.clientTLS() == nil && int(s.prefaces) <= ends // and before, nothing can be told
	if shaking && int(s.prefaces) == ends || !s.listener.AdmitFarewell() {
		return false
	}
	if !l.watchClient(s) {
		s.listener.LeaveFarewell()
		return false
	}
	if s.waiter != nil {
		s.waiter.waiting = s.waited(l.Now)
	}
	l.releasePreface(s)
	s.lease = pool.Lease{} // it was given back; a backend that is revoked must not find it
	s.phase, s.refused = prefacing, why
	if s.listener.LeaveSession(s.admitted, s.peer.Addr()) {
		l.wakeHeld(s.listener)
	}
	s.admitted = 0
	l.wheel.Stop(&s.timer)
	if shaking {
		l.nextPreface(s)
	} else {
		l.beginFarewell(s, why)
	}
	if why == tally.Drained {
		l.hurryFarewell(s)
	}
	return true
}

// beginFarewell begins to talk to a client that can be understood now.
func (l *Loop) beginFarewell(s *Session, why tally.Reason) {
	s.phase = prefacing
	s.preface = s.settings.farewell(why).Open(l, s, why)
	l.Proceed(s, s.preface.Step(s, Begun))
}

// turnAway begins to tell a client that was accepted, and is no session, why it is refused. The refusal is counted
// already. It reports false, and does nothing, if the client cannot be told.
func (l *Loop) turnAway(a *arrival, why tally.Reason) bool {
	if !explained(why) || !a.listener.AdmitFarewell() {
		return false
	}
	l.load.Add(1)
	s := l.take(a)
	if !l.watchClient(s) {
		s.refused = why
		l.dismiss(a.fd, s.listener.Listener, s.settings.refusal(why))
		s.client.open = false
		l.forget(s, why)
		return true
	}
	s.phase, s.refused = prefacing, why
	if s.settings.EndsTLS > 0 || s.settings.ForRefused > 0 {
		l.nextPreface(s) // the client understands nothing before its handshake
	} else {
		l.beginFarewell(s, why)
	}
	return true
}

// cutFarewell ends a farewell for a reason that is neither side's, with the reason that the client was refused for. At
// a drain the farewell gets a moment more.
func (l *Loop) cutFarewell(s *Session, why tally.Reason) {
	if why == tally.Drained {
		l.hurryFarewell(s)
		return
	}
	l.endPreface(s, s.refused, s.preface.Cut(s))
}

// hurryFarewell lets a farewell go on for a moment only.
func (l *Loop) hurryFarewell(s *Session) {
	if s.phase == prefacing && s.refused != tally.NoReason {
		l.wheel.Arm(&s.timer, s, l.Now+hurriedFarewell)
	}
}

// TakePrefill moves what the client has sent out of the session's prefill into q. It is called by a farewell, since no
// backend will get the prefill.
func (l *Loop) TakePrefill(s *Session, q *loop.ByteQueue) {
	if !s.in.held() {
		return
	}
	kept := s.in.rest()
	q.Append(&l.Buffers, kept[len(kept)-min(len(kept), int(s.prefilled)):]) // what a preface has added is before it
	l.release(&s.in)
	s.prefilled = 0
}

// ShutWrite sends the client the end of what it gets. What it sends can still be read.
func (l *Loop) ShutWrite(s *Session) {
	if c := s.clientTLS(); c != nil {
		if c.CloseWrite(); c.Owes() {
			return // the end of the session will do
		}
	}
	sock.ShutdownWrite(int(s.client.fd))
}
