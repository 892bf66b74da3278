package l4

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A screen stands between the clients of a UDP listener and its flows, on one loop and onLoop only: it may answer out of its own
// memory what a backend would be asked, and sees what backends answer.
type screen interface {
	// question sees a datagram of a client, before a flow is looked for. It reports whether that is all: it has answered, with
	// loop.reply, or will, or the datagram is to be forgotten. The datagram is not kept; the caller may be.
	question(from caller, datagram []byte, now time.Duration) (done bool)

	// answer sees a datagram from a flow's backend, and returns what the flow's client gets instead, which may be a
	// part of it, changed in place, or nil for nothing. It is not kept.
	answer(to caller, datagram []byte, now time.Duration) (pass []byte)

	// passes reports whether answer would pass each datagram of a train as it is. Their size is size bytes; the last
	// may be shorter. Such a train is sent in one piece.
	passes(train []byte, size int) bool
}

// A caller is a client that has sent a datagram to a door. It is a value, and comparable.
type caller struct {
	door  *flowDoor
	peer  sock.Peer
	local sock.Local // what it was sent to, and so what answers come from
}

// reply sends a datagram to a client, after what waits to be sent already. It is copied, and dropped while the door's socket takes
// no more.
func (l *loop) reply(to *caller, datagram []byte) {
	d := to.door
	if d.closed {
		return
	}
	o := &d.outbox
	if !o.writer.Room() && !d.blocked {
		l.sendOutbox(d)
	}
	if d.blocked || !o.writer.Room() {
		l.drop(d.listener, DropQueueFull, 1)
		return
	}
	at := len(o.copied)
	o.copied = append(o.copied, datagram...) // what was there before stays where the writer has it
	o.writer.Add(&to.peer, d.from(&to.local), nil, o.copied[at:], false)
	o.last = nil
	l.willAnswer(d)
	c := &d.listener.counters[l.index]
	c.datagramsOut.Add(1)
	c.bytesOut.Add(uint64(len(datagram)))
}
