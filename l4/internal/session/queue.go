package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// enqueue makes a session wait until a backend has room, or refuses it when it may not wait. While it waits it is a
// client's descriptor, a timer and an entry of the pool's queue. It reports false when the session is over.
func (l *Loop) enqueue(s *Session) bool {
	if s.waiter == nil {
		s.waiter = new(pool.Waiter)
	}
	s.phase, s.waiting, s.left = queued, l.Now-s.waiting, tally.NoReason // what it waited before counts
	ref := s.Ref()
	s.waiter.Context = pool.PickContext{Client: s.peer, Name: s.name, Tried: s.tried}
	s.waiter.Serve = func(lease pool.Lease, err error) {
		serve := func() { l.served(ref, lease, err) }
		if !l.Post(serve) {
			panic("l4: a loop is gone whose session still waited for a backend")
		}
	}
	if !l.watchClient(s) {
		l.refuse(s, tally.NoDescriptors)
		return false
	}
	if err := s.pool.Wait(s.waiter); err != nil {
		s.waiting = s.waited(l.Now)
		s.phase = connecting // it does not wait, and waited says what it did before
		if s.pool.QueueMax() == 0 {
			s.waiter = nil // there is no queue
			l.refuse(s, tally.BackendsFull)
		} else {
			l.refuse(s, tally.QueueFull)
		}
		return false
	}
	l.schedule(s)
	return true
}

// waited is how long the session has waited for a backend.
func (s *Session) waited(now time.Duration) time.Duration {
	if s.phase == queued {
		return now - s.waiting
	}
	return s.waiting
}

// served continues a session that the queue has given a backend, or an error that says that there is none.
func (l *Loop) served(ref Ref, lease pool.Lease, err error) {
	s, alive := ref.Get()
	if !alive || s.phase != queued {
		panic("l4: a session ended while the pool's queue still had it")
	}
	s.waiting = s.waited(l.Now)
	s.phase = connecting
	if s.left != tally.NoReason {
		if err == nil {
			lease.Release(pool.Neutral)
		}
		l.refuse(s, s.left)
		return
	}
	if err != nil {
		l.refuse(s, s.whyRefused())
		return
	}
	if lease.Backend().Revoked() { // since it was picked, and so the session waits on
		lease.Release(pool.Neutral)
		l.enqueue(s)
		return
	}
	if started, ended := l.connectTo(s, lease); !started && !ended {
		l.connect(s)
	}
}

// onQueuedClient looks at what the client of a queued session has done. A client that has asked something and closed
// its half may still want the answer. One that has said nothing wants none.
func (l *Loop) onQueuedClient(s *Session) {
	switch {
	case s.client.broken:
		s.noteUnread()
		l.leaveQueue(s, tally.ClientReset)
	case s.client.peerDone && s.prefilled == 0 && sock.AtEnd(int(s.client.fd)):
		l.leaveQueue(s, tally.ClientClosed)
	}
}

// onQueueTimeout ends a session that has waited for as long as it may. The reason says what it waited for in the end:
// for room, or for any backend to become eligible.
func (l *Loop) onQueueTimeout(s *Session) {
	if s.pool.Eligible() == 0 {
		l.leaveQueue(s, s.whyRefused())
		return
	}
	l.leaveQueue(s, tally.QueueTimeout)
}

// leaveQueue ends a session that waits for a backend. When the queue is serving it just now, served ends it, whose
// message is on its way.
func (l *Loop) leaveQueue(s *Session, why tally.Reason) {
	if !s.pool.Leave(s.waiter) {
		s.left = why
		return
	}
	l.refuse(s, why)
}
