package flow

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// A Flow is one client's datagrams and the answers to them, until it is idle. It belongs to one loop; its memory is
// used again for a later flow, of another generation.
//
// At rest it is one descriptor, a connected UDP socket, and this struct.
type Flow struct {
	loop.Slot[Flow]
	socket   *Socket // the listener's; nil while the slot is free
	settings *settings
	pool     *pool.Pool // where its backend is picked

	identity identity
	id       tally.ID
	sibling  *Flow // the next of the same identity, ByPacket
	peer     sock.Peer
	local    sock.Local
	header   []byte // PROXY; empty for none

	link    *dial.Link // nil if neither the client is a socket of ours nor the backend a listener
	to      *assignment
	own     assignment    // to, unless other flows share it
	moves   uint32        // to's when the socket was connected
	backend *pool.Backend // the socket is connected to it, or was last
	fd      int32
	open    bool
	batch   uint8
	expects bool // the backend sends much, and the socket is prepared for that
	singly  bool // the way to the backend takes no trains of datagrams
	blocked bool // the socket takes no more for the moment
	inLine  bool
	waits   bool // stands in its listener's socket's waiting

	detached bool         // on its way to another process, and served by nobody; see Detach
	opens    bool         // and its socket is open
	left     tally.Reason // why a detached flow ends if it comes back; else NoReason

	place gate.FlowPlace

	kept        *backlog // datagrams that the socket did not take; nil when there are none
	first, last int      // of its pieces in the batch in work; 0 outside

	turn  uint32 // of the listener's socket, in which it has had share messages
	share int

	in, out     traffic
	police      *police // nil without a limit of bandwidth
	sentIn      uint64  // datagrams that went to a backend
	connections int
	lost        uint32 // datagrams of the backend that the kernel says it has dropped, of this socket

	timer       loop.Timer[Flow]
	began       time.Duration // these are moments since Loop.Started
	connected   time.Duration // the socket was
	firstAnswer time.Duration // zero before
	answered    bool          // the backend that it is connected to has answered
	active      time.Duration
	cause       sock.Errno // what the last failure said

	age  loop.AgePlace[Flow] // among those that were never answered
	seen uint64              // the client's datagrams at evict's last look
}

// InUse implements loop.Slotted.
func (f *Flow) InUse() bool { return f.socket != nil }

// Reset implements loop.Slotted. It keeps the capacity of header.
func (f *Flow) Reset() { *f = Flow{Slot: f.Slot, header: f.header[:0]} }

// A traffic is one way of a flow.
type traffic struct {
	datagrams uint64
	bytes     uint64 // taken from the source
	flushed   uint64 // those of bytes that the backend's counters have
}

// unflushed returns the bytes that the backend's counters do not have, and notes that they get them now.
func (t *traffic) unflushed() uint64 {
	n := t.bytes - t.flushed
	t.flushed = t.bytes
	return n
}

// admit makes a flow for a client that has none, or says why not. lease is for the flow's backend, and the flow takes
// it over; nil if none is picked yet.
func (l *Loop) admit(
	d *Socket, settings *settings, peer *sock.Peer, local *sock.Local, who identity, lease *pool.Lease,
) (*Flow, tally.Drop) {
	client := gate.Client{Addr: peer.AddrPort()}
	var place gate.FlowPlace
	if why := l.enter(d, &place, &client); why != gate.Admitted {
		if lease != nil {
			lease.Release(pool.Neutral)
		}
		return nil, why.Drops()
	}
	f := l.store.Take()
	f.socket, f.settings, f.pool, f.place = d, settings, settings.pool, place
	f.identity, f.peer, f.local, f.link = who, *peer, *local, client.From
	f.began, f.active = l.Now, l.Now
	f.id = tally.ID(l.NextID())
	f.to = l.assignmentFor(f)
	if lease != nil {
		f.to.move(*lease)
	}
	if drop := l.makeReady(f); drop != tally.NoDrop {
		l.unassign(f)
		l.store.Give(f)
		d.gate.Leave(&place, peer.AddrPort().Addr())
		return nil, drop
	}
	f.sibling = d.flows[who]
	d.flows[who] = f
	if settings.SendProxy {
		f.header = wire.AppendProxyV2(f.header[:0], peer.AddrPort(), f.sentTo())
	}
	d.unanswered.Add(&f.age, f)
	d.binding.Ending.Hold()
	l.limit(f)
	l.arm(f)
	l.counters(f).Accepted.Add(1)
	l.logBegin(f)
	return f, tally.NoDrop
}

// evictionsForOne is how many flows may give way to a new one. It is more than one, since a limit may have been
// lowered.
const evictionsForOne = 4

// enter asks the gate for one more flow. Flows that were never answered give way to it.
func (l *Loop) enter(d *Socket, place *gate.FlowPlace, c *gate.Client) gate.Reason {
	if why := d.gate.Admit(place, c, l.Now); why != gate.Admitted {
		return why
	}
	why := d.gate.Enter(l.Now)
	for n := 0; why != gate.Admitted && n < evictionsForOne && l.evict(d, nil); n++ {
		why = d.gate.Enter(l.Now)
	}
	if why != gate.Admitted {
		d.gate.Withdraw(place, c.Addr.Addr())
	}
	return why
}

