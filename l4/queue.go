package l4

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// enqueue has a session wait until a backend has room, or refuses it when it may not. While it waits it is a client's
// descriptor, a timer and an entry of the pool's queue. It reports false when the session is over.
func (l *loop) enqueue(s *session) bool {
	if s.waiter == nil {
		s.waiter = new(pool.Waiter)
	}
	s.phase, s.waiting, s.left = queued, l.now-s.waiting, reasonNone // what it waited before counts
	generation := s.generation
	s.waiter.Context = pool.PickContext{Client: s.peer, Tried: s.tried}
	s.waiter.Serve = func(lease pool.Lease, err error) {
		serve := func() { l.served(s, generation, lease, err) }
		if !l.mailbox.post(message{do: serve}) {
			panic("l4: a loop is gone whose session still waited for a backend")
		}
	}
	if !l.watchClient(s) {
		l.refuse(s, NoDescriptors)
		return false
	}
	if err := s.pool.Wait(s.waiter); err != nil {
		s.waiting = s.waited(l.now)
		s.phase = connecting // it does not wait, and waited says what it did before
		if s.pool.QueueMax() == 0 {
			s.waiter = nil // there is no queue
			l.refuse(s, BackendsFull)
		} else {
			l.refuse(s, QueueFull)
		}
		return false
	}
	l.schedule(s)
	return true
}

// waited is how long the session has waited for a backend.
func (s *session) waited(now time.Duration) time.Duration {
	if s.phase == queued {
		return now - s.waiting
	}
	return s.waiting
}

// served takes up a session that the queue gave a backend, or told that there is none.
func (l *loop) served(s *session, generation uint32, lease pool.Lease, err error) {
	if s.generation != generation || s.phase != queued {
		panic("l4: a session ended while the pool's queue still had it")
	}
	s.waiting = s.waited(l.now)
	s.phase = connecting
	if s.left != reasonNone {
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

// onQueuedClient looks at what the client of a queued session has done. One that has asked something and closed its half
// may still want the answer; one that has said nothing wants none.
func (l *loop) onQueuedClient(s *session) {
	switch {
	case s.client.broken:
		s.noteUnread()
		l.leaveQueue(s, ClientReset)
	case s.client.peerDone && !s.in.held() && sock.AtEnd(int(s.client.fd)):
		l.leaveQueue(s, ClientClosed)
	}
}

// onQueueTimeout ends a session that has waited for as long as it may. The reason says what it waited for in the end: for room, or for
// any backend to become eligible.
func (l *loop) onQueueTimeout(s *session) {
	if s.pool.Eligible() == 0 {
		l.leaveQueue(s, s.whyRefused())
		return
	}
	l.leaveQueue(s, QueueTimeout)
}

// leaveQueue ends a session that waits for a backend. When it is being served just now, that is left to served, whose
// message is on its way.
func (l *loop) leaveQueue(s *session, why Reason) {
	if !s.pool.Leave(s.waiter) {
		s.left = why
		return
	}
	l.refuse(s, why)
}
