package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// This file is how a preface of another package looks at what a client has sent, and leaves it where it is: the backend
// then gets it from the relay like any other bytes, and the session that waits for more has no buffer.

// Peeks reports whether Peek works for the session's client: not behind TLS. There a preface must Read, and give the
// backend what it has read as Prefill.
func (s *Session) Peeks() bool { return s.clientTLS() == nil }

// Peek returns the client's first unread bytes, at most n, without taking them. They stand in Loop.Scratch. With
// sock.Again there are none yet, and without an error and without bytes there will be none.
func (l *Loop) Peek(s *Session, n int) (p []byte, e sock.Errno) {
	n, e = sock.Peek(int(s.client.fd), l.Scratch[:n])
	if e == sock.Again {
		s.client.readable = false
	}
	return l.Scratch[:n], e
}

// stages are the two prefaces, used onLoop only, that all sessions of a loop have while they wait for a client's first
// bytes in the socket: untouched until the client has sent a part of them, and then marked, with a low-water mark.
type stages struct{ untouched, marked Preface }

// release is Preface.Release: a session that goes on to a backend hears of each byte again.
func (g *stages) release(l *Loop, s *Session, p Preface) {
	if p == g.marked {
		l.Wake(s)
	}
}

// glance returns what the client of a waiting session has sent, at most n bytes in Loop.Scratch. ok is false if there is
// nothing to look at: then the preface's step is the one returned.
func (l *Loop) glance(s *Session, n int, until time.Duration) (sent []byte, step Step, ok bool) {
	switch {
	case !s.client.readable:
		return nil, More(until), false
	case s.client.broken:
		s.noteUnread()
		e, _ := s.Broken()
		return nil, Lost(s, e), false
	}
	sent, e := l.Peek(s, n)
	if e != 0 && e != sock.Again {
		return nil, Lost(s, e), false
	}
	return sent, Step{}, true
}

// await lets a session sleep until the client has sent need bytes, of which sent are there, unless the rest will never
// come. p is the session's preface, and one of g.
func (g *stages) await(s *Session, p Preface, sent []byte, need int, until time.Duration) Step {
	if s.client.peerDone {
		s.unread = len(sent) > 0
		return End(tally.ClientClosed, true)
	}
	s.client.readable = false
	// A mark that is set already is not set again: the kernel would report the socket for that when its buffer is full of
	// small segments, and the loop would spin.
	if len(sent) > 0 && (p != g.marked || sock.ReadLowWater(int(s.client.fd)) != need) {
		sock.SetReadLowWater(int(s.client.fd), need)
		s.preface = g.marked
	}
	return More(until)
}

// Take reads n bytes that Peek has returned, and counts them. all reports that Peek returned no others.
func (l *Loop) Take(s *Session, n int, all bool) sock.Errno {
	for left := n; left > 0; {
		got, e := sock.Read(int(s.client.fd), l.Scratch[:left])
		if e != 0 {
			return e
		}
		if got == 0 { // they were there a moment ago
			return sock.ConnReset
		}
		left -= got
	}
	s.in.bytes += uint64(n)
	if all && !s.client.peerDone && !s.client.urgent {
		s.client.readable = false // what comes after the peek is another event
	}
	return 0
}

// Sleep lets the session's preface sleep until n bytes are there, or no more can come. A preface that has called it
// calls Wake before it ends.
func (l *Loop) Sleep(s *Session, n int) {
	s.client.readable = false
	if sock.ReadLowWater(int(s.client.fd)) != n { // see stages.await
		sock.SetReadLowWater(int(s.client.fd), n)
	}
}

// Wake ends Sleep: the session hears of each byte again.
func (l *Loop) Wake(s *Session) {
	if s.client.open {
		sock.SetReadLowWater(int(s.client.fd), 1)
	}
}

// NoMore reports whether the client has sent its FIN, so that nothing follows behind what Peek returns.
func (s *Session) NoMore() bool { return s.client.peerDone }

// SetSpoken says that the client has sent something that was not read: it has not come for a look only.
func (s *Session) SetSpoken() { s.unread = true }
