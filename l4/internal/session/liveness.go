package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A peer that acknowledges nothing for user_timeout has vanished. The kernel finds it (TCP_USER_TIMEOUT), but it takes
// a receiver that is full for one that has vanished: a pager, a throttled dump. Such a receiver answers the probes of
// its window, so the session turns the kernel's timeout off for it and looks at the answers itself.
//
// A session looks at its connections twice within user_timeout while it has sent something since it last looked, or
// something it has sent is not acknowledged. At rest it does not look, and a request costs it nothing.

// behindLooks is how often a half-closed session looks at a receiver that has yet to take what was sent, if there is no
// user_timeout.
const behindLooks = 30 * time.Second

// betweenLooks is how long a session waits from one look to the next.
func (s *Session) betweenLooks() time.Duration {
	if t := s.settings.UserTimeout; t > 0 {
		return t / 2
	}
	return behindLooks
}

// watches reports whether the session will look at its connections when betweenLooks is over.
func (s *Session) watches() bool { return s.looks && (s.settings.UserTimeout > 0 || s.behind) }

// lookLater makes the session look at its connections later, if there is a user_timeout.
func (l *Loop) lookLater(s *Session) {
	s.looks, s.looked = true, l.Now
	if s.settings.UserTimeout > 0 {
		l.schedule(s)
	}
}

// look looks at both connections. It reports false when the session has ended.
func (l *Loop) look(s *Session) bool {
	client := s.lookAt(&s.client)
	backend := s.lookAt(&s.backend)
	switch {
	case client == peerLost:
		return l.lose(s, &s.client, sock.TimedOut)
	case backend == peerLost:
		return l.lose(s, &s.backend, sock.TimedOut)
	}
	behind := client != peerEven || backend != peerEven
	if s.behind && !behind {
		s.active = l.Now // it has taken the rest
	}
	s.behind, s.looked = behind, l.Now
	s.looks = behind || s.settings.UserTimeout == 0
	return true
}

// What a look at a connection's peer finds.
type peerState uint8

const (
	peerEven   peerState = iota // it has acknowledged all that was sent
	peerBehind                  // it has not; the kernel gives it up at user_timeout
	peerFull                    // it takes no more, and says so
	peerLost                    // it was full, and does not answer any more
)

// lookAt looks at one connection, and sets what the kernel is to do about it.
func (s *Session) lookAt(c *conn) peerState {
	sent, e := sock.Sent(int(c.fd))
	if e != 0 {
		return peerEven // an event will say what is wrong with it
	}
	limit := s.settings.UserTimeout
	if !sent.Full {
		if c.excused {
			c.excused = false
			sock.SetUserTimeout(int(c.fd), limit)
		}
		c.unanswered = false
		if sent.Outstanding {
			return peerBehind
		}
		return peerEven
	}
	if limit == 0 {
		return peerFull
	}
	if !c.excused {
		c.excused = true
		sock.SetUserTimeout(int(c.fd), 0)
	}
	// One probe may be lost, and the last one may have been sent just now: so two of them, at two looks.
	unanswered := sent.Probes >= 2
	if unanswered && c.unanswered && sent.SinceAck >= limit {
		return peerLost
	}
	c.unanswered = unanswered
	return peerFull
}
