// Package session serves the clients of TCP. A session is one client's connection and its backend's: it is accepted,
// goes through the prefaces of its listener, waits for a backend if none has room, connects to it, relays bytes both
// ways, and ends with an outcome for the pool and a line in the log.
//
// Each session belongs to one loop, and is used on that loop only. The methods of a Loop and a Session are onLoop, but
// for those that say otherwise.
package session

import (
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
	"github.com/limeload/limeload-l4/pool"
)

// A Loop is the sessions of one event loop. Its zero value is of no use, see Attach.
type Loop struct {
	*loop.Loop

	// set once, then read-only
	dialer  *dial.Dialer
	access  *tally.AccessLog
	sample  tally.Sample     // of the access lines
	threads *tlsconn.Threads // for TLS handshakes
	peers   []*Loop          // all loops' sessions, these included
	conns   loop.Source      // of the sessions' connections
	sockets loop.Source      // of listening sockets
	onTimer func(*Session)
	onTurn  func(*pace)

	ownClients bool // this process may be a client of its Unix sockets; tests set it before the loop runs

	load atomic.Int64 // sessions here or on their way here; read from any goroutine

	sessions       loop.Slab[Session, *Session]
	wheel          loop.Wheel[Session]
	pacing         loop.Wheel[pace]
	rounds         loop.Rounds
	listening      []*socket // by slot; nil where one was closed
	again          []Ref     // sessions that used up their turn
	freeExtras     loop.FreeList[extra]
	freeRemainders loop.FreeList[remainder]
	freePlaces     loop.FreeList[loop.AgePlace[Session]]
	freePaces      loop.FreeList[pace]
	freeTurns      loop.FreeList[turns]

	maxHandshakes int                    // set once
	handshakes    int                    // in progress with clients
	handshakeLine tlsconn.Lanes[Ref]     // whose handshakes wait for those to become fewer
	shaking       loop.AgeQueue[Session] // whose handshakes wait for their clients
	revoked       []revocation

	askings  []asking      // the first one is under way
	resting  []Ref         // sessions that have come to rest, and are to leave
	patience time.Duration // see AskToLeave
	emptying bool          // see AskAllToLeave
	parting  []parting     // connections of clients that were told to leave, the oldest first
	partAt   time.Duration // when to look at them

	mute []muted // connections of clients that are refused without a word, the oldest first

	shunning  bool // some sockets shun somebody
	suspended bool // nobody is accepted, see Suspend

	paused   int           // sockets that do not accept: there is no descriptor to spare, or no place, for their clients
	resumeAt time.Duration // when to look again
}

// A Ref is a session that may have ended meanwhile.
type Ref = loop.Ref[Session, *Session]

// Attach puts sessions on loops that do not run yet. dialers has one for each loop.
func Attach(
	loops []*loop.Loop, dialers []*dial.Dialer, access *tally.AccessLog, threads *tlsconn.Threads,
) []*Loop {
	all := make([]*Loop, len(loops))
	for i, on := range loops {
		l := &Loop{Loop: on, dialer: dialers[i], access: access, threads: threads, peers: all, maxHandshakes: maxHandshakes}
		l.conns, l.sockets = on.NewSource(l.onEvent), on.NewSource(l.onClients)
		l.onTimer, l.onTurn = l.onSessionTimer, l.onPace
		l.rounds = loop.NewRounds(func(from int) int { return l.sessions.Some(from, l.onRound) })
		on.Attach(l)
		all[i] = l
	}
	return all
}

// Load is how many sessions the loop has, those on their way to it included. It may be called from any goroutine.
func (l *Loop) Load() int { return int(l.load.Load()) }

// AfterEvents implements loop.Part.
func (l *Loop) AfterEvents() {
	if len(l.revoked) > 0 {
		l.takeRevoked()
	}
	if len(l.again) > 0 {
		l.takeTurns()
	}
	if l.handshakeLine.Waiting() > 0 {
		l.nextHandshakes()
	}
	if len(l.resting) > 0 {
		l.takeResting()
	}
	if len(l.askings) > 0 {
		l.takeAskings()
	}
}

// OnTime implements loop.Part.
func (l *Loop) OnTime() {
	l.wheel.Advance(l.Now, l.onTimer)
	l.pacing.Advance(l.Now, l.onTurn)
	l.endMute()
	l.endShunning()
	l.endParting()
}

