package l4

import (
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// sendPieces sends what the batch in work has brought for a flow.
func (l *loop) sendPieces(f *flow) {
	w := &l.flows
	first := f.first
	f.first, f.last = 0, 0
	if p := &w.pieces[first]; p.next == 0 && p.size == 0 && len(f.header) == 0 && f.open && !f.blocked && f.kept == nil {
		l.sendOne(f, p.bytes)
		return
	}
	l.sendKept(f)
	for i := first; i != 0; i = w.pieces[i].next {
		l.addPiece(f, &w.pieces[i], i != first)
	}
	l.sendWriter(f)
}

// sendOne sends a lone datagram, the usual case, without the writer's ado.
func (l *loop) sendOne(f *flow, datagram []byte) {
	e := sock.SendDatagram(int(f.fd), datagram)
	if e == 0 {
		f.sentIn++
		return
	}
	l.flows.writer.Add(nil, nil, nil, datagram, false)
	if e != sock.TooLong { // then notSent wants a second opinion
		l.notSent(f, e, true)
	}
	l.sendWriter(f)
}

// addPiece adds a piece to the writer.
func (l *loop) addPiece(f *flow, p *piece, joins bool) {
	w := &l.flows.writer
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
func (l *loop) sendWriter(f *flow) {
	w := &l.flows.writer
	sure := false
	for tries := 0; !w.Empty(); {
		if drop := l.reopen(f, &tries); drop != dropNone {
			w.Left(func(_, _ []byte) { l.drop(f.listener, drop, 1) })
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
func (l *loop) notSent(f *flow, e sock.Errno, sure bool) bool {
	switch {
	case e == sock.TooLong && !sure:
		return true
	case e == sock.Again:
		f.blocked = true
		l.poller.WatchRoom(int(f.fd), keyOf(f), f.generation, true)
	case sock.Unreachable(e):
		l.backendFailedWith(f, e) // at an earlier datagram; this one has not been sent
	case sock.SourceGone(e) && l.now > f.connected:
		l.closeFlowSocket(f) // a new one has an address that is there
	default:
		l.drop(f.listener, sendDrop(e), l.flows.writer.Skip())
		l.leaveUnsendable(f, e)
	}
	return false
}

// reopen gives a flow that lost its socket while it sent another, a few times. It returns why it has none.
func (l *loop) reopen(f *flow, tries *int) Drop {
	if f.open {
		return dropNone
	}
	if *tries++; *tries > f.pool.Retries()+1 {
		return DropBackendRefused
	}
	return l.makeReady(f)
}

// sendDrop is why a datagram is dropped that could not be sent.
func sendDrop(e sock.Errno) Drop {
	if e == sock.TooLong {
		return DropTooLong
	}
	return DropSendFailed
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
func (l *loop) keep(f *flow, head, body []byte) {
	b := f.kept
	size := len(head) + len(body)
	switch {
	case size > scratchBytes:
		l.drop(f.listener, DropTooLong, 1)
		return
	case b != nil && (b.count == backlogDatagrams || b.bytes+size > backlogBytes):
		l.drop(f.listener, DropQueueFull, 1)
		return
	case b == nil:
		b = l.flows.freeBacklogs.take()
		f.kept = b
	}
	buf := l.buffers.get(size)
	n := copy(buf, head)
	n += copy(buf[n:], body)
	b.queue[(b.first+b.count)%backlogDatagrams] = buf[:n]
	b.count++
	b.bytes += n
}

// forgetFirst gives back the buffer of the datagram in line, and the backlog with the last one.
func (l *loop) forgetFirst(f *flow) {
	b := f.kept
	buf := b.queue[b.first]
	b.queue[b.first] = nil
	b.first = (b.first + 1) % backlogDatagrams
	b.count--
	b.bytes -= len(buf)
	l.buffers.put(buf[:cap(buf)])
	if b.count == 0 {
		f.kept = nil
		l.flows.freeBacklogs.give(b)
	}
}

// dropKept drops what waits for the flow's socket.
func (l *loop) dropKept(f *flow, why Drop) {
	for f.kept != nil {
		l.drop(f.listener, why, 1)
		l.forgetFirst(f)
	}
}

// sendKept sends what waits, as far as the socket takes it.
func (l *loop) sendKept(f *flow) {
	for tries := 0; f.kept != nil && !f.blocked; {
		if drop := l.reopen(f, &tries); drop != dropNone {
			l.dropKept(f, drop)
			return
		}
		switch e := sock.SendDatagram(int(f.fd), f.kept.queue[f.kept.first]); {
		case e == 0:
			f.sentIn++
			l.forgetFirst(f)
		case e == sock.Again:
			f.blocked = true
			l.poller.WatchRoom(int(f.fd), keyOf(f), f.generation, true)
		case sock.Unreachable(e):
			l.backendFailedWith(f, e)
		case sock.SourceGone(e) && l.now > f.connected:
			l.closeFlowSocket(f)
		default:
			l.drop(f.listener, sendDrop(e), 1)
			l.forgetFirst(f)
			l.leaveUnsendable(f, e)
		}
	}
}
