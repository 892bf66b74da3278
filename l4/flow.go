package l4

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A flow is one client's datagrams and the answers to them, until it is idle. It belongs to one loop, which uses it onLoop only;
// its memory is used again for a later flow, of another generation.
//
// At rest it is one descriptor, a connected UDP socket, and this struct.
type flow struct {
	slot[flow]
	door     *flowDoor // nil while the slot is free
	listener *listener // the door's when the flow began
	settings *ListenerSpec
	pool     *pool.Pool // that its backend is picked from

	id      flowID
	serial  uint64 // what the access line has
	sibling *flow  // the next of the same id, ByPacket
	peer    sock.Peer
	local   sock.Local
	header  []byte // PROXY; empty for none

	link    *link // nil if neither the client is a socket of ours nor the backend a listener
	home    *home
	own     home          // unless others share it
	moves   uint32        // home's when the socket was connected
	backend *pool.Backend // that the socket is connected to, or was last
	fd      int32
	open    bool
	counted bool // among its client's
	batch   uint8
	expects bool // that the backend sends much: the socket is prepared for it
	singly  bool // the way to the backend takes no trains
	blocked bool // the socket takes no more for the moment
	inLine  bool
	waits   bool // stands in its door's waiting

	kept        *backlog // datagrams that the socket did not take; nil when there are none
	first, last int      // of its pieces in the batch in work; 0 outside

	turn  uint32 // of its door, in which it has had share messages
	share int

	in, out     traffic
	sentIn      uint64 // datagrams that went to a backend
	connections int
	lost        uint32 // datagrams of the backend that the kernel says it has dropped, of this socket

	timer       timer
	began       time.Duration // these are moments since Server.started
	connected   time.Duration // the socket was
	firstAnswer time.Duration // zero before
	answered    bool          // the backend that it is connected to has
	active      time.Duration
	cause       sock.Errno // what the last failure said

	place agePlace[flow] // among those of its door that were never answered
	seen  uint64         // the client's datagrams when it was looked at there
}

func (f *flow) inUse() bool { return f.door != nil }

// reset keeps the capacity of header.
func (f *flow) reset() { *f = flow{slot: f.slot, header: f.header[:0]} }

// A traffic is one way of a flow.
type traffic struct {
	datagrams uint64
	bytes     uint64 // taken from the source
	told      uint64 // those of bytes that the backend's counters have
}

// admitFlow makes a flow for a client that has none, or says why not. lease is for the flow's backend, which it takes
// over, or nil if none is picked yet.
func (l *loop) admitFlow(
	d *flowDoor, settings *ListenerSpec, peer *sock.Peer, local *sock.Local, id flowID, lease *pool.Lease,
) (*flow, Drop) {
	from, drop := l.mayBegin(d, settings, peer, limitedAs(id.client))
	if drop != dropNone {
		if lease != nil {
			lease.Release(pool.Neutral)
		}
		return nil, drop
	}
	f := l.flows.store.take()
	f.door, f.listener, f.settings, f.pool = d, d.listener, settings, settings.Pool
	f.id, f.peer, f.local, f.link = id, *peer, *local, from
	f.began, f.active = l.now, l.now
	l.nextID++
	f.serial = l.nextID
	f.home = l.homeFor(f)
	if lease != nil {
		f.home.move(*lease)
	}
	if drop := l.makeReady(f); drop != dropNone {
		l.leaveHome(f)
		l.flows.store.give(f)
		l.server.leaveFlow(d.listener, false)
		return nil, drop
	}
	f.sibling = d.byID[id]
	d.byID[id] = f
	if settings.Flows.ClientMax > 0 {
		f.counted = true
		d.clients[limitedAs(id.client)]++
	}
	if settings.Flows.SendProxy {
		f.header = appendProxyV2(f.header[:0], peer.AddrPort(), f.sentTo())
	}
	d.unanswered.add(&f.place, f)
	d.binding.ending.flows.Add(1)
	l.flows.count++
	f.timer.flow = f
	l.armFlow(f)
	d.listener.counters[l.index].accepted.Add(1)
	return f, dropNone
}

// mayBegin says whether a client may have another flow, and which listener of ours the client is, nil for none. With
// dropNone the flow is counted: leaveFlow takes that back.
func (l *loop) mayBegin(d *flowDoor, settings *ListenerSpec, peer *sock.Peer, client clientID) (from *link, why Drop) {
	if c := &l.server.chains; c.open.Load() > 0 && c.comesBack(&from, UDP, peer.AddrPort(), d.listener) {
		l.server.noteLoop(d.listener)
		return nil, DropLoop
	}
	if most := settings.Flows.ClientMax; most > 0 && d.clients[client] >= most {
		return nil, DropClientLimit
	}
	return from, l.enterFlow(d, settings)
}

