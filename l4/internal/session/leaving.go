package session

import (
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// A session that is asked to leave its backend ends as soon as nothing is lost by that: at once if it is at rest, or
// when it comes to rest. Its client connects again, and gets another backend.
//
// A client may send something at the very moment. The backend has not got that and never will, so it is not lost but
// not begun, and a client of Postgres reads the error that says so: its connection is closed for writing only, and kept
// for a moment, since a reset would destroy what the client has not read.

const (
	// quiet is how long a session of Redis is silent before it leaves. A client of Redis is not told why its connection
	// ends, so it should not be about to send a command.
	quiet = 100 * time.Millisecond

	// maxUnsent is how many bytes may be on their way to a client that is told to leave: then there is room in the
	// socket's buffer for the error, which must not be sent in part.
	maxUnsent = 4096

	// partingFor is how long the connection of a client that was told to leave is kept at most, and partingTurn is how
	// often the loop looks whether the client has closed it.
	partingFor  = time.Second
	partingTurn = 50 * time.Millisecond
)

// The error of Postgres for a server that shuts down (PostgreSQL documentation, appendix A). Clients and pools of
// connections know it, and connect again.
const (
	adminShutdown     = "57P01"
	adminShutdownText = "terminating connection due to administrator command"
	adminShutdownHint = "The load balancer moves this session to another server. Connect again."
)

// An asking is a round through the sessions, in slices, that asks those of a backend to leave.
type asking struct {
	backend *pool.Backend // nil = of all
	from    int           // the slice that comes next
}

// AskToLeave asks the sessions of a backend that is to be left (pool.Backend.Leaving) to leave it. Sessions of Redis
// leave when they are silent, and once patience has passed in any gap between two commands.
func (l *Loop) AskToLeave(b *pool.Backend, patience time.Duration) {
	l.patience = patience
	if !slices.Contains(l.askings, asking{backend: b}) { // it has not begun
		l.askings = append(l.askings, asking{backend: b})
	}
}

// AskAllToLeave is AskToLeave for the sessions of all backends whose pools drain safely, since the process is to end.
func (l *Loop) AskAllToLeave(patience time.Duration) {
	l.patience, l.emptying = patience, true
	l.askings = append(l.askings, asking{})
}

// takeAskings asks one slice of the sessions.
func (l *Loop) takeAskings() {
	a := &l.askings[0]
	if a.backend == nil || a.backend.Leaving() || a.backend.MayLeave() { // it is not back in use already
		a.from = l.sessions.Some(a.from, func(s *Session) {
			if s.follows() && (a.backend == nil || s.lease.Backend() == a.backend) {
				l.tryLeave(s)
			}
		})
		if a.from >= 0 {
			return
		}
	}
	l.askings = slices.Delete(l.askings, 0, 1)
}

// takeResting looks at the sessions that have come to rest in this batch of events. All that its clients have sent
// before is relayed by now.
func (l *Loop) takeResting() {
	for _, r := range l.resting {
		if s, alive := r.Get(); alive && s.follows() {
			s.extra.turns.inLine = false
			l.tryLeave(s)
		}
	}
	l.resting = l.resting[:0]
}

// follows reports whether the session is connected and follows its turns.
func (s *Session) follows() bool {
	return s.phase == relaying && s.extra != nil && s.extra.turns != nil
}

// isToLeave reports whether a session is to leave its backend.
func (l *Loop) isToLeave(s *Session) bool {
	return (l.mustLeave(s) || l.mayLeave(s)) && s.pool.DrainsSafely()
}

// mustLeave reports whether all sessions of the session's backend are to leave it.
func (l *Loop) mustLeave(s *Session) bool { return l.emptying || s.lease.Backend().Leaving() }

// mayLeave reports whether a session is old enough to leave its backend so that others have a share, and some are to.
func (l *Loop) mayLeave(s *Session) bool {
	return s.lease.Backend().MayLeave() && l.Now-s.connected >= s.pool.RebalanceMinAge()
}

// retryLeave is tryLeave for a session whose moment to try again has come. It reports false when the session has left.
func (l *Loop) retryLeave(s *Session) bool {
	if t := s.extra.turns; t == nil || t.retry == 0 || l.Now < t.retry {
		return true
	}
	s.extra.turns.retry = 0
	return !l.tryLeave(s)
}

// tryLeave ends a session that follows its turns, if it is to leave and nothing is lost by that. Otherwise it is tried
// again when the session comes to rest. It reports whether the session has ended. It is called outside of the handling
// of the session's own events.
func (l *Loop) tryLeave(s *Session) bool {
	t := s.extra.turns
	if !l.isToLeave(s) {
		t.asked, t.retry = 0, 0
		return false
	}
	must := l.mustLeave(s)
	if !must {
		t.asked = 0
	} else if t.asked == 0 {
		t.asked = max(l.Now, 1)
	}
	hurry := must && l.Now >= t.asked+l.patience
	switch {
	case !t.atRest() || s.in.ended || s.out.ended || s.in.dead || s.out.dead:
		return false // what comes next is relayed, and then it is tried again, or it is the end
	case !s.still():
		l.retryLeaveAt(s, l.Now+quiet) // its client may be slow to take the last reply
		return false
	case t.spoken == SpokenRedis && l.Now < s.active+quiet && !hurry:
		l.retryLeaveAt(s, s.active+quiet)
		return false
	case sock.Unsent(int(s.client.fd)) > maxUnsent || !s.listener.AdmitFarewell():
		l.retryLeaveAt(s, l.Now+quiet)
		return false
	case !must && !s.lease.Backend().TakeLeave():
		s.listener.LeaveFarewell()
		return false
	}
	if e := l.tellToLeave(s); e != 0 {
		s.listener.LeaveFarewell()
		if e == sock.Again {
			l.retryLeaveAt(s, l.Now+quiet)
		}
		return false // a broken connection is about to be noticed
	}
	l.part(s)
	return true
}

func (l *Loop) retryLeaveAt(s *Session, at time.Duration) {
	if t := s.extra.turns; t.retry == 0 {
		t.retry = at
		l.schedule(s)
	}
}

// still reports whether nothing is under way in a session: nothing is held, and no side has sent something that is
// unread.
func (s *Session) still() bool {
	return !s.inLine && !s.in.held() && !s.out.held() && !s.owes() && s.client.calm() && s.backend.calm()
}

// calm reports whether the peer of a connection has sent nothing that is unread.
func (c *conn) calm() bool { return !c.peerDone && !c.broken && sock.Unread(int(c.fd)) == 0 }

// tellToLeave tells a session's client, if its protocol has words for it, why the session ends. With sock.Again the
// client cannot be told now.
func (l *Loop) tellToLeave(s *Session) sock.Errno {
	if s.extra.turns.spoken != SpokenPostgres {
		return 0
	}
	said := wire.AppendPostgresFatalHint(l.Scratch[:0], adminShutdown, adminShutdownText, adminShutdownHint)
	if c := s.clientTLS(); c != nil {
		return c.Write(said)
	}
	_, e := s.client.write(said, true) // all of it, see maxUnsent
	return e
}

// part ends a session whose client was told to leave. Its backend gets an orderly end, and its client's connection is
// kept for a moment.
func (l *Loop) part(s *Session) {
	if s.extra.turns.spoken == SpokenPostgres {
		bye := wire.AppendPostgresTerminate(l.Scratch[:0]) // a failure says that the backend knows already
		if c := s.extra.backend; c != nil {
			_ = c.Write(bye)
		} else {
			_, _ = s.backend.write(bye, true)
		}
	}
	s.goodbye()
	sock.ShutdownWrite(int(s.client.fd))
	l.parting = append(l.parting, parting{int(s.client.fd), s.listener.Listener, l.Now + partingFor})
	l.partAt = l.Now + partingTurn
	s.client.open = false
	l.end(s, tally.Moved)
}

// A parting is the connection of a client that was told to leave, and that nothing is sent to any more. It counts as a
// farewell.
type parting struct {
	fd       int
	listener *gate.Listener
	until    time.Duration
}

// endParting closes the connections of clients that were told to leave, and have closed them, too, or had their time.
func (l *Loop) endParting() {
	if len(l.parting) == 0 || l.Now < l.partAt {
		return
	}
	l.partAt = l.Now + partingTurn
	kept := l.parting[:0]
	for _, p := range l.parting {
		n, e := sock.Read(p.fd, l.Scratch) // and so a client that goes on sending is not reset at once
		if (e == 0 && n > 0 || e == sock.Again) && l.Now < p.until {
			kept = append(kept, p)
			continue
		}
		sock.Close(p.fd)
		p.listener.LeaveFarewell()
		l.Freed = true
	}
	l.parting = kept
}
