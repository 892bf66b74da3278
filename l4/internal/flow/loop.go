// Package flow serves the clients of UDP. A flow is one client's datagrams and the answers to them, until it is idle:
// its datagrams go to one backend, by a connected socket of its own.
//
// Each loop has one UDP socket of each listener (SO_REUSEPORT), and the kernel's hash sends a client to the same one
// again and again. So each flow belongs to one loop, and is used on that loop only. The methods of a Loop, a Socket and
// a Flow are onLoop, but for those that say otherwise.
package flow

import (
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A Loop is the flows of one event loop. Its zero value is of no use, see Attach.
type Loop struct {
	*loop.Loop

	// set once, then read-only
	dialer   *dial.Dialer
	access   *tally.AccessLog
	sample   tally.Sample // of the access lines
	offload  sock.Offload
	backends loop.Source // of the flows' sockets
	clients  loop.Source // of the listeners' sockets
	onTimer  func(*Flow)

	store   loop.Slab[Flow, *Flow]
	wheel   loop.Wheel[Flow]
	rounds  loop.Rounds
	sockets []*Socket // by slot; nil where one was closed
	ended   int       // idle flows, in this turn

	suspended bool // nobody is admitted, see Suspend

	reader *sock.DatagramReader // of clients' datagrams; nil before the first socket
	writer sock.DatagramWriter  // to one backend, empty between two batches
	pieces []piece              // of the batch in work
	asked  []*Flow              // that have pieces of it

	socketsInLine []*Socket // have more to read
	flowsInLine   []ref     // have more answers to read
	answering     []*Socket // have answers in their outbox

	portPause [2]time.Duration // until when no local port is looked for, of IPv4 and of IPv6

	freeAssignments loop.FreeList[assignment]
	freeBacklogs    loop.FreeList[backlog]
	tried           []*pool.Backend // of the flow that is looking for a backend

	revoked  []revocation
	departed map[*pool.Backend]uint64 // backends whose flows are to end, and at which departure
}

// A ref is a flow that may have ended meanwhile.
type ref = loop.Ref[Flow, *Flow]

// A piece is a datagram of the batch in work, or a train of them.
type piece struct {
	bytes []byte
	size  int // of a train's datagrams; 0 = it is one
	next  int // piece of the same flow; 0 = none, as no piece follows upon the first
}

// datagrams is how many datagrams a piece of so many bytes is.
func datagrams(bytes, size int) int {
	if size == 0 {
		return 1
	}
	return (bytes + size - 1) / size
}

// Attach puts flows on loops that do not run yet. dialers has one for each loop.
func Attach(loops []*loop.Loop, dialers []*dial.Dialer, access *tally.AccessLog, offload sock.Offload) []*Loop {
	var all []*Loop
	for i, on := range loops {
		l := &Loop{Loop: on, dialer: dialers[i], access: access, offload: offload}
		l.backends, l.clients = on.NewSource(l.onFlowEvent), on.NewSource(l.onSocketEvent)
		l.onTimer = l.onFlowTimer
		l.rounds = loop.NewRounds(func(from int) int { return l.store.Some(from, l.onRound) })
		on.Attach(l)
		all = append(all, l)
	}
	return all
}

// AfterEvents implements loop.Part.
func (l *Loop) AfterEvents() {
	if len(l.revoked) > 0 {
		l.takeRevoked()
	}
	if len(l.departed) > 0 {
		l.takeDeparted()
	}
	if l.inLine() {
		l.takeTurns()
	}
}

// OnTime implements loop.Part.
func (l *Loop) OnTime() { l.wheel.Advance(l.Now, l.onTimer) }

// EndTurn implements loop.Part: what waits to be sent goes out.
func (l *Loop) EndTurn(events int) {
	l.ended = 0
	for i, d := range l.answering {
		l.answering[i] = nil
		d.inAnswering = false
		l.sendAnswers(d)
	}
	l.answering = l.answering[:0]
	l.rounds.EndTurn(l.Now, events)
}

// Due implements loop.Part.
func (l *Loop) Due() (time.Duration, bool) {
	if l.inLine() {
		return l.Now, true
	}
	at, due := l.wheel.Due()
	if flush, ok := l.rounds.Due(); ok && (!due || flush < at) {
		at, due = flush, true
	}
	return at, due
}

// Close implements loop.Part.
func (l *Loop) Close() {
	for _, d := range l.sockets {
		if d != nil {
			l.closeSocket(d)
		}
	}
}

func (l *Loop) onFlowEvent(slot, generation, bits uint32) {
	if f := l.store.At(slot); f.Generation() == generation && f.InUse() {
		l.onFlow(f, bits)
	}
}

func (l *Loop) onSocketEvent(slot, _, bits uint32) {
	if d := l.sockets[slot]; d != nil {
		l.onSocket(d, bits)
	}
}

// takeTurns gives the sockets and flows in line one turn each.
func (l *Loop) takeTurns() {
	sockets := len(l.socketsInLine)
	for _, d := range l.socketsInLine[:sockets] {
		d.inLine = false
		if !d.closed && l.reads(d) {
			l.receive(d)
		}
	}
	l.socketsInLine = append(l.socketsInLine[:0], l.socketsInLine[sockets:]...)
	flows := len(l.flowsInLine)
	for _, r := range l.flowsInLine[:flows] {
		if f, alive := r.Get(); alive {
			f.inLine = false
			l.takeAnswers(f)
		}
	}
	l.flowsInLine = append(l.flowsInLine[:0], l.flowsInLine[flows:]...)
}

// inLine reports whether sockets or flows have more to read.
func (l *Loop) inLine() bool { return len(l.socketsInLine)+len(l.flowsInLine) > 0 }

func (l *Loop) socketLater(d *Socket) {
	if !d.inLine {
		d.inLine = true
		l.socketsInLine = append(l.socketsInLine, d)
	}
}

func (l *Loop) flowLater(f *Flow) {
	if !f.inLine {
		f.inLine = true
		l.flowsInLine = append(l.flowsInLine, loop.RefTo(f))
	}
}

// Drop counts datagrams of a listener that do not get where they were to go.
func (l *Loop) Drop(ls *Listener, why tally.Drop, n int) {
	ls.Counters[l.Index].Drop(why, n)
}

// Open takes over a UDP socket of a binding.
func (l *Loop) Open(fd int, b *listen.Binding, ls *Listener) {
	i := slices.Index(l.sockets, nil)
	if i < 0 {
		i = len(l.sockets)
		l.sockets = append(l.sockets, nil)
	}
	b.Ending.Opened()
	d := newSocket(fd, uint32(i), b, ls, l.offload)
	if l.reader == nil {
		l.reader = sock.NewDatagramReader(true)
		l.writer.Trains = l.offload.GSO
	}
	l.sockets[i] = d
	d.adopted = b.Elsewhere()
	if e := l.clients.AddDatagram(fd, d.slot, 0); e != 0 {
		// An epoll instance of our own, a socket of our own: only for want of kernel memory.
		l.access.Log.Error().Str("listener", ls.Name).AnErr("err", e).
			Str("event", "socket_not_watched").Msg("socket cannot be watched")
	}
	if l.suspended {
		l.watch(d)
	}
}

// watch watches a socket for what it is to be watched for now.
func (l *Loop) watch(d *Socket) {
	l.clients.WatchDatagram(d.fd, d.slot, 0, l.reads(d), d.blocked)
}

// Leave admits no new client at the loop's sockets of a binding. They are closed when the last flow is over.
func (l *Loop) Leave(b *listen.Binding) {
	for _, d := range l.sockets {
		if d != nil && d.binding == b {
			d.draining = true
		}
	}
	b.Ending.Left()
}

// CloseSockets closes the loop's sockets of a binding, which have no flow.
func (l *Loop) CloseSockets(b *listen.Binding) {
	for _, d := range l.sockets {
		if d != nil && d.binding == b {
			l.closeSocket(d)
		}
	}
}

func (l *Loop) closeSocket(d *Socket) {
	l.sendAnswers(d)
	d.closed = true
	l.clients.Remove(d.fd)
	sock.Close(d.fd)
	d.binding.Ending.Closed()
	l.sockets[d.slot] = nil
}

// GiveBack closes sockets that were opened for a change that does not come. The datagrams that have come there go to
// the listener they were meant for.
func (l *Loop) GiveBack(b *listen.Binding, to *Listener) {
	for _, fd := range b.Sockets[l.Index] {
		l.lastDatagrams(fd, to)
		sock.Close(fd)
	}
}

// Filter puts a filter before the flows of a listener, or takes it away with nil.
func (l *Loop) Filter(ls *Listener, f Filter) {
	for _, d := range l.sockets {
		if d != nil && d.listener == ls {
			d.filter = f
		}
	}
}

// SuccessorOf returns the socket that new clients of a draining one belong to, nil if there is none: one of the same
// address, or of a wildcard that includes it.
func (l *Loop) SuccessorOf(d *Socket) (successor *Socket) {
	for _, other := range l.sockets {
		if other == nil || other.draining {
			continue
		}
		at, left := other.binding.Address, d.binding.Address
		switch {
		case at == left:
			return other
		case at.Port() == left.Port() && at.Addr().IsUnspecified() && other.takes(left.Addr()):
			successor = other
		}
	}
	return successor
}
