package l4

import (
	"net/netip"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// acceptBatch bounds what one turn of a door takes: a storm of connects must not starve the sessions there are.
const acceptBatch = 64

// A door's batch doubles after growAfter turns in a row that found it full, and falls back to one when the
// queue is found empty. At a steady pace a turn then takes one client and spares the accept that finds nobody.
const growAfter = 4

// A door is one loop's socket of a listener, used onLoop only. The kernel spreads clients over the doors of a
// listener by a hash of their addresses (SO_REUSEPORT), so that accepting needs no lock.
type door struct {
	fd       int
	key      int32 // of its events
	listener *listener
	batch    int // clients to take in a turn
	full     int // turns in a row that took so many
}

// openDoor takes over a listening socket.
func (l *loop) openDoor(fd int, ls *listener) {
	d := &door{fd: fd, key: doorKey - int32(len(l.doors)), listener: ls, batch: 1}
	l.doors = append(l.doors, d)
	if !l.paused {
		l.watch(d)
	}
}

// closingTurns bounds how long a door that closes goes on taking clients: longer than any queue, and not for ever
// in a flood.
const closingTurns = 1024

// closeDoor takes the clients that have connected already, which closing would reset, and closes the socket.
// Those there are no descriptors for are reset.
func (l *loop) closeDoor(ls *listener) {
	for i, d := range l.doors {
		if d == nil || d.listener != ls {
			continue
		}
		for turn := 0; turn < closingTurns && !l.paused && !l.discarded; turn++ {
			if !l.acceptFrom(d) {
				break
			}
		}
		sock.Close(d.fd)
		l.doors[i] = nil
	}
}

func (l *loop) watch(d *door) {
	if e := l.poller.AddListener(d.fd, d.key); e != 0 {
		// An epoll instance of our own, a socket of our own: only for want of kernel memory.
		l.server.log.Error().Str("listener", d.listener.name).AnErr("err", e).Msg("listening socket cannot be watched")
	}
}

// acceptFrom takes a batch of clients, or pauses accepting when there are no descriptors for them. It reports
// whether more clients may wait.
func (l *loop) acceptFrom(d *door) bool {
	for range d.batch {
		if l.paused {
			return true
		}
		if !l.server.room() {
			l.pause(d.listener, 0)
			return true
		}
		fd, client, e := sock.Accept(d.fd)
		switch {
		case e == 0:
			l.admit(fd, client, d.listener)
		case e == sock.Again:
			d.batch, d.full = 1, 0
			return false
		case sock.OutOfDescriptors(e):
			l.pause(d.listener, e)
			return true
		default:
			// accept4(2): errors already pending on the new connection, such as a reset, are reported
			// here and concern nobody else.
		}
	}
	if d.full++; d.full >= growAfter {
		d.batch, d.full = min(2*d.batch, acceptBatch), 0
	}
	return true
}

// admit decides whether a client is served, and by which loop.
func (l *loop) admit(fd int, client netip.AddrPort, ls *listener) {
	if !l.server.enter(ls) {
		ls.counters[l.index].ended[MaxSessions].Add(1)
		l.server.noteRefusal(ls)
		l.dismiss(fd, ls.spec.Load().Refuse)
		return
	}
	if to := l.server.lighter(l); to != l {
		to.load.Add(1)
		if to.mailbox.post(message{fd: fd, client: client, listener: ls}) {
			return
		}
		to.load.Add(-1)
	}
	l.load.Add(1)
	l.begin(fd, client, ls)
}

// dismiss closes the connection of a client that is not served.
func (l *loop) dismiss(fd int, how Refusal) {
	if how == RefuseReset {
		sock.Reset(fd)
		return
	}
	sock.Read(fd, l.scratch) // to close with bytes unread would send a reset
	sock.Close(fd)
}

// pause stops accepting; clients wait in the kernel's queue. e is the error that said so, zero when the
// process's own reckoning did.
func (l *loop) pause(ls *listener, e sock.Errno) {
	l.paused, l.freed = true, false
	l.resumeAt = l.now + acceptPause
	for _, d := range l.doors {
		if d != nil {
			l.poller.RemoveListener(d.fd)
		}
	}
	l.server.notePause(ls, e)
}

// resume ends a pause, if there is room; while the doors are out of the Poller, looking costs no event.
func (l *loop) resume() {
	if !l.server.room() {
		l.freed, l.resumeAt = false, l.now+acceptPause
		return
	}
	l.paused = false
	for _, d := range l.doors {
		if d != nil {
			l.watch(d)
		}
	}
}
