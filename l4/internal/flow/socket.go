package flow

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// A Socket is one loop's socket of a UDP listener, with the flows of its clients. The kernel spreads clients over the
// sockets of a listener by a hash of their addresses (SO_REUSEPORT), each to the same one again and again: so the table
// of flows needs no lock.
type Socket struct {
	// set once, then read-only
	fd       int
	slot     uint32
	listener *Listener
	binding  *listen.Binding
	gate     *gate.Flows
	wildcard bool       // its datagrams say which address they were sent to; else that is the binding's
	local    sock.Local // the binding's address, unless wildcard

	filter Filter // nil for none

	// flows finds a flow, the first if several have one identity (ByPacket). A table of our own, open addressing with
	// the hash beside the pointer, was tried: a lookup took 1.2 times as long among 10 flows and 2.5 times among 1,000,
	// since what it saved in comparing it lost in hash/maphash.
	flows map[identity]*Flow

	assignments map[gate.ClientID]*assignment // where the flows of an address go, ByClientIP
	lost        uint32                        // datagrams the kernel says it has dropped

	unanswered loop.AgeQueue[Flow] // flows that were never answered, and give way to new ones

	turn      uint32 // the number of this turn
	present   int    // flows that had something in this one
	quota     int    // messages that a flow may have in a turn; 0 = any number
	newcomers int    // flows that were begun in this turn
	behind    int    // turns in a row that did not empty the socket, up to a limit, and halved by each that did

	regularAt time.Duration // when a datagram came last of a flow that has had an answer

	outbox      outbox
	waiting     []ref // have answers, which the socket does not take now
	blocked     bool  // the socket takes no more for the moment
	inLine      bool
	inAnswering bool
	draining    bool // no new client is admitted
	adopted     bool // another process reads its datagrams, until Admit
	closed      bool
}

// Listener is the socket's.
func (d *Socket) Listener() *Listener { return d.listener }

// Binding is the sockets of the listener on all loops.
func (d *Socket) Binding() *listen.Binding { return d.binding }

// Draining reports whether the socket admits no new client.
func (d *Socket) Draining() bool { return d.draining }

// Filter is the socket's filter; nil for none.
func (d *Socket) Filter() Filter { return d.filter }

// remove takes a flow out of the table.
func (d *Socket) remove(f *Flow) {
	switch first := d.flows[f.identity]; {
	case first != f:
		for first.sibling != f {
			first = first.sibling
		}
		first.sibling = f.sibling
	case f.sibling != nil:
		d.flows[f.identity] = f.sibling
	default:
		delete(d.flows, f.identity)
	}
}

// An outbox is answers on their way to clients: read into slots, and sent from there.
type outbox struct {
	reader *sock.DatagramReader // nil before the first answer
	writer sock.DatagramWriter
	used   int    // slots
	copied []byte // datagrams of replies
	last   *Flow  // whose answers were added last; nil when others may not join them
}

func newSocket(fd int, slot uint32, b *listen.Binding, ls *Listener, o sock.Offload) *Socket {
	d := &Socket{
		fd: fd, slot: slot, listener: ls, binding: b, gate: ls.NewFlows(),
		wildcard: b.Address.Addr().IsUnspecified(),
		flows:    make(map[identity]*Flow), assignments: make(map[gate.ClientID]*assignment),
	}
	if !d.wildcard {
		d.local = sock.LocalOf(b.Address.Addr())
	}
	d.outbox.writer.Trains = o.GSO
	return d
}

// from is what answers are sent from. A socket that is bound to an address knows it.
func (d *Socket) from(local *sock.Local) *sock.Local {
	if d.wildcard {
		return local
	}
	return &noLocal
}

// noLocal leaves it to the kernel; read-only.
var noLocal sock.Local

// takes reports whether datagrams to an address come here, of a wildcard.
func (d *Socket) takes(addr netip.Addr) bool {
	return d.binding.DualStack || addr.Is4() == d.binding.Address.Addr().Is4()
}

