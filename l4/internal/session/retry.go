package session

import (
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A backend behind a proxy (docker-proxy, kube-proxy, a cloud's balancer) cannot refuse a connection: the proxy accepts
// it, and closes or resets it when nothing answers behind. That is a failed connect in all but name. So a session whose
// backend ends the connection at once is given to another one, as long as no byte has gone either way. Then nothing was
// done that could be done twice, and the client has seen nothing.
//
// "At once" is what endsAtOnce says, the same that counts against the backend. A client that speaks first and at once
// gains little by it: its bytes have usually been passed on before the proxy has closed.

// retry gives a session to another backend whose own has ended the connection at once: that counts as CutEarly and as
// a try. It reports false, and has done nothing, if bytes have moved, no try is left, or there is no other backend: the
// client then sees what the backend has done. If it reports true, the session is being connected, waits, or has ended.
//
// passed says that the relay has begun, and so may have sent the PROXY header, which is no byte of the client: the next
// backend gets it anew. Before, what the session holds for its backend is still all there.
//
// It closes the backend's connection, and so is called while that connection's own event is handled, or outside of a
// batch of events: a later event of the batch would be taken for one of the next connection.
func (l *Loop) retry(s *Session, passed bool) bool {
	if passed && !s.endsAtOnce(l.Now) || !s.untouched() || len(s.tried()) >= s.pool.Retries() {
		return false
	}
	lease, err := s.pool.Pick(pool.PickContext{
		Client: s.peer, Name: s.name, Tried: append(s.excluded(), s.lease.Backend()),
	})
	waits := err == pool.ErrBusy && (s.pool.QueueMax() > 0 || s.pool.Ramping())
	if err != nil && !waits {
		return false
	}
	l.leaveBackend(s)
	l.dialer.Forget(s.link)
	s.fail(s.lease, pool.CutEarly)
	if x := s.extra; x != nil {
		l.unlimit(s, x)
	}
	s.phase, s.first, s.shunned = connecting, tally.NoReason, false
	s.looks, s.behind, s.hurried = false, false, false
	if passed {
		l.release(&s.in)
		s.in, s.out = direction{}, direction{bytes: s.out.bytes, flushed: s.out.flushed}
		if version := s.pool.SendProxy(); version != 0 {
			l.sendProxy(s, version)
		}
	}
	if waits {
		l.enqueue(s, pool.ErrBusy)
	} else if started, ended := l.connectTo(s, lease); !started && !ended {
		l.connect(s)
	}
	return true
}

// untouched reports whether the backend has sent nothing, and the client is still there and has not ended its half.
// With TLS to the backend it is false: the handshake has shown that somebody is there. So it is for a session that was
// held back by its bandwidth, since its last event may be of another batch than the backend's; see retry.
func (s *Session) untouched() bool {
	if s.firstByte > 0 || s.first == tally.ClientClosed || s.in.ended || s.client.broken {
		return false
	}
	x := s.extra
	return x == nil || x.backend == nil && (x.pace == nil || x.pace.in.until == 0 && x.pace.out.until == 0)
}
