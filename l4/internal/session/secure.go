package session

import (
	"io"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
)

// The relay of a session with TLS on one side or both that is not the kernel's, see kernel.go. It is that of relay.go,
// but bytes are decrypted when they are read and encrypted before they are written, and never go through a pipe. What
// waits for a side with TLS is encrypted already, and waits in its tlsconn.Conn.

// sealBytes is how much is read to be encrypted: whole records, and encrypted still less than loop.ScratchBytes.
const sealBytes = 3 * tlsconn.RecordBytes

// maxDebt is how many encrypted bytes may wait for a peer that reads nothing, but makes us answer (KeyUpdate).
const maxDebt = 256 << 10

// clientTLS is TLS with the client; nil if its bytes are plain or the kernel encrypts them, or if the handshake is not
// over.
func (s *Session) clientTLS() *tlsconn.Conn {
	if s.extra == nil {
		return nil
	}
	return s.extra.client
}

// sides are TLS on the two sides of one direction, nil where the bytes are plain.
func (s *Session) sides(d *direction) (from, to *tlsconn.Conn) {
	if d == &s.in {
		return s.extra.client, s.extra.backend
	}
	return s.extra.backend, s.extra.client
}

// secure reports whether one side has TLS.
func (s *Session) secure() bool {
	return s.extra != nil && (s.extra.client != nil || s.extra.backend != nil)
}

// owes reports whether encrypted bytes wait for a side.
func (s *Session) owes() bool {
	x := s.extra
	return x != nil && (x.client != nil && x.client.Owes() || x.backend != nil && x.backend.Owes())
}

// goodbye tells the sides with TLS, if they can be told at once, that nothing more comes.
func (s *Session) goodbye() {
	if s.client.kernel && !s.out.shut {
		_ = sock.CloseNotify(int(s.client.fd))
	}
	if s.backend.kernel && !s.in.shut {
		_ = sock.CloseNotify(int(s.backend.fd))
	}
	x := s.extra
	if x == nil {
		return
	}
	if x.client != nil {
		x.client.CloseWrite()
	}
	if x.backend != nil {
		x.backend.CloseWrite()
	}
}

// pumpSecure is pump for a session with TLS.
func (l *Loop) pumpSecure(s *Session, d *direction, from, to *conn) bool {
	paced := s.extra.laneOf(s, d)
	moved := 0
	for moves := 0; moves < turnMoves && moved < turnBytes; moves++ {
		if !l.intoKernel(s) {
			return false
		}
		if !s.secure() {
			return l.pump(s, d, from, to)
		}
		switch _, sink := s.sides(d); {
		case sink != nil && sink.Owes():
			if d.dead || !to.writable {
				return true
			}
			if e := sink.Flush(); e != 0 {
				if e != sock.Again {
					return l.undeliverable(s, d, to, e)
				}
				to.writable = false
			} else {
				s.active = l.Now
			}
			continue
		case d.dead || d.shut:
			return true
		case d.held():
			if sink != nil { // the prefill
				if !l.seal(s, d, to, sink, d.rest()) {
					return false
				}
				l.release(d)
				continue
			}
			if !to.writable {
				return true
			}
			if e := l.send(s, d, to); e != 0 {
				return l.undeliverable(s, d, to, e)
			}
			continue
		case d.ended:
			if sink != nil && !sink.Shut() {
				sink.CloseWrite()
				continue
			}
			return l.passEnd(s, d, from, to)
		case !from.readable:
			if paced != nil {
				l.rest(s, d, paced, from)
			}
			return true
		}
		most := turnBytes
		if paced != nil {
			if most = l.allowance(s, d, from); most == 0 {
				return true
			}
		}
		n, ok := l.unsealOnce(s, d, from, to, most)
		if !ok {
			return false
		}
		if paced != nil {
			paced.spend(s, n)
		}
		moved += n
	}
	l.later(s)
	return true
}

