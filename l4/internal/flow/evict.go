package flow

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A flow that was never answered may be of a client whose address is forged, and costs a descriptor and a local port
// until it is idle. So it gives way to a new one as soon as there are too many: of the listener (max_flows), of those
// without an answer (the gate's unansweredPart), or of all (see budget). A flow that has had an answer never does. A
// protocol without answers loses nothing by that: its datagrams have gone to the backend, and the next one makes
// another flow.
//
// One socket for several flows until the backend has answered would spare descriptors. It was rejected: an answer says
// nothing but which backend it comes from, so nobody would know whose it is. Taking over the socket of the flow that
// gives way, with its port, was rejected for the same reason: its client's answer may be on the way. SO_REUSEADDR would
// let sockets share a port, but the kernel may then give two sockets with the same backend the same port. And
// IP_BIND_ADDRESS_NO_PORT helps TCP only.

// answerTime is how long a flow has to be answered before it may give way. A flood that is faster than that must not
// push out a client whose answer is on its way, nor make the loop do nothing but open and close sockets: at 20,000
// forged datagrams a second each cost 17 us of CPU time without this limit, and 10 us with it.
const answerTime = 250 * time.Millisecond

// evictLooks bounds the search for a flow that gives way. In its first half, a flow whose client has sent again since
// the last look gets another chance.
const evictLooks = 16

// evict ends the oldest flow of a socket that was not answered in answerTime. It spares the flow except, and flows with
// datagrams in the batch in work: they are still needed. It reports false when it finds none.
func (l *Loop) evict(d *Socket, except *Flow) bool {
	for look := range evictLooks {
		f := d.unanswered.First()
		if f == nil || l.Now < f.began+answerTime {
			return false // the flows behind it are younger, or have sent again
		}
		if f != except && f.first == 0 && (look >= evictLooks/2 || f.in.datagrams <= max(f.seen, 1)) {
			l.End(f, tally.Evicted)
			return true
		}
		f.seen = f.in.datagrams
		d.unanswered.Again(&f.age)
	}
	return false
}

// noteFirstAnswer notes that a flow was answered. So its client is not forged, as far as a single answer can show, and
// the flow does not give way any more.
func (l *Loop) noteFirstAnswer(f *Flow) {
	f.firstAnswer = l.Now
	f.socket.unanswered.Remove(&f.age)
	f.socket.gate.Answered(&f.place)
}

// portPause is how long no local port is looked for after there was none, except for flows that have had an answer: the
// search costs most then, see hostPortPart in package gate.
const portPause = 100 * time.Millisecond

// evictedAtOnce is how many flows give way when the kernel has no descriptor or port left, contrary to what the budget
// says.
const evictedAtOnce = 16

// openSocket connects a socket to a flow's backend. When the kernel has no descriptor or port for it, flows that were
// never answered give way. A flow that was answered then has a second try at once.
func (l *Loop) openSocket(f *Flow, to *pool.Backend) (int, sock.Errno) {
	pause := &l.portPause[0]
	if to.Addr().Addr().Is6() {
		pause = &l.portPause[1]
	}
	answered := f.firstAnswer > 0
	if l.Now < *pause && !answered {
		return -1, sock.NoPort
	}
	fd, e := l.dial(f, to)
	if e != sock.NoPort && !sock.OutOfDescriptors(e) {
		return fd, e
	}
	if e == sock.NoPort {
		*pause = l.Now + portPause
		f.socket.gate.PortsShort(l.Now)
	}
	evicted := 0
	for evicted < evictedAtOnce && l.evict(f.socket, f) {
		evicted++
	}
	if answered && evicted > 0 {
		l.dialer.Freed()
		return l.dial(f, to)
	}
	return -1, e
}

func (l *Loop) dial(f *Flow, to *pool.Backend) (int, sock.Errno) {
	client := dial.Client{By: f.socket.listener.ID, Link: &f.link, Port: f.listenerPort()}
	return l.dialer.Dial(l.Now, sock.UDP, f.pool, to, client)
}
