package l4

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A flowDoor is one loop's socket of a UDP listener, with the flows of its clients, used onLoop only. The kernel spreads clients over
// the doors of a listener by a hash of their addresses (SO_REUSEPORT), each to the same one again and again: so a table of flows needs no
// lock.
type flowDoor struct {
	// set once, then read-only
	fd       int
	key      int32 // of its events
	listener *listener
	binding  *binding
	wildcard bool       // its datagrams say which address they were sent to; else that is the binding's
	local    sock.Local // the binding's address, unless wildcard
	screen   screen     // nil for none

	// byID finds a flow, the first if several have one id (ByPacket). A table of our own, open addressing with the hash beside the
	// pointer, was tried: a lookup took 1.2 times as long among 10 flows and 2.5 times among 1,000, since what it saved in comparing it
	// lost in hash/maphash.
	byID map[flowID]*flow

	clients map[clientID]int   // flows of each client, of those whose settings limit them
	homes   map[clientID]*home // where the flows of an address go, ByClientIP
	lost    uint32             // datagrams the kernel says it has dropped

	unanswered ageQueue[flow] // flows that were never answered, and give way to new ones

	turn      uint32 // counts turns
	present   int    // flows that had something in this one
	quota     int    // messages that a flow may have in a turn; 0 = any number
	newcomers int    // flows that were begun in this turn
	behind    int    // turns in a row that did not empty the socket, up to a limit, and halved by each that did

	regularAt time.Duration // when a datagram came last of a flow that has had an answer

	outbox      outbox
	waiting     []flowTurn // have answers, which the socket does not take now
	blocked     bool       // the socket takes no more for the moment
	inLine      bool
	inAnswering bool
	draining    bool // no new client is admitted
	closed      bool
}

// A clientID is the address, or the part of one, that stands for a client. Those of IPv4 are in their form mapped into IPv6.
type clientID [16]byte

// limitedAs is who counts as one client for a limit of flows: an IPv4 address, or an IPv6 /64, which is what one customer has.
func limitedAs(addr [16]byte) clientID {
	if !netip.AddrFrom16(addr).Is4In6() {
		clear(addr[8:])
	}
	return addr
}

// An outbox is answers on their way to clients: read into slots, and sent from there.
type outbox struct {
	reader *sock.DatagramReader // nil before the first answer
	writer sock.DatagramWriter
	used   int    // slots
	copied []byte // datagrams of replies
	last   *flow  // whose answers were added last; nil when others may not join them
}

func newFlowDoor(fd int, key int32, b *binding, ls *listener, o sock.Offload) *flowDoor {
	d := &flowDoor{
		fd: fd, key: key, listener: ls, binding: b, wildcard: b.address.Addr().IsUnspecified(),
		byID: make(map[flowID]*flow), clients: make(map[clientID]int), homes: make(map[clientID]*home),
	}
	if !d.wildcard {
		d.local = sock.LocalOf(b.address.Addr())
	}
	d.outbox.writer.Trains = o.GSO
	return d
}

// from is what answers are sent from: a socket that is bound to an address needs not be told.
func (d *flowDoor) from(local *sock.Local) *sock.Local {
	if d.wildcard {
		return local
	}
	return &noLocal
}

// noLocal leaves it to the kernel; read-only.
var noLocal sock.Local

// takes tells whether datagrams to an address would come here, of a wildcard.
func (d *flowDoor) takes(addr netip.Addr) bool {
	return d.listener.spec.Load().DualStack || addr.Is4() == d.binding.address.Addr().Is4()
}

// onFlowDoor handles an event of a door.
func (l *loop) onFlowDoor(d *flowDoor, bits uint32) {
	if bits&sock.PollOut != 0 && d.blocked {
		l.unblock(d)
	}
	if bits&(sock.PollIn|sock.PollError) != 0 {
		l.receive(d)
	}
}

// doorTurn is how many batches of datagrams a door takes before others have their turn: some half a millisecond's work.
const doorTurn = 8

// receive takes datagrams of clients.
func (l *loop) receive(d *flowDoor) {
	crowded := d.crowded(l.now)
	d.turn++
	d.present, d.newcomers = 0, 0
	for range doorTurn {
		n, e := l.flows.reader.Read(d.fd, 0, sock.DatagramSlots)
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
			l.doorLater(d)
			return
		}
	}
	d.leavesBehind()
	d.tighten()
	l.doorLater(d)
}

// newcomersInTurn is how many flows a door begins in a turn before others have theirs. One costs some 15 us, eight
// times as much as a datagram of a flow that is there.
const newcomersInTurn = 32

// crowdedAfter is how many turns in a row may leave datagrams behind, some 2,000 new flows or 40 ms, before no more
// than newcomersInTurn are begun in one, and further new clients are dropped for what reading them costs: a flood of
// forged addresses must not crowd out those that are served. That is only where there are such, within regularFor.
const (
	crowdedAfter = 64
	regularFor   = time.Second
)

// crowded reports whether flows that have had an answer come first.
func (d *flowDoor) crowded(now time.Duration) bool {
	return d.behind >= crowdedAfter && d.regularAt > 0 && now < d.regularAt+regularFor
}

// leavesBehind counts a turn that did not empty the socket.
func (d *flowDoor) leavesBehind() { d.behind = min(d.behind+1, 2*crowdedAfter) }

// A door's quota stands between these while it has one. The least is enough for one that asks, and little of a turn.
const (
	leastQuota = 8
	mostQuota  = doorTurn * sock.DatagramSlots / 2
)