// onSocket handles the event of a listener's socket.
func (l *Loop) onSocket(d *Socket, bits uint32) {
	if bits&sock.PollOut != 0 && d.blocked {
		l.unblock(d)
	}
	if bits&(sock.PollIn|sock.PollError) != 0 && l.reads(d) {
		l.receive(d)
	}
}

// socketTurn is how many batches of datagrams a socket takes before others have their turn: some half a millisecond's
// work.
const socketTurn = 8

// receive takes datagrams of clients.
func (l *Loop) receive(d *Socket) {
	crowded := d.crowded(l.Now)
	d.turn++
	d.present, d.newcomers = 0, 0
	for range socketTurn {
		n, e := l.reader.Read(d.fd, 0, sock.DatagramSlots)
		if e != 0 {
			n = 0 // Again; an error of what was sent here concerns nobody else, and the next event brings what follows
		}
		l.takeBatch(d, n)
		if n < sock.DatagramSlots {
			d.relax()
			return
		}
		if d.newcomers >= newcomersInTurn && !crowded {
			d.leavesBehind()
			l.socketLater(d)
			return
		}
	}
	d.leavesBehind()
	d.tighten()
	l.socketLater(d)
}

// newcomersInTurn is how many flows a socket begins in a turn before others have theirs. One costs some 15 us, eight
// times as much as a datagram of a flow that is there.
const newcomersInTurn = 32

// A flood of forged addresses must not crowd out the clients that are served. So when crowdedAfter turns in a row have
// left datagrams behind, some 2,000 new flows or 40 ms, a turn begins no more than newcomersInTurn flows, and drops
// further new clients: that costs no more than to read them. It happens only where clients were served within
// regularFor.
const (
	crowdedAfter = 64
	regularFor   = time.Second
)

// crowded reports whether flows that have had an answer come first.
func (d *Socket) crowded(now time.Duration) bool {
	return d.behind >= crowdedAfter && d.regularAt > 0 && now < d.regularAt+regularFor
}

// leavesBehind counts a turn that did not empty the socket.
func (d *Socket) leavesBehind() { d.behind = min(d.behind+1, 2*crowdedAfter) }

// A socket's quota is between these while there is one. The least is enough for a client that asks, and little of a
// turn.
const (
	leastQuota = 8
	mostQuota  = socketTurn * sock.DatagramSlots / 2
)

// tighten ends a turn that did not empty the socket. When turn after turn does not, the kernel's buffer fills up, and
// what it drops then is anybody's. So the flows that send most lose theirs instead, before that costs a send, which is
// most of a datagram's cost. A flow that is alone harms nobody else.
func (d *Socket) tighten() {
	switch {
	case d.present < 2:
		d.quota = 0
	case d.quota == 0:
		d.quota = mostQuota
	default:
		d.quota = max(d.quota/2, leastQuota)
	}
}

// relax ends a turn that emptied the socket.
func (d *Socket) relax() {
	d.behind /= 2
	if d.quota *= 2; d.quota > mostQuota {
		d.quota = 0
	}
}

// within counts a message of a flow, and reports whether the flow may have it in this turn.
func (d *Socket) within(f *Flow) bool {
	if f.turn != d.turn {
		f.turn, f.share = d.turn, 0
		d.present++
	}
	f.share++
	return d.quota == 0 || f.share <= d.quota
}

