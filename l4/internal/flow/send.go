package flow

import (
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// sendPieces sends what the batch in work has brought for a flow.
func (l *Loop) sendPieces(f *Flow) {
	first := f.first
	f.first, f.last = 0, 0
	if p := &l.pieces[first]; p.next == 0 && p.size == 0 && len(f.header) == 0 && f.open && !f.blocked && f.kept == nil {
		l.sendOne(f, p.bytes)
		return
	}
	l.sendKept(f)
	for i := first; i != 0; i = l.pieces[i].next {
		l.addPiece(f, &l.pieces[i], i != first)
	}
	l.sendWriter(f)
}

// sendOne sends a single datagram, the usual case, without the writer.
func (l *Loop) sendOne(f *Flow, datagram []byte) {
	e := sock.SendDatagram(int(f.fd), datagram)
	if e == 0 {
		f.sentIn++
		return
	}
	l.writer.Add(nil, nil, nil, datagram, false)
	if e != sock.TooLong { // then notSent wants a second opinion
		l.notSent(f, e, true)
	}
	l.sendWriter(f)
}

// addPiece adds a piece to the writer.
func (l *Loop) addPiece(f *Flow, p *piece, joins bool) {
	w := &l.writer
	joins = joins && !f.singly
	rest := p.bytes
	for {
		if !w.Room() {
			l.sendWriter(f)
			joins = false
		}
		n := len(rest)
		switch {
		case p.size > 0 && w.Trains && !f.singly && len(f.header) == 0:
			n = w.AddTrain(nil, nil, rest, p.size, joins)
		case p.size > 0:
			n = min(p.size, n)
			fallthrough
		default:
			w.Add(nil, nil, f.header, rest[:n], joins)
		}
		if rest = rest[n:]; len(rest) == 0 {
			return
		}
		joins = !f.singly
	}
}

// sendWriter sends what was added for a flow and empties the writer. What the socket does not take is kept, and what
// cannot be sent is counted.
func (l *Loop) sendWriter(f *Flow) {
	w := &l.writer
	sure := false
	for tries := 0; !w.Empty(); {
		if drop := l.reopen(f, &tries); drop != tally.NoDrop {
			w.Left(func(_, _ []byte) { l.Drop(f.socket.listener, drop, 1) })
			break
		}
		if f.blocked {
			w.Left(func(head, body []byte) { l.keep(f, head, body) })
			break
		}
		before := w.Gone()
		e := w.Send(int(f.fd))
		f.sentIn += uint64(w.Gone() - before)
		f.singly = f.singly || w.Refused
		if e != 0 {
			sure = l.notSent(f, e, sure)
		}
	}
	w.Clear()
}

// notSent handles an error of sending what is first in the writer. An error may be a router's complaint about an
// earlier datagram, which comes only once. sure says that the error came a second time, so that it is about this
// datagram. notSent reports whether the next error will be sure.
func (l *Loop) notSent(f *Flow, e sock.Errno, sure bool) bool {
	switch {
	case e == sock.TooLong && !sure:
		return true
	case e == sock.Again:
		f.blocked = true
		l.backends.WatchRoom(int(f.fd), f.Index(), f.Generation(), true)
	case sock.Unreachable(e):
		l.backendFailedWith(f, e) // at an earlier datagram; this one has not been sent
	case sock.SourceGone(e) && l.Now > f.connected:
		l.closeFlow(f) // a new one has an address that is there
	default:
		l.Drop(f.socket.listener, sendDrop(e), l.writer.Skip())
		l.leaveUnsendable(f, e)
	}
	return false
}

// reopen gives a flow another socket if it lost its own while it sent, a few times. It returns why there is none.
func (l *Loop) reopen(f *Flow, tries *int) tally.Drop {
	if f.open {
		return tally.NoDrop
	}
	if *tries++; *tries > f.pool.Retries()+1 {
		return tally.DropBackendRefused
	}
	return l.makeReady(f)
}

// sendDrop is the reason to drop a datagram that could not be sent.
func sendDrop(e sock.Errno) tally.Drop {
	if e == sock.TooLong {
		return tally.DropTooLong
	}
	return tally.DropSendFailed
}

// Bounds of a backlog: a few milliseconds of a fast flow. As in any queue of a network, it is better to lose what waits
// longer.
const (
	backlogDatagrams = 32
	backlogBytes     = 256 << 10
)

// A backlog is datagrams that a socket did not take. Its zero value is empty and ready.
type backlog struct {
	queue [backlogDatagrams][]byte // parts of the loop's Buffers
	first int
	count int
	bytes int
}

// keep makes a datagram wait for the flow's socket, or drops it.
func (l *Loop) keep(f *Flow, head, body []byte) {
	b := f.kept
	size := len(head) + len(body)
	switch {
	case size > loop.ScratchBytes:
		l.Drop(f.socket.listener, tally.DropTooLong, 1)
		return
	case b != nil && (b.count == backlogDatagrams || b.bytes+size > backlogBytes):
		l.Drop(f.socket.listener, tally.DropQueueFull, 1)
		return
	case b == nil:
		b = l.freeBacklogs.Take()
		f.kept = b
	}
	buf := l.Buffers.Get(size)
	n := copy(buf, head)
	n += copy(buf[n:], body)
	b.queue[(b.first+b.count)%backlogDatagrams] = buf[:n]
	b.count++
	b.bytes += n
}

// forgetFirst gives back the buffer of the first datagram in line, and the backlog with the last one.
func (l *Loop) forgetFirst(f *Flow) {
	b := f.kept
	buf := b.queue[b.first]
	b.queue[b.first] = nil
	b.first = (b.first + 1) % backlogDatagrams
	b.count--
	b.bytes -= len(buf)
	l.Buffers.Put(buf[:cap(buf)])
	if b.count == 0 {
		f.kept = nil
		l.freeBacklogs.Give(b)
	}
}

// dropKept drops what waits for the flow's socket.
func (l *Loop) dropKept(f *Flow, why tally.Drop) {
	for f.kept != nil {
		l.Drop(f.socket.listener, why, 1)
		l.forgetFirst(f)
	}
}

// sendKept sends what waits, as far as the socket takes it.
func (l *Loop) sendKept(f *Flow) {
	for tries := 0; f.kept != nil && !f.blocked; {
		if drop := l.reopen(f, &tries); drop != tally.NoDrop {
			l.dropKept(f, drop)
			return
		}
		switch e := sock.SendDatagram(int(f.fd), f.kept.queue[f.kept.first]); {
		case e == 0:
			f.sentIn++
			l.forgetFirst(f)
		case e == sock.Again:
			f.blocked = true
			l.backends.WatchRoom(int(f.fd), f.Index(), f.Generation(), true)
		case sock.Unreachable(e):
			l.backendFailedWith(f, e)
		case sock.SourceGone(e) && l.Now > f.connected:
			l.closeFlow(f)
		default:
			l.Drop(f.socket.listener, sendDrop(e), 1)
			l.forgetFirst(f)
			l.leaveUnsendable(f, e)
		}
	}
}
