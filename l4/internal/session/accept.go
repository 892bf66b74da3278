package session

import (
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// acceptPause is how often a loop that has paused accepting looks whether descriptors are free again, besides whenever
// one of its own sessions ends.
const acceptPause = 50 * time.Millisecond

// acceptBatch bounds what one turn of a socket takes: a storm of connects must not starve the sessions there are.
const acceptBatch = 64

// A socket's batch doubles after growAfter turns in a row that found it full, and falls back to one when the queue is
// found empty. At a steady pace a turn then takes one client and spares the accept that finds nobody.
const growAfter = 4

// A socket is one loop's listening socket of a listener, used onLoop only. The kernel spreads clients over the sockets
// of a listener by a hash of their addresses (SO_REUSEPORT), so that accepting needs no lock. Inherited sockets may be
// fewer than loops. Then several loops have the same one, and whichever is awake takes the next client.
type socket struct {
	fd       int
	slot     uint32
	listener *Listener
	binding  *listen.Binding
	unix     bool      // clients have no address, but credentials
	early    bool      // clients may wait that connected before the socket had its options, and lack them
	paused   bool      // no accept: there is no descriptor, or no place, for its clients
	held     bool      // and that is since the listener or the process is over a limit
	shunning *shunning // nil for most
	batch    int       // clients to take in a turn
	full     int       // turns in a row that took so many
}

func (d *socket) close() {
	if d.shuns() { // somebody else may have the socket, too
		_ = sock.DropSYNs(d.fd, nil)
	}
	sock.Close(d.fd)
}

// Open takes over a listening socket of a binding. The slot of one that was closed is used again: an event that is
// still under way to it then makes the new one look for clients in vain, once.
func (l *Loop) Open(fd int, b *listen.Binding, ls *Listener) {
	i := slices.Index(l.listening, nil)
	if i < 0 {
		i = len(l.listening)
		l.listening = append(l.listening, nil)
	}
	d := &socket{fd: fd, slot: uint32(i), listener: ls, binding: b, unix: b.IsUnix(), early: len(b.Inherited) > 0,
		batch: 1}
	l.listening[i] = d
	l.watch(d)
}

// closingTurns bounds how long a socket that closes goes on taking clients: longer than any queue, and not for ever in
// a flood.
const closingTurns = 1024

// lastClients takes the clients of a socket that have connected already, which closing it would reset. Those there are
// no descriptors for are left to that.
func (l *Loop) lastClients(d *socket) {
	for turn := 0; turn < closingTurns && !d.paused && !l.Discarded(); turn++ {
		if !l.acceptFrom(d) {
			return
		}
	}
}

// GiveBack closes sockets that were opened for a change that does not come. The clients that found them are served by
// the listener they were on their way to.
func (l *Loop) GiveBack(b *listen.Binding, to *Listener) {
	for _, fd := range b.Sockets[l.Index] {
		d := &socket{fd: fd, listener: to, binding: b, batch: 1}
		l.lastClients(d)
		l.unwatch(d)
		d.close()
	}
}

func (l *Loop) watch(d *socket) {
	if l.suspended {
		return // until Admit
	}
	if e := l.sockets.AddListener(d.fd, d.slot, d.binding.Shared); e != 0 {
		// An epoll instance of our own, a socket of our own: only for want of kernel memory.
		l.access.Log.Error().Str("listener", d.listener.Name).AnErr("err", e).
			Str("event", "socket_not_watched").Msg("listening socket cannot be watched")
	}
}

// onClients handles the event of a listening socket.
func (l *Loop) onClients(slot, _, _ uint32) {
	if d := l.listening[slot]; d != nil && !l.suspended {
		l.acceptFrom(d)
	}
}

// acceptFrom takes a batch of clients, or pauses accepting when there are no descriptors for them. It reports whether
// more clients may wait.
func (l *Loop) acceptFrom(d *socket) bool {
	for range d.batch {
		if d.paused {
			return true
		}
		if !d.listener.Room() {
			l.pause(d, 0)
			return true
		}
		claimed := d.listener.Delays()
		if claimed {
			if again, why := d.listener.Claim(l.Now); why != gate.Admitted {
				l.hold(d, again, why)
				return true
			}
		}
		fd, client, e := sock.Accept(d.fd)
		if e != 0 && claimed {
			d.listener.Unclaim()
		}
		switch {
		case e == 0:
			if d.early {
				settings := d.listener.settings.Load()
				sock.SetNoDelay(fd)
				_ = sock.SetLiveness(fd, settings.KeepAlive, settings.UserTimeout) // without, the kernel's defaults hold
			}
			a := arrival{fd: fd, client: gate.Client{Addr: client}, listener: d.listener, claimed: claimed}
			if d.unix {
				a.unix = true
				a.process, _ = sock.PeerCredentials(fd) // without, the client is unknown
			}
			if l.admit(&a).OfClient() && d.listener.settings.Load().Over == gate.OverDrop {
				l.suspect(d, client.Addr())
			}
		case e == sock.Again:
			d.batch, d.full, d.early = 1, 0, false
			return false
		case sock.OutOfDescriptors(e):
			l.pause(d, e)
			return true
		default:
			// accept4(2): errors already pending on the new connection, such as a reset, are reported here and concern
			// nobody else.
		}
	}
	if d.full++; d.full >= growAfter {
		d.batch, d.full = min(2*d.batch, acceptBatch), 0
	}
	return true
}

// An arrival is a client that was accepted, on its way to the loop that serves it.
type arrival struct {
	fd       int
	client   gate.Client
	unix     bool             // the client has come by a Unix socket, and has no address
	process  sock.Credentials // and this is who it is
	claimed  bool             // the gate has a place for it already
	place    gate.Place       // at its client
	looped   bool             // the client has come by this listener before: its session ends at once
	listener *Listener
	to       *Loop
}

// TakeOver implements loop.Handover.
func (a *arrival) TakeOver() { a.to.begin(a) }

// GiveUp implements loop.Handover.
func (a *arrival) GiveUp() { sock.Close(a.fd) }

// admit decides whether a client is served, and by which loop. It returns what the gate said.
func (l *Loop) admit(a *arrival) (why gate.Reason) {
	ls := a.listener
	why = ls.AdmitSession(&a.client, &a.place, a.claimed, l.Now)
	// A Unix socket says nothing about where a session of ours has come from. So none may lead back to this process.
	a.looped = why == gate.Loop || a.unix && !l.ownClients && why == gate.Admitted && a.process.IsOwn()
	if why != gate.Admitted && !a.looped {
		ls.Counters[l.Index].Ended[why.Ends()].Add(1)
		settings := ls.settings.Load()
		if settings.farewell(why.Ends()) == nil || !l.turnAway(a, why.Ends()) {
			l.dismiss(a.fd, ls.Listener, settings.refusal(why.Ends()))
		}
		return why
	}
	ls.Counters[l.Index].Accepted.Add(1)
	if to := l.lighter(); to != l {
		handed := *a
		handed.to = to
		to.load.Add(1)
		if to.Offer(&handed) {
			return why
		}
		to.load.Add(-1)
	}
	l.load.Add(1)
	l.begin(a)
	return why
}

// lighter returns the loop that is to serve a client this one has accepted: itself, unless it holds clearly more than
// the one with the least. Eight long-lived Postgres sessions must not all sit on one CPU. Yet handing over costs a
// wake-up, and among many short sessions evens nothing out: with a quarter of the least as the slack, 24 of 100
// sessions were handed over at 32 at a time, and each cost 1 % more.
func (l *Loop) lighter() *Loop {
	mine := l.load.Load()
	to, least := l, mine
	for _, other := range l.peers {
		if n := other.load.Load(); n < least {
			to, least = other, n
		}
	}
	if mine-least <= 2+(mine+least)/4 {
		return l
	}
	return to
}

// dismiss closes the connection of a client that is not served.
func (l *Loop) dismiss(fd int, ls *gate.Listener, how Refusal) {
	switch how {
	case RefuseReset:
		sock.Reset(fd)
		return
	case refuseMute:
		l.ignore(fd, ls)
		return
	}
	sock.Read(fd, l.Scratch) // to close with bytes unread would send a reset
	sock.Close(fd)
}

// pause stops accepting the clients of a socket, who wait in the kernel's queue. Other listeners' sockets go on while
// there is room for them. e is the error that said so, zero when the process's own reckoning did.
func (l *Loop) pause(d *socket, e sock.Errno) {
	if !d.paused {
		l.unwatch(d)
		d.paused = true
		l.paused++
	}
	l.Freed = false
	l.resumeBy(l.Now + acceptPause)
	d.listener.NotePause(e)
	l.endHalfClosed(d.listener)
}

// resume ends the pauses of sockets for whose clients there is room. While they are not watched, looking costs no
// event.
func (l *Loop) resume() {
	l.Freed, l.resumeAt = false, l.Now+acceptPause
	for _, d := range l.listening {
		switch {
		case d == nil || !d.paused:
		case d.held:
			l.resumeHeld(d)
		case d.listener.Room():
			l.unpause(d)
			l.watch(d)
		default:
			l.endHalfClosed(d.listener)
		}
	}
}

// unwatch takes a socket out of the event loop, if it is in.
func (l *Loop) unwatch(d *socket) {
	if d.paused {
		l.unpause(d)
		return
	}
	l.sockets.Remove(d.fd)
}