// sentTo is where the client has sent its datagrams.
func (f *flow) sentTo() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(f.local.Addr16()).Unmap(), f.door.binding.address.Port())
}

// flowOfPacket returns the flow that this one datagram of a client goes by: a backend is chosen anew, and the client may have
// a flow to it already. first is one of its flows.
func (l *loop) flowOfPacket(d *flowDoor, first *flow) (*flow, Drop) {
	lease, err := first.pool.Pick(pool.PickContext{Client: first.peer.AddrPort()})
	if err != nil {
		return nil, dropOf(err)
	}
	f := first
	for f != nil && f.destination() != lease.Backend() {
		f = f.sibling
	}
	if f == nil {
		peer, local := first.peer, first.local // it may have to give way to the new one
		return l.admitFlow(d, first.settings, &peer, &local, first.id, &lease)
	}
	if !f.home.housed {
		f.home.move(lease)
		return f, l.makeReady(f)
	}
	drop := l.makeReady(f)
	lease.Release(pool.Neutral) // the flow has its own
	return f, drop
}

// destination is the backend that the flow's datagrams go to, or went to last.
func (f *flow) destination() *pool.Backend {
	if f.home.housed {
		return f.home.lease.Backend()
	}
	return f.backend
}

// armFlow sets the timer to the moment at which the flow may be idle.
func (l *loop) armFlow(f *flow) {
	l.wheel.arm(&f.timer, int64((f.active+f.settings.Flows.timeout()+tick-1)/tick))
}

// endsInTurn is how many idle flows a turn ends, a millisecond or two of closing sockets: many thousands may have begun together, and
// so be idle together. The others have their turn at the next tick.
const endsInTurn = 1024

// onFlowTimer looks at a flow whose timer fired. Datagrams do not touch the timer, so it often fires early and is set again.
func (l *loop) onFlowTimer(f *flow) {
	switch {
	case l.now < f.active+f.settings.Flows.timeout():
		l.armFlow(f)
	case l.flows.ended == endsInTurn:
		l.wheel.arm(&f.timer, int64(l.now/tick)+1)
	default:
		l.flows.ended++
		l.endFlow(f, Idle)
	}
}

// endFlow ends a flow and gives its memory back.
func (l *loop) endFlow(f *flow, why Reason) {
	d := f.door
	l.wheel.stop(&f.timer)
	l.closeFlowSocket(f)
	l.dropKept(f, DropFlowEnded)
	l.unlink(f)
	l.leaveHome(f)
	c := &f.listener.counters[l.index]
	c.ended[why].Add(1)
	c.duration.observe(l.now - f.began)
	if l.server.access.Load() {
		l.logFlowEnd(f, why)
	}
	ls, answered := f.listener, f.firstAnswer > 0
	d.unanswered.remove(&f.place)
	if d.outbox.last == f {
		d.outbox.last = nil
	}
	l.flows.store.give(f)
	l.flows.count--
	l.freed = true
	if d.binding.ending.flows.Add(-1) == 0 && d.draining {
		l.server.endIfEmpty(d.binding)
	}
	l.server.leaveFlow(ls, answered)
}

// unlink takes a flow out of its door's tables.
func (l *loop) unlink(f *flow) {
	d := f.door
	switch first := d.byID[f.id]; {
	case first != f:
		for first.sibling != f {
			first = first.sibling
		}
		first.sibling = f.sibling
	case f.sibling != nil:
		d.byID[f.id] = f.sibling
	default:
		delete(d.byID, f.id)
	}
	if !f.counted {
		return
	}
	client := limitedAs(f.id.client)
	if n := d.clients[client]; n > 1 {
		d.clients[client] = n - 1
	} else {
		delete(d.clients, client)
	}
}

// closeFlowSocket closes the socket to the backend if it is open, after what it moved was counted.
func (l *loop) closeFlowSocket(f *flow) {
	if !f.open {
		return
	}
	l.tellFlow(f)
	f.open = false
	l.server.chains.forget(f.link)
	sock.Close(int(f.fd))
}

// tellFlow adds to the backend's counters what a flow has moved since it last did; the listener's have it already.
func (l *loop) tellFlow(f *flow) {
	in, out := f.in.untold(), f.out.untold()
	if f.backend != nil && in+out > 0 {
		f.backend.AddBytes(in, out)
	}
}

func (t *traffic) untold() uint64 {
	n := t.bytes - t.told
	t.told = t.bytes
	return n
}
