package l4

import (
	"net/netip"
	"slices"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// acceptBatch bounds what one turn of a door takes: a storm of connects must not starve the sessions there are.
const acceptBatch = 64

// A door's batch doubles after growAfter turns in a row that found it full, and falls back to one when the
// queue is found empty. At a steady pace a turn then takes one client and spares the accept that finds nobody.
const growAfter = 4

// A door is one loop's socket of a listener, used onLoop only. The kernel spreads clients over the doors of a
// listener by a hash of their addresses (SO_REUSEPORT), so that accepting needs no lock. Inherited sockets may be fewer
// than loops; then several doors are one socket, and whichever loop is awake takes the next client.
type door struct {
	fd       int
	key      int32 // of its events
	listener *listener
	binding  *binding
	early    bool // clients may wait that connected before the socket had its options, and lack them
	paused   bool // no accept: there is no descriptor for its clients
	batch    int  // clients to take in a turn
	full     int  // turns in a row that took so many
}

// openDoor takes over a listening socket. The place of a door that was closed is used again: an event that is still under way to
// it then makes the new one look for clients in vain, once.
func (l *loop) openDoor(fd int, b *binding, ls *listener) {
	if b.protocol == UDP {
		l.openFlowDoor(fd, b, ls)
		return
	}
	i := slices.Index(l.doors, nil)
	if i < 0 {
		i = len(l.doors)
		l.doors = append(l.doors, nil)
	}
	d := &door{fd: fd, key: doorKey - int32(i), listener: ls, binding: b, early: len(b.inherited) > 0, batch: 1}
	l.doors[i] = d
	l.watch(d)
}

// closingTurns bounds how long a door that closes goes on taking clients: longer than any queue, and not for ever
// in a flood.
const closingTurns = 1024

// closeDoors closes the loop's doors of a binding; those of flows when the last flow is over.
func (l *loop) closeDoors(b *binding) {
	if b.protocol == UDP {
		l.closeFlowDoors(b)
		return
	}
	for i, d := range l.doors {
		if d != nil && d.binding == b {
			l.lastClients(d)
			l.unwatch(d)
			sock.Close(d.fd)
			l.doors[i] = nil
		}
	}
}

// lastClients takes the clients of a door that have connected already, which closing it would reset. Those there are no
// descriptors for are left to that.
func (l *loop) lastClients(d *door) {
	for turn := 0; turn < closingTurns && !d.paused && !l.discarded; turn++ {
		if !l.acceptFrom(d) {
			return
		}
	}
}

// shutOut closes sockets that were opened for a change that does not come, and gives the clients that found them to the listener
// they were on their way to.
func (l *loop) shutOut(b *binding, heir *listener) {
	for _, fd := range b.sockets[l.index] {
		if b.protocol == UDP {
			l.lastDatagrams(fd, heir)
		} else {
			d := &door{fd: fd, listener: heir, batch: 1}
			l.lastClients(d)
			l.unwatch(d)
		}
		sock.Close(fd)
	}
}

func (l *loop) watch(d *door) {
	add := l.poller.AddListener
	if d.binding.shared {
		add = l.poller.AddSharedListener
	}
	if e := add(d.fd, d.key); e != 0 {
		// An epoll instance of our own, a socket of our own: only for want of kernel memory.
		l.server.log.Error().Str("listener", d.listener.name).AnErr("err", e).Msg("listening socket cannot be watched")
	}
}

// acceptFrom takes a batch of clients, or pauses accepting when there are no descriptors for them. It reports
// whether more clients may wait.
func (l *loop) acceptFrom(d *door) bool {
	for range d.batch {
		if d.paused {
			return true
		}
		if !l.server.room(d.listener) {
			l.pause(d, 0)
			return true
		}
		fd, client, e := sock.Accept(d.fd)
		switch {
		case e == 0:
			if d.early {
				settings := d.listener.spec.Load()
				sock.SetNoDelay(fd)
				_ = sock.SetLiveness(fd, settings.KeepAlive, settings.UserTimeout) // without, the kernel's defaults hold
			}
			l.admit(fd, client, d.listener)
		case e == sock.Again:
			d.batch, d.full, d.early = 1, 0, false
			return false
		case sock.OutOfDescriptors(e):
			l.pause(d, e)
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
	if why := l.server.enter(ls); why != reasonNone {
		ls.counters[l.index].ended[why].Add(1)
		l.server.noteRefusal(ls)
		l.dismiss(fd, ls.spec.Load().Refuse)
		return
	}
	ls.counters[l.index].accepted.Add(1)
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

// pause stops accepting the clients of a door, who wait in the kernel's queue; the doors of other listeners go on while
// there is room for them. e is the error that said so, zero when the process's own reckoning did.
func (l *loop) pause(d *door, e sock.Errno) {
	if !d.paused {
		l.unwatch(d)
		d.paused = true
		l.paused++
	}
	l.freed, l.resumeAt = false, l.now+acceptPause
	l.server.notePause(d.listener, e)
	l.endHalfClosed(d.listener)
}

// resume ends the pauses of doors for whose clients there is room; while they are out of the Poller, looking costs no
// event.
func (l *loop) resume() {
	l.freed, l.resumeAt = false, l.now+acceptPause
	for _, d := range l.doors {
		switch {
		case d == nil || !d.paused:
		case l.server.room(d.listener):
			d.paused = false
			l.paused--
			l.watch(d)
		default:
			l.endHalfClosed(d.listener)
		}
	}
}

// unwatch takes a door out of the Poller, if it is in.
func (l *loop) unwatch(d *door) {
	if d.paused {
		d.paused = false
		l.paused--
		return
	}
	l.poller.RemoveListener(d.fd)
}
