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

// sendOne sends a lone datagram, the usual case, without the writer's ado.
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

// sendWriter sends what was added for a flow and empties the writer: what the socket does not take is kept, what cannot be sent is
// counted.
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

// notSent handles an error of sending what is first in the writer. sure says that it came before, so that it cannot be a router's complaint
// about an earlier datagram, which comes but once. It reports whether the next one is that.
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

// reopen gives a flow that lost its socket while it sent another, a few times. It returns why it has none.
func (l *Loop) reopen(f *Flow, tries *int) tally.Drop {
	if f.open {
		return tally.NoDrop
	}
	if *tries++; *tries > f.pool.Retries()+1 {
		return tally.DropBackendRefused
	}
	return l.makeReady(f)
}

// sendDrop is why a datagram is dropped that could not be sent.
func sendDrop(e sock.Errno) tally.Drop {
	if e == sock.TooLong {
		return tally.DropTooLong
	}
	return tally.DropSendFailed
}

// Bounds of a backlog: a few milliseconds of a fast flow. What waits longer is better lost, as by any queue of a network.
const (
	backlogDatagrams = 32
	backlogBytes     = 256 << 10
)

// A backlog is datagrams that a socket did not take. Its zero value is empty and ready.
type backlog struct {
	queue [backlogDatagrams][]byte // parts of buffers of the loop's bufferPool
	first int
	count int
	bytes int
}

// keep has a datagram wait for the flow's socket, or drops it.
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

// forgetFirst gives back the buffer of the datagram in line, and the backlog with the last one.
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
