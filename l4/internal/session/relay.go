package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// turnBytes is how much a direction moves before the other sessions of the loop have their turn: some half a
// millisecond's work, so that a hundred bulk streams delay a small message by less than a blink. turnMoves bounds
// the moves for peers whose bytes come in crumbs.
const (
	turnBytes = 2 << 20
	turnMoves = 64
)

// bulkAfter reads in a row that fill the scratch buffer make a direction bulk: it then goes through
// a pipe, two more system calls for each move but no copy.
const bulkAfter = 2

// A direction falls back to copying when quietAfter wake-ups in a row brought less than bulkFloor: for short
// messages the pipe's extra calls cost more than the copy.
const (
	quietAfter = 4
	bulkFloor  = loop.ScratchBytes / 4
)

// relay moves what can be moved, both ways.
func (l *Loop) relay(s *Session) {
	if l.pump(s, &s.in, &s.client, &s.backend) && l.pump(s, &s.out, &s.backend, &s.client) {
		switch {
		case s.client.broken && s.in.shut:
			l.brokenAfterEnd(s, &s.client)
		case s.backend.broken && s.out.shut:
			l.brokenAfterEnd(s, &s.backend)
		case (s.client.broken || s.backend.broken) && !s.hurried:
			// Its last bytes are held, since the other side does not take them. That gets half_close_timeout.
			s.hurried = true
			s.active = l.Now
			l.schedule(s)
		}
	}
}

// brokenAfterEnd ends a session one of whose sides broke after its FIN had been passed on: that side is not
// read any more, so no read will show the error.
func (l *Loop) brokenAfterEnd(s *Session, c *conn) {
	c.broken = false
	if e := sock.ConnectError(int(c.fd)); e != 0 {
		l.lose(s, c, e)
	}
}