// takeBatch finds the flow of each of the datagrams in the reader, and sends each flow's together.
func (l *Loop) takeBatch(d *Socket, n int) {
	l.pieces, l.asked = append(l.pieces[:0], piece{}), l.asked[:0]
	settings := d.listener.settings.Load()
	c := &d.listener.Counters[l.Index]
	var in, bytes uint64
	for slot := range n {
		m := l.reader.Message(slot)
		c.NoteLost(&d.lost, m.Lost)
		in += uint64(datagrams(len(m.Bytes), m.Size))
		bytes += uint64(len(m.Bytes))
		if m.Truncated {
			l.Drop(d.listener, tally.DropTruncated, 1)
			continue
		}
		if !d.wildcard {
			m.Local = d.local
		}
		peer := l.reader.Peer(slot)
		if d.filter == nil {
			l.take(d, settings, peer, &m.Local, m.Bytes, m.Size)
			continue
		}
		for rest := m.Bytes; ; {
			one := rest
			if m.Size > 0 {
				one = rest[:min(m.Size, len(rest))]
			}
			if !d.filter.Question(Sender{d, *peer, m.Local}, one, l.Now) {
				l.take(d, settings, peer, &m.Local, one, 0)
			}
			if rest = rest[len(one):]; len(rest) == 0 {
				break
			}
		}
	}
	c.DatagramsIn.Add(in)
	c.BytesIn.Add(bytes)
	for i, f := range l.asked {
		l.asked[i] = nil
		l.sendPieces(f)
	}
}

// take gives a datagram, or a train, to its flow, which is made if need be, or drops it.
func (l *Loop) take(d *Socket, settings *settings, peer *sock.Peer, local *sock.Local, bytes []byte, size int) {
	f, drop := l.flowOf(d, settings, peer, local)
	n := datagrams(len(bytes), size)
	if drop != tally.NoDrop {
		l.Drop(d.listener, drop, n)
		return
	}
	if !d.within(f) {
		l.Drop(d.listener, tally.DropOverload, n)
		return
	}
	if f.police != nil {
		if bytes = l.pass(f, gate.In, bytes, size); bytes == nil {
			return
		}
		n = datagrams(len(bytes), size)
	}
	f.in.datagrams += uint64(n)
	f.in.bytes += uint64(len(bytes))
	f.active = l.Now
	if f.firstAnswer > 0 {
		d.regularAt = l.Now
	}
	if f.first == 0 {
		f.first = len(l.pieces)
		l.asked = append(l.asked, f)
	} else {
		l.pieces[f.last].next = len(l.pieces)
	}
	f.last = len(l.pieces)
	l.pieces = append(l.pieces, piece{bytes: bytes, size: size})
}

// flowOf returns the flow that a datagram belongs to, ready to send, or why there is none.
func (l *Loop) flowOf(d *Socket, settings *settings, peer *sock.Peer, local *sock.Local) (*Flow, tally.Drop) {
	who := identityOf(peer, local)
	f := d.flows[who]
	switch {
	case f != nil && f.settings.Key == ByPacket:
		return l.flowOfPacket(d, f)
	case f != nil:
		drop := l.makeReady(f)
		if drop != tally.DropNoBackend || f.settings == settings || d.draining || f.first != 0 {
			return f, drop
		}
		// Its pool has nobody left, and the listener has other settings by now, perhaps with another pool.
		l.End(f, tally.BackendRemoved)
		return l.admit(d, settings, peer, local, who, nil)
	case d.newcomers >= newcomersInTurn && d.crowded(l.Now):
		return nil, tally.DropOverload
	case !d.draining:
		f, drop := l.admit(d, settings, peer, local, who, nil)
		if drop == tally.NoDrop {
			d.newcomers++
		}
		return f, drop
	}
	successor := l.SuccessorOf(d)
	if successor == nil || l.suspended {
		return nil, tally.DropDraining
	}
	return l.flowOf(successor, successor.listener.settings.Load(), peer, local)
}

// lastDatagrams serves what has come to a socket that is not used after all, at the socket of the listener that it was
// meant for.
func (l *Loop) lastDatagrams(fd int, successor *Listener) {
	for _, d := range l.sockets {
		if d == nil || d.listener != successor || d.draining {
			continue
		}
		for range socketTurn {
			n, e := l.reader.Read(fd, 0, sock.DatagramSlots)
			if e != 0 {
				return
			}
			l.takeBatch(d, n)
		}
		return
	}
}
