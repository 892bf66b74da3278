package session

import "github.com/limeload/limeload-l4/l4/internal/sock"

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
	if sock.ReadLowWater(int(s.client.fd)) != n { // see inspection.mark
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