// unsealOnce reads once from the source, at most so many bytes, and writes what that brings. It returns the bytes read,
// and false when the session has ended.
func (l *Loop) unsealOnce(s *Session, d *direction, from, to *conn, most int) (int, bool) {
	source, sink := s.sides(d)
	p := l.Scratch
	if sink != nil {
		p = p[:sealBytes]
	}
	p = p[:min(most, len(p))]
	var n int
	if source == nil {
		var e sock.Errno
		n, e = sock.Read(int(from.fd), p)
		switch {
		case e != 0:
			return 0, l.unreadable(s, from, e)
		case n == 0:
			s.endOf(d, l.Now)
			return 0, true
		case n < len(p) && from.dries():
			from.readable = false
			if from.peerDone {
				s.endOf(d, l.Now)
			}
		}
	} else {
		if source.Debt() > maxDebt {
			return 0, l.lose(s, from, sock.ConnReset)
		}
		var err error
		n, err = source.Read(p, from.peerDone || from.broken || from.urgent)
		if n == 0 || err == tlsconn.ErrAgain {
			if !l.unsealed(s, d, from, source, err) {
				return 0, false
			}
		}
		if n == 0 {
			return 0, true
		}
	}
	n = l.observe(s, d, p[:n])
	l.moved(s, d, n)
	if sink != nil {
		return n, l.seal(s, d, to, sink, p[:n])
	}
	if d == &s.in && d.writes < 2 {
		if d.writes++; d.writes == 2 {
			sock.SetNoDelay(int(to.fd))
		}
	}
	written, e := to.write(p[:n], d.ended)
	if e != 0 && e != sock.Again {
		return n, l.undeliverable(s, d, to, e)
	}
	if written < n {
		to.writable = false
		l.keep(d, p[written:n])
	}
	return n, true
}

// unsealed handles the error of a read from a side with TLS. It reports false when the session has ended.
func (l *Loop) unsealed(s *Session, d *direction, from *conn, source *tlsconn.Conn, err error) bool {
	switch {
	case err == nil:
		return true
	case err == tlsconn.ErrAgain:
		from.readable, from.urgent = false, false
		return true
	case err == io.EOF:
		s.endOf(d, l.Now)
		return true
	}
	if e := source.Failed(); e != 0 {
		return l.lose(s, from, e)
	}
	s.extra.failure = err.Error()
	if from == &s.client {
		l.end(s, tally.BrokenTLS)
	} else {
		l.end(s, tally.BackendLost)
	}
	return false
}

// seal encrypts bytes for a side, and sends what it takes. It reports false when the session has ended.
func (l *Loop) seal(s *Session, d *direction, to *conn, sink *tlsconn.Conn, p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), sealBytes)
		if e := sink.Write(p[:n]); e != 0 {
			return l.undeliverable(s, d, to, e)
		}
		p = p[n:]
	}
	if sink.Owes() {
		to.writable = false
	}
	return true
}

// readSecure is Read for a client with TLS.
func (l *Loop) readSecure(s *Session, c *tlsconn.Conn) (n int, e sock.Errno) {
	from := &s.client
	var err error
	for n < len(l.Scratch) && err == nil { // one that is Ripe stops in between, and only the relay would go on
		var one int
		one, err = c.Read(l.Scratch[n:], from.peerDone || from.broken || from.urgent)
		n += one
	}
	s.in.bytes += uint64(n)
	switch {
	case err == tlsconn.ErrAgain:
		from.readable, from.urgent = false, false
		if n == 0 {
			return 0, sock.Again
		}
	case n > 0: // an end or an error comes again with the next read
	case err == io.EOF:
		s.endOf(&s.in, l.Now)
	case err != nil:
		if e = c.Failed(); e == 0 {
			s.extra.failure = err.Error()
			e = sock.ConnReset
		}
	}
	return n, e
}

// writeSecure is Write for a client with TLS. What the connection does not take waits there, and counts as sent.
func (l *Loop) writeSecure(s *Session, c *tlsconn.Conn, p []byte) (n int, e sock.Errno) {
	for n < len(p) {
		if !l.flushClient(s) {
			return n, sock.Again
		}
		one := min(len(p)-n, sealBytes)
		if e := c.Write(p[n : n+one]); e != 0 {
			return n, e
		}
		n += one
		s.active = l.Now
		s.out.bytes += uint64(one)
	}
	if c.Owes() {
		s.client.writable = false
	}
	return n, 0
}

// flushClient sends encrypted bytes that wait for a client that is served by a preface. It reports false while some are
// left.
func (l *Loop) flushClient(s *Session) bool {
	c := s.clientTLS()
	if c == nil || !c.Owes() {
		return true
	}
	if !s.client.writable {
		return false
	}
	if e := c.Flush(); e == sock.Again {
		s.client.writable = false
	} else if e != 0 {
		s.client.broken = true
		return true
	}
	return !c.Owes()
}
