package l4

import (
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// Keys of events of flows and their doors; those of sessions and their doors lie above. A flow's socket counts down from flowKey
// by the flow's index, a door from flowDoorKey.
const (
	flowKey     int32 = -1 << 30
	flowDoorKey int32 = -1 << 29
)

func keyOf(f *flow) int32 { return flowKey - int32(f.index) }

// A flowLoop is what a loop has for flows, used onLoop only like the rest of it.
type flowLoop struct {
	store slab[flow, *flow]
	doors []*flowDoor // by the key of their events; nil where one was closed
	count int         // of flows
	ended int         // of them, idle, in this turn

	reader *sock.DatagramReader // of clients' datagrams; nil before the first door
	writer sock.DatagramWriter  // to one backend, empty between two batches
	pieces []piece              // of the batch in work
	asked  []*flow              // that have pieces of it

	doorsInLine []*flowDoor // have more to read
	flowsInLine []flowTurn
	answering   []*flowDoor // have answers in their outbox

	portPause [2]time.Duration // until when no local port is looked for, of IPv4 and of IPv6

	freeHomes    spares[home]
	freeBacklogs spares[backlog]
	tried        []*pool.Backend // of the flow that is looking for a backend
}

// A flowTurn is a flow that has more to do, and the generation that had it.
type flowTurn struct {
	flow       *flow
	generation uint32
}

// A piece is a datagram of the batch in work, or a train of them.
type piece struct {
	bytes []byte
	size  int // of a train's datagrams; 0 = it is one
	next  int // piece of the same flow; 0 = none, as no piece follows upon the first
}

// datagrams is how many a piece of so many bytes is.
func datagrams(bytes, size int) int {
	if size == 0 {
		return 1
	}
	return (bytes + size - 1) / size
}

// onFlow handles an event of a flow or of a door of flows.
func (l *loop) onFlow(key int32, generation, bits uint32) {
	if key > flowKey {
		if d := l.flows.doors[flowDoorKey-key]; d != nil {
			l.onFlowDoor(d, bits)
		}
		return
	}
	if f := l.flows.store.at(uint32(flowKey - key)); f.generation == generation && f.inUse() {
		l.onFlowSocket(f, bits)
	}
}

// flowTurns gives the doors and flows in line one turn each.
func (l *loop) flowTurns() {
	w := &l.flows
	doors := len(w.doorsInLine)
	for _, d := range w.doorsInLine[:doors] {
		d.inLine = false
		if !d.closed {
			l.receive(d)
		}
	}
	w.doorsInLine = append(w.doorsInLine[:0], w.doorsInLine[doors:]...)
	flows := len(w.flowsInLine)
	for _, t := range w.flowsInLine[:flows] {
		if t.flow.generation == t.generation {
			t.flow.inLine = false
			l.takeAnswers(t.flow)
		}
	}
	w.flowsInLine = append(w.flowsInLine[:0], w.flowsInLine[flows:]...)
}

// finishFlows ends a turn of the loop: what waits to be sent goes out.
func (l *loop) finishFlows() {
	l.sendQuestions() // first: clients of one that fails have their answer now
	w := &l.flows
	w.ended = 0
	for i, d := range w.answering {
		w.answering[i] = nil
		d.inAnswering = false
		l.sendAnswers(d)
	}
	w.answering = w.answering[:0]
}

// inLine tells whether doors or flows are in line.
func (w *flowLoop) inLine() bool { return len(w.doorsInLine)+len(w.flowsInLine) > 0 }

func (l *loop) doorLater(d *flowDoor) {
	if !d.inLine {
		d.inLine = true
		l.flows.doorsInLine = append(l.flows.doorsInLine, d)
	}
}

func (l *loop) flowLater(f *flow) {
	if !f.inLine {
		f.inLine = true
		l.flows.flowsInLine = append(l.flows.flowsInLine, flowTurn{f, f.generation})
	}
}

// drop counts datagrams that do not get where they were to go. onLoop.
func (l *loop) drop(ls *listener, why Drop, n int) {
	ls.counters[l.index].dropped[why].Add(uint64(n))
}

// openFlowDoor takes over a UDP socket, as openDoor does a listening one.
func (l *loop) openFlowDoor(fd int, b *binding, ls *listener) {
	w := &l.flows
	i := slices.Index(w.doors, nil)
	if i < 0 {
		i = len(w.doors)
		w.doors = append(w.doors, nil)
	}
	b.ending.doors.Add(1)
	d := newFlowDoor(fd, flowDoorKey-int32(i), b, ls, l.server.offload)
	if w.reader == nil {
		w.reader = sock.NewDatagramReader(true)
		w.writer.Trains = l.server.offload.GSO
	}
	w.doors[i] = d
	if e := l.poller.AddDatagram(fd, d.key, 0); e != 0 {
		// An epoll instance of our own, a socket of our own: only for want of kernel memory.
		l.server.log.Error().Str("listener", ls.name).AnErr("err", e).Msg("socket cannot be watched")
	}
}

// closeFlowDoor closes a door that has no flow.
func (l *loop) closeFlowDoor(d *flowDoor) {
	l.sendAnswers(d)
	d.closed = true
	l.poller.RemoveListener(d.fd)
	sock.Close(d.fd)
	d.binding.ending.doorClosed()
	l.flows.doors[flowDoorKey-d.key] = nil
}

// closeAllFlowDoors closes what is left when the loop ends.
func (l *loop) closeAllFlowDoors() {
	for _, d := range l.flows.doors {
		if d != nil {
			l.closeFlowDoor(d)
		}
	}
}

// heirOf returns the door that new clients of a draining one belong to, nil if there is none: one of the same address, or of a
// wildcard that includes it.
func (l *loop) heirOf(d *flowDoor) (heir *flowDoor) {
	for _, other := range l.flows.doors {
		if other == nil || other.draining {
			continue
		}
		switch at := other.binding.address; {
		case at == d.binding.address:
			return other
		case at.Port() == d.binding.address.Port() && at.Addr().IsUnspecified() && other.takes(d.binding.address.Addr()):
			heir = other
		}
	}
	return heir
}