func (l *Loop) counters(f *Flow) *tally.Counters { return &f.socket.listener.Counters[l.Index] }

// sentTo is where the client has sent its datagrams.
func (f *Flow) sentTo() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(f.local.Addr16()).Unmap(), f.listenerPort())
}

// listenerPort is the port of the listener's address that the client sends its datagrams to.
func (f *Flow) listenerPort() uint16 { return f.socket.binding.Address.Port() }

// flowOfPacket returns the flow that this one datagram of a client goes by: a backend is chosen anew, and the client
// may have a flow to it already. first is one of the client's flows.
func (l *Loop) flowOfPacket(d *Socket, first *Flow) (*Flow, tally.Drop) {
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
		return l.admit(d, first.settings, &peer, &local, first.identity, &lease)
	}
	if !f.to.assigned {
		f.to.move(lease)
		return f, l.makeReady(f)
	}
	drop := l.makeReady(f)
	lease.Release(pool.Neutral) // the flow has its own
	return f, drop
}

// destination is the backend that the flow's datagrams go to, or went to last.
func (f *Flow) destination() *pool.Backend {
	if f.to.assigned {
		return f.to.lease.Backend()
	}
	return f.backend
}

// arm sets the timer to the moment at which the flow may be idle.
func (l *Loop) arm(f *Flow) { l.wheel.Arm(&f.timer, f, f.active+f.settings.timeout()) }

// endsInTurn is how many idle flows a turn ends, a millisecond or two of closing sockets: many thousands may have begun
// together, and so be idle together. The others have their turn at the next tick.
const endsInTurn = 1024

// onFlowTimer looks at a flow whose timer fired. Datagrams do not touch the timer, so it often fires early and is set
// again.
func (l *Loop) onFlowTimer(f *Flow) {
	switch {
	case l.Now < f.active+f.settings.timeout():
		l.arm(f)
	case l.ended == endsInTurn:
		l.wheel.Arm(&f.timer, f, l.Now+loop.Tick)
	default:
		l.ended++
		l.End(f, tally.Idle)
	}
}

// End ends a flow and gives its memory back.
func (l *Loop) End(f *Flow, why tally.Reason) {
	if f.detached {
		f.left = why
		return
	}
	d := f.socket
	l.wheel.Stop(&f.timer)
	l.closeFlow(f)
	l.dropKept(f, tally.DropFlowEnded)
	d.remove(f)
	l.unassign(f)
	c := l.counters(f)
	c.Ended[why].Add(1)
	c.Duration.Observe(l.Now - f.began)
	if l.access.Logs(why, why.InOrder() || why == tally.Idle, &l.sample) {
		l.logEnd(f, why)
	}
	l.forget(f)
}

// forget gives the memory of a flow back that is over.
func (l *Loop) forget(f *Flow) {
	d := f.socket
	d.unanswered.Remove(&f.age)
	if d.outbox.last == f {
		d.outbox.last = nil
	}
	place, client := f.place, netip.AddrFrom16(f.identity.client)
	l.store.Give(f)
	l.Freed = true
	d.binding.Ending.Release()
	d.gate.Leave(&place, client)
}

// closeFlow closes the socket to the backend if it is open, and counts what it has moved.
func (l *Loop) closeFlow(f *Flow) {
	if !f.open {
		return
	}
	l.flush(f)
	f.open = false
	l.dialer.Forget(f.link)
	sock.Close(int(f.fd))
}

// flush adds to the backend's counters what a flow has moved since the last time. The listener's have it already.
func (l *Loop) flush(f *Flow) {
	in, out := f.in.unflushed(), f.out.unflushed()
	if in+out > 0 {
		f.socket.listener.NoteBytes(f.peer.AddrPort().Addr(), in, out)
	}
	if f.backend != nil && in+out > 0 {
		f.backend.AddBytes(in, out)
	}
}

// onRound is what a flow needs now and then while the loop is in use.
func (l *Loop) onRound(f *Flow) {
	l.flush(f)
	l.limit(f) // there may be a limit since it began
}

// retries is how often the flow got another backend.
func (f *Flow) retries() int { return max(f.connections-1, 0) }

// Entry describes a flow.
func (l *Loop) Entry(f *Flow) tally.Entry {
	return tally.Entry{
		ID: f.id, Protocol: sock.UDP, Listener: f.socket.listener.Name, Pool: f.pool, Backend: f.destination(),
		Port:   f.listenerPort(),
		Client: f.peer.AddrPort(), Phase: "relaying", Began: f.began, Connected: f.connected, Active: f.active,
		BytesIn: f.in.bytes, BytesOut: f.out.bytes, DatagramsIn: f.in.datagrams, DatagramsOut: f.out.datagrams,
		Retries: f.retries(),
	}
}