// EndTurn implements loop.Part.
func (l *Loop) EndTurn(events int) {
	if l.paused > 0 && (l.Freed || l.Now >= l.resumeAt) {
		l.resume()
	}
	l.rounds.EndTurn(l.Now, events)
}

// Due implements loop.Part.
func (l *Loop) Due() (time.Duration, bool) {
	if len(l.again) > 0 || len(l.askings) > 0 {
		return l.Now, true
	}
	at, due := l.wheel.Due()
	until := func(moment time.Duration, ok bool) {
		if ok && (!due || moment < at) {
			at, due = moment, true
		}
	}
	until(l.pacing.Due())
	until(l.rounds.Due())
	until(l.resumeAt, l.paused > 0)
	until(l.handshakesDue())
	until(l.muteDue())
	until(l.shunningDue())
	until(l.partAt, len(l.parting) > 0)
	return at, due
}

// Close implements loop.Part: it closes the listening sockets that are left, and the connections that nobody looks at.
func (l *Loop) Close() {
	l.vanish(len(l.mute))
	for _, p := range l.parting {
		sock.Close(p.fd)
	}
	for _, d := range l.listening {
		if d != nil {
			d.close()
		}
	}
}

// onEvent handles an event of a session's connection.
func (l *Loop) onEvent(slot, generation, bits uint32) {
	s := l.sessions.At(slot >> 1)
	if s.Generation() != generation || !s.InUse() {
		return
	}
	if slot&1 == 0 {
		l.onConn(s, &s.client, bits)
	} else {
		l.onConn(s, &s.backend, bits)
	}
}

// The slots of a session's two connections.
func clientSlot(s *Session) uint32  { return s.Index() << 1 }
func backendSlot(s *Session) uint32 { return s.Index()<<1 | 1 }

// later gives a session that has used up its turn another one, after all others of this batch.
func (l *Loop) later(s *Session) {
	if !s.inLine {
		s.inLine = true
		l.again = append(l.again, loop.RefTo(s))
	}
}

// takeTurns gives each waiting session one turn. Those that need more stand in line anew.
func (l *Loop) takeTurns() {
	line := l.again
	for _, r := range line {
		if s, alive := r.Get(); alive {
			s.inLine = false
			if s.phase == relaying { // and not on its way to another backend
				l.relay(s)
			}
		}
	}
	l.again = l.again[:copy(l.again, l.again[len(line):])]
}

// EndAll ends all sessions, for a reason that is neither side's. Detached ones are taken to be another process's.
func (l *Loop) EndAll(why tally.Reason) {
	l.sessions.All(func(s *Session) {
		if s.phase == detached {
			l.Gone(s.Ref())
			return
		}
		l.Cut(s, why)
	})
}

// Some calls visit for a slice of the sessions, as loop.Slab.Some does.
func (l *Loop) Some(from int, visit func(*Session)) int { return l.sessions.Some(from, visit) }

// A revocation is a backend whose sessions are to end, and their reason.
type revocation struct {
	backend *pool.Backend
	why     tally.Reason
}

// Revoke ends the sessions of a backend at the end of this batch of events: the pool wants its leases back.
func (l *Loop) Revoke(b *pool.Backend, why tally.Reason) {
	l.revoked = append(l.revoked, revocation{b, why})
}

// takeRevoked ends the sessions of revoked backends. A session that is only being connected goes to another backend.
// That is why it waits for the end of the batch, which may still have an event of the connection that is given up.
func (l *Loop) takeRevoked() {
	for _, r := range l.revoked {
		if !r.backend.Revoked() {
			continue // it is back in use already
		}
		l.sessions.All(func(s *Session) {
			switch {
			case s.phase == queued || s.lease.Backend() != r.backend:
			case s.phase == relaying, s.phase == detached:
				l.Cut(s, r.why)
			default:
				l.leaveBackend(s)
				s.lease.Release(pool.Neutral)
				l.connect(s)
			}
		})
	}
	l.revoked = l.revoked[:0]
}

// Leave closes the loop's sockets of a binding, once the clients that have connected already are served.
func (l *Loop) Leave(b *listen.Binding) {
	for i, d := range l.listening {
		if d != nil && d.binding == b {
			if !b.Elsewhere() && !l.suspended {
				l.lastClients(d)
			}
			l.unwatch(d)
			d.close()
			l.listening[i] = nil
		}
	}
}
