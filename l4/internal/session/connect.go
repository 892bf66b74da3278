package session

import (
	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// connect picks a backend for the session and starts connecting to it; a backend that fails at once is
// followed by the next. When there is none the session waits, if it may. It reports false when the session is over.
//
// Nothing of the client has reached a backend yet, so another try is always safe.
func (l *Loop) connect(s *Session) bool {
	for {
		lease, err := s.pool.Pick(pool.PickContext{Client: s.peer, Name: s.name, Tried: s.excluded()})
		if err == pool.ErrBusy {
			return l.enqueue(s, err)
		}
		if err != nil {
			return l.unserved(s)
		}
		if connecting, ended := l.connectTo(s, lease); connecting || ended {
			return connecting
		}
	}
}

// connectTo starts connecting to the backend of a lease. When that fails at once, the lease is given back, and the
// session has ended if it may not try another backend.
func (l *Loop) connectTo(s *Session, lease pool.Lease) (started, ended bool) {
	if s.extra != nil {
		s.extra.failure = ""
	}
	if s.failed {
		s.failed = false
		l.counters(s).Retries[s.failure].Add(1)
	}
	client := dial.Client{By: s.listener.ID, Link: &s.link}
	if lease.Backend().Addr().IsPortless() {
		client.Port = l.ListenerPort(s)
	}
	fd, e := l.dialer.Dial(l.Now, sock.TCP, s.pool, lease.Backend(), client)
	if e == 0 || e == sock.InProgress {
		if e = l.conns.Add(fd, backendSlot(s), s.Generation()); e == 0 {
			s.phase = connecting
			s.lease, s.connect = lease, l.Now
			s.backend = conn{fd: int32(fd), open: true}
			l.schedule(s)
			return true, false
		}
		sock.Close(fd)
	}
	l.dialer.Forget(s.link)
	s.cause = e
	s.fail(lease, dial.Outcome(e))
	switch {
	case sock.OutOfDescriptors(e):
		l.refuse(s, tally.NoDescriptors)
	case len(s.tried()) > s.pool.Retries():
		l.refuse(s, s.whyRefused())
	default:
		return false, false
	}
	return false, true
}

// onConnect handles an event of the backend's connection while it is being made.
//
// A failed attempt's descriptor is closed in the handling of its own event, or by a timer after all
// events of the batch, so no event of it can be taken for one of the next attempt's.
func (l *Loop) onConnect(s *Session, bits uint32) {
	if s.extra != nil && s.extra.opening != nil {
		l.goOnOpening(s)
		return
	}
	if bits&(sock.PollError|sock.PollHangup) != 0 {
		if e := sock.ConnectError(int(s.backend.fd)); e != 0 {
			s.cause = e
			l.connectFailed(s, dial.Outcome(e))
			return
		}
	}
	if bits&sock.PollOut == 0 {
		return
	}
	if c := tlsOf(s.pool); c != nil {
		l.open(s, c)
		return
	}
	l.connectedTo(s)
}

// connectedTo begins to relay, when the session has its backend.
func (l *Loop) connectedTo(s *Session) {
	s.phase = relaying
	s.cause = 0
	s.shunned = s.backend.peerDone || s.backend.broken
	s.connected, s.active = l.Now, l.Now
	s.looks, s.looked = true, l.Now
	s.lease.ConnectTook(s.connected-s.connect, l.Index)
	c := l.counters(s)
	c.ConnectTime.Observe(s.connected - s.connect)
	if s.waiter != nil && !s.waiter.counted {
		s.waiter.counted = true
		c.QueueTime.Observe(s.waiter.waiting)
	}
	if s.shunned && sock.Unread(int(s.backend.fd)) == 0 && l.retry(s, false) {
		return // before any byte is passed on
	}
	l.logBegin(s)
	l.schedule(s)
	l.limit(s)
	l.followTurns(s)
	l.relay(s)
}

// connectFailed gives the backend back and tries another, if retries allow.
func (l *Loop) connectFailed(s *Session, o pool.Outcome) {
	l.leaveBackend(s)
	l.dialer.Forget(s.link)
	s.fail(s.lease, o)
	if len(s.tried()) > s.pool.Retries() {
		l.refuse(s, s.whyRefused())
		return
	}
	l.connect(s)
}

// fail gives the lease of an attempt back that has failed with outcome o.
func (s *Session) fail(lease pool.Lease, o pool.Outcome) {
	lease.Release(o)
	s.triedAt(lease.Backend())
	s.failed, s.failure = true, o
}

// abandon ends a session whose backend is still being connected to, for a reason that is not the backend's.
func (l *Loop) abandon(s *Session, why tally.Reason) {
	l.leaveBackend(s)
	s.lease.Release(pool.Neutral)
	s.triedAt(s.lease.Backend())
	l.refuse(s, why)
}

// whyRefused is the reason when no backend is left to try.
func (s *Session) whyRefused() tally.Reason {
	switch {
	case len(s.tried()) == 0:
		return tally.NoBackend
	case s.extra != nil && s.extra.failure != "":
		return tally.BackendTLS
	case s.cause == sock.NoSource:
		return tally.NoSource
	case sock.CauseOf(s.cause) == sock.OurWant:
		return tally.NoDescriptors
	}
	return tally.ConnectFailed
}