// pump moves bytes one way until there is nothing to read or no room to write. It reports false when the
// session has ended.
func (l *Loop) pump(s *Session, d *direction, from, to *conn) bool {
	var paced *lane // nil for most
	if x := s.extra; x != nil {
		if s.secure() {
			return l.pumpSecure(s, d, from, to)
		}
		paced = x.laneOf(s, d)
	}
	moved := 0
	for moves := 0; moves < turnMoves && moved < turnBytes; moves++ {
		switch {
		case d.dead || d.shut:
			return true
		case d.held():
			if !to.writable {
				return true
			}
			if e := l.send(s, d, to); e != 0 {
				return l.undeliverable(s, d, to, e)
			}
			continue
		case d.ended:
			return l.passEnd(s, d, from, to)
		case !from.readable:
			if d.bulk {
				d.watchQuiet(moved)
			}
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
		if from.urgent {
			d.bulk, d.rounds = false, 0 // splice does not pass an urgent byte's mark
		}
		n, ok := 0, false
		if d.bulk {
			n, ok = l.spliceOnce(s, d, from, to, most)
		} else {
			n, ok = l.copyOnce(s, d, from, to, most)
		}
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

// copyOnce reads into the scratch buffer, at most so many bytes, and writes at once; what the destination does not take
// is kept. It returns the bytes read, and false when the session has ended.
func (l *Loop) copyOnce(s *Session, d *direction, from, to *conn, most int) (int, bool) {
	p := l.Scratch[:min(most, len(l.Scratch))]
	n, e := sock.Read(int(from.fd), p)
	if e != 0 {
		return 0, l.unreadable(s, from, e)
	}
	switch {
	case n == 0:
		s.endOf(d, l.Now)
		return 0, true
	case n < len(l.Scratch) && n == len(p): // all it may read now; the next time tells more
	case n == len(p):
		if d.rounds++; d.rounds >= bulkAfter {
			d.bulk, d.rounds = true, 0
		}
	default:
		d.rounds = 0
		if from.dries() {
			// The queue is empty, and behind a FIN nothing follows: no read is needed to find that out.
			from.readable = false
			if from.peerDone {
				s.endOf(d, l.Now)
			}
		}
	}
	if s.extra != nil {
		n = l.observe(s, d, l.Scratch[:n])
	}
	l.moved(s, d, n)
	if d == &s.in && d.writes < 2 {
		if d.writes++; d.writes == 2 {
			sock.SetNoDelay(int(to.fd))
		}
	}
	// After the last bytes comes a shutdown or a close, whose FIN then travels with them.
	written, e := to.write(l.Scratch[:n], d.ended)
	if e != 0 && e != sock.Again {
		return n, l.undeliverable(s, d, to, e)
	}
	if written < n {
		to.writable = false
		if d == &s.in && d.writes < 2 { // the rest is a second write
			d.writes = 2
			sock.SetNoDelay(int(to.fd))
		}
		l.keep(d, l.Scratch[written:n])
	}
	return n, true
}

// spliceOnce moves bytes through a pipe, at most so many, which the direction holds on to only while it is not empty.
func (l *Loop) spliceOnce(s *Session, d *direction, from, to *conn, most int) (int, bool) {
	p := l.Pipes.Get()
	if p == nil {
		d.bulk = false
		return 0, true
	}
	n, e := p.Fill(int(from.fd), most)
	if e != 0 || n == 0 {
		l.Pipes.Put(p)
		if e != 0 {
			return 0, l.unreadable(s, from, e)
		}
		d.bulk, d.rounds = false, 0 // the FIN, or an urgent byte's mark in front of one: a read will tell
		return 0, true
	}
	l.moved(s, d, n)
	d.pipe = p
	if e := l.send(s, d, to); e != 0 {
		return n, l.undeliverable(s, d, to, e)
	}
	return n, true
}

// send writes what is held, as far as the destination takes it.
func (l *Loop) send(s *Session, d *direction, to *conn) sock.Errno {
	var n int
	var e sock.Errno
	if d.pipe != nil {
		n, e = d.pipe.Drain(int(to.fd))
	} else {
		n, e = to.write(d.kept.bytes, d.ended)
		d.kept.bytes = d.kept.bytes[n:]
	}
	if n > 0 {
		s.active = l.Now
	}
	if e == sock.Again {
		to.writable = false
		return 0
	}
	if e != 0 {
		return e
	}
	if d.pipe != nil && d.pipe.Held() == 0 || d.pipe == nil && len(d.kept.bytes) == 0 {
		l.release(d)
	}
	return 0
}

// moved counts bytes read from a direction's source.
func (l *Loop) moved(s *Session, d *direction, n int) {
	d.bytes += uint64(n)
	s.active = l.Now
	if !s.looks {
		l.lookLater(s)
	}
	switch {
	case d == &s.in && s.asked == 0:
		s.asked = l.Now
	case d == &s.out && s.firstByte == 0:
		s.firstByte = l.Now
		// A client may think for minutes before it asks: that is not the backend's time.
		took := s.firstByte - max(s.asked, s.connected)
		s.lease.FirstByteTook(took, l.Index)
		l.counters(s).FirstByteTime.Observe(took)
	}
}

// watchQuiet ends a direction's bulk mode when too little comes of it; moved is what this wake-up brought.
func (d *direction) watchQuiet(moved int) {
	if moved >= bulkFloor {
		d.rounds = 0
		return
	}
	if d.rounds++; d.rounds >= quietAfter {
		d.bulk, d.rounds = false, 0
	}
}

// endOf notes that the source of d has sent its FIN.
func (s *Session) endOf(d *direction, now time.Duration) {
	d.ended = true
	if s.first != tally.NoReason {
		return
	}
	if d == &s.in {
		s.first = tally.ClientClosed
		return
	}
	s.first = tally.BackendClosed
	s.shunned = s.shunned || s.endsAtOnce(now)
}

// passEnd passes the source's FIN on, after all its bytes. With both ways ended the session is over, and
// closing sends the FIN. It reports false when the session has ended, or has gone to another backend.
func (l *Loop) passEnd(s *Session, d *direction, from, to *conn) bool {
	if d == &s.out && s.shunned && l.retry(s, true) {
		return false
	}
	if to.kernel && sock.CloseNotify(int(to.fd)) == sock.Again {
		to.writable = false
		return true
	}
	d.shut = true
	if s.extra != nil {
		if paced := s.extra.laneOf(s, d); paced != nil {
			giveBack(s, paced, s.wayOf(d))
		}
	}
	switch other := s.other(d); {
	case other.dead:
		return l.lose(s, from, s.cause)
	case other.shut:
		l.end(s, s.first)
		return false
	}
	sock.ShutdownWrite(int(to.fd))
	s.active = l.Now // half_close_timeout holds, and counts from here
	l.noteHalfClosed(s)
	l.schedule(s)
	return true
}

func (s *Session) other(d *direction) *direction {
	if d == &s.in {
		return &s.out
	}
	return &s.in
}

// unreadable handles a read's error.
func (l *Loop) unreadable(s *Session, from *conn, e sock.Errno) bool {
	if e == sock.Again {
		from.readable = false
		from.urgent = false
		return true
	}
	if from.kernel {
		return l.unreadableRecord(s, from, e)
	}
	return l.lose(s, from, e)
}

// undeliverable handles a write's error: to was reset, and what it sent before that may still wait to be
// read. An HTTP server that answers early and closes is the usual case. So this way is dead, and the other
// goes on to its end, which also ends the session.
func (l *Loop) undeliverable(s *Session, d *direction, to *conn, e sock.Errno) bool {
	l.release(d)
	d.dead = true
	s.cause = e
	if other := s.other(d); other.shut || other.dead {
		return l.lose(s, to, e)
	}
	to.readable, to.broken = true, true
	l.later(s)
	return true
}

// lose ends a session one of whose connections broke, unless another backend can serve it; it reports false, as the
// session has no such connection any more.
func (l *Loop) lose(s *Session, c *conn, e sock.Errno) bool {
	s.cause = e
	if c == &s.backend && l.retry(s, true) {
		return false
	}
	reset := e == sock.ConnReset || e == sock.BrokenPipe
	switch {
	case c == &s.client && reset:
		l.end(s, tally.ClientReset)
	case c == &s.client:
		l.end(s, tally.ClientLost)
	case reset:
		l.end(s, tally.BackendReset)
	default:
		l.end(s, tally.BackendLost)
	}
	return false
}
