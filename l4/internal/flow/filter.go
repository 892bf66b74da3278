package flow

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// A Filter stands between the clients of a UDP listener and its flows, on one loop and onLoop only. It may answer
// clients itself, and it sees what backends answer.
type Filter interface {
	// Question sees a datagram of a client, before its flow is looked for. It returns true if no flow shall get the
	// datagram: the filter has answered it with Loop.Reply, will do so, or drops it. It does not keep the datagram; it
	// may keep the sender.
	Question(from Sender, datagram []byte, now time.Duration) (done bool)

	// Answer sees a datagram from a flow's backend, and returns what the flow's client gets instead: a part of it,
	// perhaps changed in place, or nil for nothing. It does not keep the datagram.
	Answer(to Sender, datagram []byte, now time.Duration) (pass []byte)

	// Passes reports whether Answer would pass each datagram of a train as it is. Their size is size bytes; the last
	// may be shorter. Such a train is sent in one piece.
	Passes(train []byte, size int) bool
}

// A Sender is a client that has sent a datagram to a socket. It is a value, and comparable.
type Sender struct {
	socket *Socket
	peer   sock.Peer
	local  sock.Local // where it was sent to, and so what answers come from
}

// Socket is the socket that the datagram came to. It stays open while its binding's Ending is held.
func (s *Sender) Socket() *Socket { return s.socket }

// Client is who has sent the datagram.
func (s *Sender) Client() gate.Client { return gate.Client{Addr: s.peer.AddrPort()} }

// Addr16 is the sender's address; one of IPv4 is in its form mapped into IPv6.
func (s *Sender) Addr16() [16]byte {
	addr, _ := s.peer.Addr16()
	return addr
}

// At returns the sender as if it had sent to another socket of the same loop.
func (s Sender) At(other *Socket) Sender {
	s.socket = other
	return s
}

// Reply sends a datagram to a client, behind those that wait already. The datagram is copied. It is dropped while the
// socket takes no more.
func (l *Loop) Reply(to *Sender, datagram []byte) {
	d := to.socket
	if d.closed {
		return
	}
	o := &d.outbox
	if !o.writer.Room() && !d.blocked {
		l.sendOutbox(d)
	}
	if d.blocked || !o.writer.Room() {
		l.Drop(d.listener, tally.DropQueueFull, 1)
		return
	}
	at := len(o.copied)
	o.copied = append(o.copied, datagram...) // what was there before stays where the writer has it
	o.writer.Add(&to.peer, d.from(&to.local), nil, o.copied[at:], false)
	o.last = nil
	l.willAnswer(d)
	c := &d.listener.Counters[l.Index]
	c.DatagramsOut.Add(1)
	c.BytesOut.Add(uint64(len(datagram)))
}
