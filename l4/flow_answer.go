package l4

import (
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// leastBatch is how many datagrams a flow's first read asks for: one more than the usual answer, and a read that is not filled
// need not be followed by another that finds nothing. It doubles with each read that was filled.
const leastBatch = 2

// flowTurnReads is how many reads a flow has before others have their turn.
const flowTurnReads = 8

// busyReceiveBuffer is what a flow's socket gets whose backend sends more than an answer now and then: in the kernel's default, 208 KiB,
// there is room for three trains.
const busyReceiveBuffer = 1 << 20

// onFlowSocket handles an event of a flow's socket.
func (l *loop) onFlowSocket(f *flow, bits uint32) {
	if !f.open {
		return // of the socket it had a moment ago
	}
	if bits&sock.PollOut != 0 && f.blocked {
		f.blocked = false
		l.sendKept(f)
		if !f.blocked && f.open {
			l.poller.WatchRoom(int(f.fd), keyOf(f), f.generation, false)
		}
	}
	var report sock.Report
	if bits&sock.PollError != 0 && f.open {
		report = sock.DatagramError(int(f.fd))
	}
	generation, moves := f.generation, f.moves
	l.takeAnswers(f)
	if report.Errno != 0 && f.generation == generation && f.open && f.moves == moves {
		l.backendFailed(f, report)
	}
}

// takeAnswers reads what the backend has sent into the door's outbox. When that is full and the door's socket takes no more, the rest
// waits in the kernel, and the flow in the door's line.
func (l *loop) takeAnswers(f *flow) {
	d := f.door
	o := &d.outbox
	for range flowTurnReads {
		if !f.open {
			return
		}
		if o.used+int(f.batch) > sock.DatagramSlots {
			l.sendAnswers(d)
		}
		if d.blocked {
			l.waitForDoor(f)
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
			sock.ExpectTrains(int(f.fd), l.server.offload.GRO, busyReceiveBuffer)
		}
	}
	l.flowLater(f)
}

// addAnswers adds the answers in some slots to the outbox. It reports false when the flow has ended with them.
func (l *loop) addAnswers(f *flow, first, n int) bool {
	d := f.door
	c := &f.listener.counters[l.index]
	for slot := first; slot < first+n; slot++ {
		m := d.outbox.reader.Message(slot)
		l.noteLost(f.listener, &f.lost, m.Lost)
		if m.Truncated {
			l.drop(f.listener, DropTruncated, 1)
			continue
		}
		l.noteAnswer(f)
		count := datagrams(len(m.Bytes), m.Size)
		f.out.datagrams += uint64(count)
		f.out.bytes += uint64(len(m.Bytes))
		c.datagramsOut.Add(uint64(count))
		c.bytesOut.Add(uint64(len(m.Bytes)))
		l.addAnswer(f, m.Bytes, m.Size)
		if r := f.settings.Flows.Responses; r > 0 && f.out.datagrams >= uint64(r)*f.sentIn {
			l.endFlow(f, Answered)
			return false
		}
	}
	return true
}

// noteAnswer notes that a flow's backend has answered.
func (l *loop) noteAnswer(f *flow) {
	f.active = l.now
	if f.answered {
		if h := f.home; h.housed && h.moves == f.moves {
			h.lease.Heard()
		}
		return
	}
	f.answered = true
	if f.firstAnswer == 0 {
		l.noteFirstAnswer(f)
	}
	took := l.now - f.connected
	f.listener.counters[l.index].firstByteTime.observe(took)
	if h := f.home; h.housed && h.moves == f.moves && !h.answered {
		h.answered = true
		h.lease.FirstByteTook(took)
	}
}

// addAnswer adds a backend's datagram, or a train of them, to the outbox.
func (l *loop) addAnswer(f *flow, bytes []byte, size int) {
	d := f.door
	w := &d.outbox.writer
	from := d.from(&f.local)
	whole := size > 0 && w.Trains && (d.screen == nil || d.screen.passes(bytes, size))
	for rest := bytes; ; {
		if !w.Room() {
			l.sendOutbox(d)
			if !w.Room() {
				l.drop(f.listener, DropQueueFull, datagrams(len(rest), size))
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
		case d.screen != nil:
			if one := d.screen.answer(caller{d, f.peer, f.local}, rest[:n], l.now); one != nil {
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

// willAnswer has the outbox sent at the end of the turn.
func (l *loop) willAnswer(d *flowDoor) {
	if !d.inAnswering {
		d.inAnswering = true
		l.flows.answering = append(l.flows.answering, d)
	}
}

// sendAnswers sends the outbox, and empties it unless the socket takes no more.
func (l *loop) sendAnswers(d *flowDoor) {
	if !d.blocked {
		l.sendOutbox(d)
	}
	if !d.blocked {
		d.outbox.used = 0
	}
}

// sendOutbox sends what the outbox's writer has; its slots stay in use.
func (l *loop) sendOutbox(d *flowDoor) {
	o := &d.outbox
	for !o.writer.Empty() {
		switch e := o.writer.Send(d.fd); e {
		case 0:
		case sock.Again:
			d.blocked = true
			l.poller.WatchRoom(d.fd, d.key, 0, true)
			return
		default:
			l.drop(d.listener, sendDrop(e), o.writer.Skip())
		}
	}
	o.writer.Clear()
	o.last, o.copied = nil, o.copied[:0]
}

// waitForDoor puts a flow into its door's line.
func (l *loop) waitForDoor(f *flow) {
	if !f.waits {
		f.waits = true
		f.door.waiting = append(f.door.waiting, flowTurn{f, f.generation})
	}
}

// unblock goes on where a door's socket took no more.
func (l *loop) unblock(d *flowDoor) {
	d.blocked = false
	l.sendAnswers(d)
	if d.blocked {
		return
	}
	l.poller.WatchRoom(d.fd, d.key, 0, false)
	for _, t := range d.waiting {
		if t.flow.generation == t.generation {
			t.flow.waits = false
			l.flowLater(t.flow)
		}
	}
	d.waiting = d.waiting[:0]
}