// tighten ends a turn that did not empty the socket. When turn after turn does not, the kernel's buffer fills up, and what it drops then is
// anybody's. So the flows that send most lose theirs instead, before that costs a send, which is most of a datagram's cost. A flow that is
// alone harms nobody else.
func (d *flowDoor) tighten() {
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
func (d *flowDoor) relax() {
	d.behind /= 2
	if d.quota *= 2; d.quota > mostQuota {
		d.quota = 0
	}
}

// within counts a message of a flow, and reports whether the flow may have it in this turn.
func (d *flowDoor) within(f *flow) bool {
	if f.turn != d.turn {
		f.turn, f.share = d.turn, 0
		d.present++
	}
	f.share++
	return d.quota == 0 || f.share <= d.quota
}

// takeBatch finds the flow of each of the datagrams in the reader, and sends each flow's together.
func (l *loop) takeBatch(d *flowDoor, n int) {
	w := &l.flows
	w.pieces, w.asked = append(w.pieces[:0], piece{}), w.asked[:0]
	settings := d.listener.spec.Load()
	var in, bytes uint64
	for slot := range n {
		m := w.reader.Message(slot)
		l.noteLost(d.listener, &d.lost, m.Lost)
		in += uint64(datagrams(len(m.Bytes), m.Size))
		bytes += uint64(len(m.Bytes))
		if m.Truncated {
			l.drop(d.listener, DropTruncated, 1)
			continue
		}
		if !d.wildcard {
			m.Local = d.local
		}
		peer := w.reader.Peer(slot)
		if d.screen == nil {
			l.take(d, settings, peer, &m.Local, m.Bytes, m.Size)
			continue
		}
		for rest := m.Bytes; ; {
			one := rest
			if m.Size > 0 {
				one = rest[:min(m.Size, len(rest))]
			}
			if !d.screen.question(caller{d, *peer, m.Local}, one, l.now) {
				l.take(d, settings, peer, &m.Local, one, 0)
			}
			if rest = rest[len(one):]; len(rest) == 0 {
				break
			}
		}
	}
	c := &d.listener.counters[l.index]
	c.datagramsIn.Add(in)
	c.bytesIn.Add(bytes)
	for i, f := range w.asked {
		w.asked[i] = nil
		l.sendPieces(f)
	}
}

// noteLost counts what the kernel had no room for: lost datagrams since the socket was opened, modulo 2^32, of which *seen are counted
// already.
func (l *loop) noteLost(ls *listener, seen *uint32, lost uint32) {
	if n := int32(lost - *seen); lost != 0 && n > 0 {
		l.drop(ls, DropReceiveBuffer, int(n))
		*seen = lost
	}
}

// take gives a datagram, or a train, to its flow, which is made if need be, or drops it.
func (l *loop) take(d *flowDoor, settings *ListenerSpec, peer *sock.Peer, local *sock.Local, bytes []byte, size int) {
	f, drop := l.flowOf(d, settings, peer, local)
	n := datagrams(len(bytes), size)
	if drop != dropNone {
		l.drop(d.listener, drop, n)
		return
	}
	if !d.within(f) {
		l.drop(d.listener, DropOverload, n)
		return
	}
	f.in.datagrams += uint64(n)
	f.in.bytes += uint64(len(bytes))
	f.active = l.now
	if f.firstAnswer > 0 {
		d.regularAt = l.now
	}
	w := &l.flows
	if f.first == 0 {
		f.first = len(w.pieces)
		w.asked = append(w.asked, f)
	} else {
		w.pieces[f.last].next = len(w.pieces)
	}
	f.last = len(w.pieces)
	w.pieces = append(w.pieces, piece{bytes: bytes, size: size})
}

// flowOf returns the flow that a datagram belongs to, ready to send, or why there is none.
func (l *loop) flowOf(d *flowDoor, settings *ListenerSpec, peer *sock.Peer, local *sock.Local) (*flow, Drop) {
	id := idOf(peer, local)
	f := d.byID[id]
	switch {
	case f != nil && f.settings.Flows.Key == ByPacket:
		return l.flowOfPacket(d, f)
	case f != nil:
		drop := l.makeReady(f)
		if drop != DropNoBackend || f.settings == settings || d.draining || f.first != 0 {
			return f, drop
		}
		// Its pool has nobody left, and the listener has other settings by now, perhaps with another pool.
		l.endFlow(f, BackendRemoved)
		return l.admitFlow(d, settings, peer, local, id, nil)
	case d.newcomers >= newcomersInTurn && d.crowded(l.now):
		return nil, DropOverload
	case !d.draining:
		f, drop := l.admitFlow(d, settings, peer, local, id, nil)
		if drop == dropNone {
			d.newcomers++
		}
		return f, drop
	}
	heir := l.heirOf(d)
	if heir == nil {
		return nil, DropDraining
	}
	return l.flowOf(heir, heir.listener.spec.Load(), peer, local)
}

// lastDatagrams gives what has come to a socket that is not to be a door after all to the door of the listener it was on its way to.
func (l *loop) lastDatagrams(fd int, heir *listener) {
	for _, d := range l.flows.doors {
		if d == nil || d.listener != heir || d.draining {
			continue
		}
		for range doorTurn {
			n, e := l.flows.reader.Read(fd, 0, sock.DatagramSlots)
			if e != 0 {
				return
			}
			l.takeBatch(d, n)
		}
		return
	}
}
