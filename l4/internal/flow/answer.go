package flow

import (
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// leastBatch is how many datagrams a flow's first read asks for: one more than the usual answer. A read that is not
// filled has taken all, so no second read has to find nothing. The batch doubles with each read that was filled.
const leastBatch = 2

// TurnReads is how many reads a flow has before others have their turn.
const TurnReads = 8

// busyReceiveBuffer is for the socket of a flow whose backend sends more than an answer now and then. The kernel's
// default, 208 KiB, has room for three trains.
const busyReceiveBuffer = 1 << 20

// onFlow handles an event of a flow's socket.
func (l *Loop) onFlow(f *Flow, bits uint32) {
	if !f.open {
		return // the event is of the socket that the flow had a moment ago
	}
	if bits&sock.PollOut != 0 && f.blocked {
		f.blocked = false
		l.sendKept(f)
		if !f.blocked && f.open {
			l.backends.WatchRoom(int(f.fd), f.Index(), f.Generation(), false)
		}
	}
	var report sock.Report
	if bits&sock.PollError != 0 && f.open {
		report = sock.DatagramError(int(f.fd))
	}
	generation, moves := f.Generation(), f.moves
	l.takeAnswers(f)
	if report.Errno != 0 && f.Generation() == generation && f.open && f.moves == moves {
		l.backendFailed(f, report)
	}
}

// takeAnswers reads what the backend has sent into the outbox of the listener's socket. When the outbox is full and the
// socket takes no more, the rest waits in the kernel, and the flow in the socket's line.
func (l *Loop) takeAnswers(f *Flow) {
	d := f.socket
	o := &d.outbox
	for range TurnReads {
		if !f.open {
			return
		}
		if o.used+int(f.batch) > sock.DatagramSlots {
			l.sendAnswers(d)
		}
		if d.blocked {
			l.waitForRoom(f)
			return
		}
		if o.reader == nil {
			o.reader = sock.NewDatagramReader(false)
		}
		first, wanted := o.used, int(f.batch)
		n, e := o.reader.Read(int(f.fd), first, wanted)
		if e != 0 {
			if e == sock.TooLong {
				continue // a router's complaint, and answers may stand behind it
			}
			if sock.Unreachable(e) {
				l.backendFailedWith(f, e)
			}
			return
		}
		o.used += n
		if !l.addAnswers(f, first, n) || n < wanted {
			return
		}
		f.batch = min(2*f.batch, sock.DatagramSlots)
		if !f.expects {
			f.expects = true
			sock.ExpectTrains(int(f.fd), l.offload.GRO, busyReceiveBuffer)
		}
	}
	l.flowLater(f)
}

// addAnswers adds the answers in some slots to the outbox. It reports false when the flow has ended with them.
func (l *Loop) addAnswers(f *Flow, first, n int) bool {
	d := f.socket
	c := l.counters(f)
	for slot := first; slot < first+n; slot++ {
		m := d.outbox.reader.Message(slot)
		c.NoteLost(&f.lost, m.Lost)
		if m.Truncated {
			l.Drop(f.socket.listener, tally.DropTruncated, 1)
			continue
		}
		l.noteAnswer(f)
		count := datagrams(len(m.Bytes), m.Size)
		f.out.datagrams += uint64(count)
		f.out.bytes += uint64(len(m.Bytes))
		c.DatagramsOut.Add(uint64(count))
		c.BytesOut.Add(uint64(len(m.Bytes)))
		if f.police != nil {
			m.Bytes = l.pass(f, gate.Out, m.Bytes, m.Size)
		}
		if f.police == nil || m.Bytes != nil {
			l.addAnswer(f, m.Bytes, m.Size)
		}
		if r := f.settings.Responses; r > 0 && f.out.datagrams >= uint64(r)*f.sentIn {
			l.End(f, tally.Answered)
			return false
		}
	}
	return true
}

// noteAnswer notes that a flow's backend has answered.
func (l *Loop) noteAnswer(f *Flow) {
	f.active = l.Now
	if f.answered {
		if a := f.to; a.assigned && a.moves == f.moves {
			a.lease.Heard()
		}
		return
	}
	f.answered = true
	if f.firstAnswer == 0 {
		l.noteFirstAnswer(f)
	}
	took := l.Now - f.connected
	l.counters(f).FirstByteTime.Observe(took)
	if a := f.to; a.assigned && a.moves == f.moves && !a.answered {
		a.answered = true
		a.lease.FirstByteTook(took, l.Index)
	}
}

// addAnswer adds a backend's datagram, or a train of them, to the outbox.
func (l *Loop) addAnswer(f *Flow, bytes []byte, size int) {
	d := f.socket
	w := &d.outbox.writer
	from := d.from(&f.local)
	whole := size > 0 && w.Trains && (d.filter == nil || d.filter.Passes(bytes, size))
	for rest := bytes; ; {
		if !w.Room() {
			l.sendOutbox(d)
			if !w.Room() {
				l.Drop(f.socket.listener, tally.DropQueueFull, datagrams(len(rest), size))
				return
			}
		}
		joins := d.outbox.last == f
		n := len(rest)
		if size > 0 && !whole {
			n = min(size, n)
		}
		switch {
		case whole:
			n = w.AddTrain(&f.peer, from, rest, size, joins)
			d.outbox.last = f
		case d.filter != nil:
			if one := d.filter.Answer(Sender{d, f.peer, f.local}, rest[:n], l.Now); one != nil {
				w.Add(&f.peer, from, nil, one, joins)
				d.outbox.last = f
			}
		default:
			w.Add(&f.peer, from, nil, rest[:n], joins)
			d.outbox.last = f
		}
		if rest = rest[n:]; len(rest) == 0 {
			break
		}
	}
	l.willAnswer(d)
}

// willAnswer sends the outbox at the end of the turn.
func (l *Loop) willAnswer(d *Socket) {
	if !d.inAnswering {
		d.inAnswering = true
		l.answering = append(l.answering, d)
	}
}

// sendAnswers sends the outbox, and empties it unless the socket takes no more.
func (l *Loop) sendAnswers(d *Socket) {
	if !d.blocked {
		l.sendOutbox(d)
	}
	if !d.blocked {
		d.outbox.used = 0
	}
}

// sendOutbox sends what is in the outbox's writer. The slots stay in use.
func (l *Loop) sendOutbox(d *Socket) {
	o := &d.outbox
	for !o.writer.Empty() {
		switch e := o.writer.Send(d.fd); e {
		case 0:
		case sock.Again:
			d.blocked = true
			l.watch(d)
			return
		default:
			l.Drop(d.listener, sendDrop(e), o.writer.Skip())
		}
	}
	o.writer.Clear()
	o.last, o.copied = nil, o.copied[:0]
}

// waitForRoom puts a flow into the line of its listener's socket.
func (l *Loop) waitForRoom(f *Flow) {
	if !f.waits {
		f.waits = true
		f.socket.waiting = append(f.socket.waiting, loop.RefTo(f))
	}
}

// unblock goes on where a socket took no more.
func (l *Loop) unblock(d *Socket) {
	d.blocked = false
	l.sendAnswers(d)
	if d.blocked {
		return
	}
	l.watch(d)
	for _, r := range d.waiting {
		if f, alive := r.Get(); alive {
			f.waits = false
			l.flowLater(f)
		}
	}
	d.waiting = d.waiting[:0]
}
