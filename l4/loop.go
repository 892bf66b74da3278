package l4

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// acceptPause is how often a loop that has paused accepting looks whether descriptors are free again, besides
// whenever one of its own sessions ends.
const acceptPause = 50 * time.Millisecond

// maxBehind is how many full batches may come before timers: all events of as many sessions as descriptors allow,
// and still an end under a load that fills each batch.
const maxBehind = 64

// A loop is one goroutine with one epoll instance, one timer wheel and one mailbox. Everything in it but
// load, mailbox, question and pulse is used by that goroutine only ("onLoop"): it owns its sockets, sessions, timers and
// buffers outright, without a lock. Other goroutines ask through the mailbox.
type loop struct {
	// set once, then read-only
	server *Server
	index  int
	poller *sock.Poller

	load     atomic.Int64 // sessions here or on their way here
	mailbox  mailbox
	question question
	pulse    pulse

	now      time.Duration // since Server.started; read once per batch of events
	wheel    wheel
	onExpiry func(*timer)
	sessions slab[session, *session]
	flows    flowLoop
	dns      dnsLoop
	nextID   uint64
	doors    []*door // by the key of their events; nil where one was closed
	again    []turn  // sessions that used up their turn
	revoked  []revocation
	departed map[*pool.Backend]uint64 // whose flows are to end, and at which departure
	mail     []message

	localities map[netip.Addr]locality // see isLocal

	scratch []byte
	buffers bufferPool
	pipes   pipePool

	paused   int           // doors that do not accept: there is no descriptor to spare for their clients
	resumeAt time.Duration // when to look again
	freed    bool          // a session has ended since

	untold  bool          // events have come since the last round of tell began
	telling bool          // another is to come
	tellAt  time.Duration // when it is to begin
	tellTo  int           // where it goes on

	behind    int  // batches in a row that were full: more events wait
	stopped   bool // run is to return
	discarded bool // run never was and never will be called
}

// A turn is a session that has more to move, and the generation that had it.
type turn struct {
	session    *session
	generation uint32
}

// Keys of events: a session's two sides are twice its index, and one more for the backend's; doors count
// down from doorKey, and far below are those of DNS sockets and of flows (dnsKey, flowDoorKey, flowKey).
const (
	mailKey int32 = -1
	doorKey int32 = -2
)

func clientKey(s *session) int32  { return int32(s.index << 1) }
func backendKey(s *session) int32 { return int32(s.index<<1 | 1) }

// newLoop makes a loop that does not run yet.
func newLoop(s *Server, index int) (*loop, error) {
	poller, err := sock.NewPoller()
	if err != nil {
		return nil, fmt.Errorf("loop %d: %w", index, err)
	}
	l := &loop{server: s, index: index, poller: poller, scratch: make([]byte, scratchBytes)}
	l.onExpiry = l.expire
	l.nextID = s.firstID | uint64(index)<<32
	if l.mailbox.wake, err = sock.NewWakeup(poller, mailKey); err != nil {
		poller.Close()
		return nil, fmt.Errorf("loop %d: %w", index, err)
	}
	return l, nil
}

// run is the loop. It returns after stop.
func (l *loop) run() {
	for !l.stopped {
		patience := l.patience()
		l.pulse.rest()
		n := l.poller.Wait(patience)
		l.now = l.server.clock()
		l.pulse.beat(l.now)
		for i := range n {
			l.dispatch(l.poller.Event(i))
		}
		if len(l.revoked) > 0 {
			l.leaveRevoked()
			l.takeRevoked()
		}
		if len(l.departed) > 0 {
			l.takeDeparted()
		}
		if len(l.again) > 0 {
			l.takeTurns()
		}
		if l.flows.inLine() {
			l.flowTurns()
		}
		// After a stall, a timer must not judge sessions whose bytes have come and stand in the next batch.
		if n < sock.EventBatch || l.behind >= maxBehind {
			l.behind = 0
			l.wheel.advance(int64(l.now/tick), l.onExpiry)
			l.dnsTimers()
		} else {
			l.behind++
		}
		if l.paused > 0 && (l.freed || l.now >= l.resumeAt) {
			l.resume()
		}
		if l.dns.inLine() {
			l.dnsTurns()
		}
		l.finishFlows()
		l.tellSome(n)
	}
	l.close()
}

// expire looks at the session or the flow whose timer fired.
func (l *loop) expire(t *timer) {
	if t.flow != nil {
		l.onFlowTimer(t.flow)
	} else {
		l.onTimer(t.session)
	}
}

// patience is how long the next wait may take: not at all while work is left over, until the next timer,
// or without a limit.
func (l *loop) patience() time.Duration {
	if len(l.again) > 0 || l.flows.inLine() || l.dns.inLine() || l.behind > 0 {
		return 0
	}
	limit := time.Duration(-1)
	until := func(at time.Duration) {
		if wait := max(at-l.now, 0); limit < 0 || wait < limit {
			limit = wait
		}
	}
	if at, ok := l.wheel.due(); ok {
		until(time.Duration(at) * tick)
	}
	if at, ok := l.dns.due(); ok {
		until(at)
	}
	if l.paused > 0 {
		until(l.resumeAt)
	}
	if l.telling {
		until(l.tellAt)
	}
	return limit
}

// dispatch hands an event to what it belongs to. One for a session that ended earlier in this batch
// has an old generation.
func (l *loop) dispatch(e sock.Event) {
	key, generation := e.Key()
	switch {
	case key >= 0:
		s := l.sessions.at(uint32(key) >> 1)
		if s.generation != generation || !s.inUse() {
			return
		}
		if key&1 == 0 {
			l.onSession(s, &s.client, e.Bits())
		} else {
			l.onSession(s, &s.backend, e.Bits())
		}
	case key == mailKey:
		l.openMail()
	case key <= flowDoorKey:
		l.onFlow(key, generation, e.Bits())
	case key <= dnsKey:
		l.onDNS(key, generation, e.Bits())
	default:
		if d := l.doors[doorKey-key]; d != nil {
			l.acceptFrom(d)
		}
	}
}

// openMail does what others want of the loop.
func (l *loop) openMail() {
	l.mail = l.mailbox.take(l.mail)
	mail := l.mail
	for i, m := range mail {
		mail[i] = message{}
		if m.do != nil {
			m.do()
		} else {
			l.begin(m.fd, m.client, m.listener)
		}
	}
}

// later gives a session that has used up its turn another one, after all others of this batch.
func (l *loop) later(s *session) {
	if !s.inLine {
		s.inLine = true
		l.again = append(l.again, turn{s, s.generation})
	}
}

// takeTurns gives each waiting session one turn; those that need more stand in line anew.
func (l *loop) takeTurns() {
	line := l.again
	for i := range line {
		s := line[i].session
		if s.generation != line[i].generation {
			continue
		}
		s.inLine = false
		l.relay(s)
	}
	l.again = l.again[:copy(l.again, l.again[len(line):])]
}

// stop makes run return once this batch is done. onLoop, through the mailbox.
func (l *loop) stop() { l.stopped = true }

// close gives back what the loop holds; its sessions and doors are gone by then. A client that was handed
// over and not yet taken is closed with it.
func (l *loop) close() {
	l.closeDNS()
	l.closeAllFlowDoors()
	l.mailbox.close()
	for _, m := range l.mailbox.take(nil) {
		if m.do == nil {
			sock.Close(m.fd)
		}
	}
	l.pipes.close()
	l.poller.Close()
}
