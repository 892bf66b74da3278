package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A session waits for a backend under one of two causes: all are full (the pool's queue), or none is eligible (its
// hold). There is one line for both, see pool.Waiter. The cause is the pool's state at each moment, so it may change
// while the session waits. Each cause's timeout counts only the time under that cause: a session that was held for
// almost as long as it may, and whose backends are back and full, still has the queue's whole timeout. So a change
// never ends a wait, each key means what it says, and nobody waits for longer than the sum of both. Without a hold, all
// time counts for the queue.
//
// While the line is only spread over the slow start of backends that are back (the pool's ramp), the time counts for
// neither: who was held is served, and must not be refused meanwhile.
//
// A session that has failed on all eligible backends is held, too, and tries them again while retries last. It does not
// join the line at once, since it would be served at once, and its retries would be gone within a millisecond: it rests
// first. HAProxy's turn-around timer does the same, with the same time.

// maxRest is the longest rest. A shorter connect_timeout says that the backends are near, and makes it shorter.
const maxRest = time.Second

// restLook is how often a resting session looks whether no backend was eligible meanwhile. Then it joins the line at
// once, where a backend that becomes eligible finds it: that is what a failover looks like.
const restLook = 50 * time.Millisecond

// betweenCauses is how often a waiting session looks at least whether the cause has changed, if the other cause's time
// may be over first: how late a refusal after a change may be.
const betweenCauses = 250 * time.Millisecond

// A wait is what a session has that waits for a backend, or has waited.
type wait struct {
	pool.Waiter

	forgiven int           // how many of Session.tried, from the first, may be tried again
	waiting  time.Duration // when the wait began; once it is over, how long all waits have taken

	held    time.Duration // under the hold, before this wait or this part of it
	ramped  time.Duration // while the pool's slow start spread the line, likewise
	barren  time.Duration // the pool's Barren when this wait began
	ramping time.Duration // the pool's Ramped when this wait began
	rested  time.Duration // when the rest began
	rests   bool          // it is not in the line yet
	counted bool          // QueueTime has the wait
	due     time.Duration // when to look at the session

	queueTimeout, holdTimeout time.Duration // as they were when this wait began
}

// enqueue makes a session wait after Pick has returned an error: ErrBusy, or with a hold ErrNoBackend. It refuses the
// session when it may not wait. While it waits it is a client's descriptor, a timer and an entry of the pool's line. It
// reports false when the session is over.
func (l *Loop) enqueue(s *Session, cause error) bool {
	w := l.beginWait(s)
	if !l.watchClient(s) {
		l.refuse(s, tally.NoDescriptors)
		return false
	}
	var err error
	switch {
	case cause == pool.ErrBusy:
		w.Context.Tried = s.excluded()
		err = s.pool.Wait(&w.Waiter)
	case len(s.excluded()) > 0 && s.pool.Eligible() > 0:
		w.rests, w.rested = true, l.Now
		err = s.pool.Rest(&w.Waiter)
	default:
		s.forgive()
		err = s.pool.Hold(&w.Waiter)
	}
	if err != nil {
		l.endWait(s) // it does not wait, and waited says what it did before
		l.refuse(s, s.whyNoPlace(err))
		return false
	}
	l.scheduleWait(s)
	return true
}

// whyNoPlace is the reason when a session may not wait.
func (s *Session) whyNoPlace(err error) tally.Reason {
	switch {
	case err == pool.ErrHoldFull:
		return tally.HoldFull
	case s.pool.QueueMax() > 0:
		return tally.QueueFull
	}
	if s.waiter.waiting == 0 {
		s.waiter = nil // there is no queue
	}
	return tally.BackendsFull
}

// beginWait makes a wait of a session, which is in no line yet.
func (l *Loop) beginWait(s *Session) *wait {
	w := s.waiter
	if w == nil {
		w = new(wait)
		s.waiter = w
	}
	s.phase, w.waiting, s.left = queued, l.Now-w.waiting, tally.NoReason // what it waited before counts
	w.queueTimeout, w.holdTimeout = s.pool.QueueTimeout(), s.pool.HoldTimeout()
	w.rests, w.barren, w.ramping = false, s.pool.Barren(), s.pool.Ramped()
	ref := s.Ref()
	w.Context = pool.PickContext{Client: s.peer, Name: s.name}
	w.Serve = func(lease pool.Lease, err error) {
		serve := func() { l.served(ref, lease, err) }
		if !l.Post(serve) {
			panic("l4: a loop is gone whose session still waited for a backend")
		}
	}
	return w
}

// endWait makes a session go on that has waited.
func (l *Loop) endWait(s *Session) {
	s.waiter.held, s.waiter.ramped = l.held(s), s.waiter.spread(s.pool)
	s.waiter.waiting = s.waited(l.Now)
	s.phase = connecting
}

// forgive lets the backends that have failed the session be tried again.
func (s *Session) forgive() { s.waiter.forgiven = len(s.tried()) }

// excluded are the backends that the session may not be given.
func (s *Session) excluded() []*pool.Backend {
	if s.waiter == nil {
		return s.tried()
	}
	return s.tried()[s.waiter.forgiven:]
}

// waited is how long the session, which has a waiter, has waited for a backend.
func (s *Session) waited(now time.Duration) time.Duration {
	if s.phase == queued {
		return now - s.waiter.waiting
	}
	return s.waiter.waiting
}

// held is how much of the time that a queued session has waited counts for the hold.
func (l *Loop) held(s *Session) time.Duration {
	w := s.waiter
	switch {
	case w.holdTimeout == 0:
		return w.held
	case w.rests:
		return w.held + l.Now - w.rested
	}
	return min(w.held+s.pool.Barren()-w.barren, s.waited(l.Now))
}

// spread is how much of the time that a session has waited the pool's slow start has spread the line.
func (w *wait) spread(p *pool.Pool) time.Duration {
	if w.rests {
		return w.ramped
	}
	return w.ramped + p.Ramped() - w.ramping
}

// waitEnds is when a queued session must be looked at again. If that is l.Now or before, its time is over, for the
// reason why.
func (l *Loop) waitEnds(s *Session) (at time.Duration, why tally.Reason) {
	w, barren := s.waiter, s.pool.Eligible() == 0
	if w.holdTimeout == 0 {
		why = tally.QueueTimeout
		if barren {
			why = s.whyRefused()
		}
		return w.waiting + w.queueTimeout, why
	}
	held := l.held(s)
	left, other := w.queueTimeout-(l.Now-w.waiting-held-w.spread(s.pool)), w.holdTimeout-held
	why = tally.QueueTimeout
	if s.pool.Ramping() && !w.rests {
		return l.Now + max(left, betweenCauses), why
	}
	if barren || w.rests {
		left, other = other, left
		why = tally.HoldTimeout
	}
	if left > 0 {
		left = min(left, max(other, betweenCauses))
	}
	return l.Now + left, why
}

// scheduleWait sets the timer of a queued session.
func (l *Loop) scheduleWait(s *Session) {
	w := s.waiter
	w.due, _ = l.waitEnds(s)
	if w.rests {
		w.due = min(w.due, w.restEnds(s.pool), l.Now+restLook)
	}
	l.schedule(s)
}

// restEnds is when a session that rests has rested long enough.
func (w *wait) restEnds(p *pool.Pool) time.Duration {
	return w.rested + min(maxRest, p.ConnectTimeout())
}

// served continues a session that the queue has given a backend, or an error that says that there is none.
func (l *Loop) served(ref Ref, lease pool.Lease, err error) {
	s, alive := ref.Get()
	if !alive || s.phase != queued {
		panic("l4: a session ended while the pool's queue still had it")
	}
	l.endWait(s)
	if s.left != tally.NoReason {
		if err == nil {
			lease.Release(pool.Neutral)
		}
		l.refuse(s, s.left)
		return
	}
	if err != nil {
		if len(s.excluded()) == 0 { // the pool is closed
			l.refuse(s, s.whyRefused())
			return
		}
		l.unserved(s)
		return
	}
	if lease.Backend().Revoked() { // since it was picked, and so the session waits on
		lease.Release(pool.Neutral)
		if s.pool.HoldTimeout() > 0 {
			l.connect(s)
		} else {
			l.enqueue(s, pool.ErrBusy)
		}
		return
	}
	if started, ended := l.connectTo(s, lease); !started && !ended {
		l.connect(s)
	}
}

// unserved continues a session for which there is no backend: it is held, or refused. It reports false when the session
// is over.
func (l *Loop) unserved(s *Session) bool {
	if s.pool.HoldTimeout() > 0 {
		return l.enqueue(s, pool.ErrNoBackend)
	}
	l.refuse(s, s.whyRefused())
	return false
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

// onWaitTimer ends a rest, or a session that has waited for as long as it may. The reason says what it waited for in
// the end: for room, or for any backend to become eligible.
func (l *Loop) onWaitTimer(s *Session) {
	w := s.waiter
	if at, why := l.waitEnds(s); at <= l.Now {
		l.leaveQueue(s, why)
		return
	}
	if w.rests && (l.Now >= w.restEnds(s.pool) || s.pool.Barren() > w.barren) {
		w.held = l.held(s)
		w.rests, w.barren, w.ramping = false, s.pool.Barren(), s.pool.Ramped()
		s.forgive()
		if err := s.pool.Hold(&w.Waiter); err != nil {
			panic("l4: a session that has rested has lost its place")
		}
	}
	l.scheduleWait(s)
}

// leaveQueue ends a session that waits for a backend. When the queue is serving it just now, served ends it, whose
// message is on its way.
func (l *Loop) leaveQueue(s *Session, why tally.Reason) {
	if !s.pool.Leave(&s.waiter.Waiter) {
		s.left = why
		return
	}
	l.refuse(s, why)
}
