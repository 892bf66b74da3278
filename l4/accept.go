package l4

import (
	"net/netip"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// acceptBatch is how many clients one door's turn takes: a storm of connects must not starve the sessions
// there are.
const acceptBatch = 64

// A door is one loop's socket of a listener, used onLoop only. The kernel spreads clients over the doors of a
// listener by a hash of their addresses (SO_REUSEPORT), so that accepting needs no lock.
type door struct {
	fd       int
	listener *listener
	readable bool // accept has not said yet that nobody waits
}

// openDoor takes over a listening socket.
func (l *loop) openDoor(fd int, ls *listener) {
	d := &door{fd: fd, listener: ls}
	l.doors = append(l.doors, d)
	if e := l.poller.AddReader(fd, doorKey-int32(len(l.doors)-1)); e != 0 {
		// An epoll instance of our own, a socket of our own: only for want of kernel memory.
		l.server.log.Error().Str("listener", ls.name).Err(e).Msg("listening socket cannot be watched")
	}
}

// closeDoor takes the clients that have connected already, which closing would reset, and closes the socket.
func (l *loop) closeDoor(ls *listener) {
	for i, d := range l.doors {
		if d == nil || d.listener != ls {
			continue
		}
		for d.readable = true; d.readable && !l.paused; {
			l.acceptFrom(d)
		}
		sock.Close(d.fd)
		l.doors[i] = nil
	}
}

// acceptFrom takes a batch of clients, or pauses accepting when there are no descriptors for them.
func (l *loop) acceptFrom(d *door) {
	for range acceptBatch {
		if l.paused {
			return
		}
		if !l.server.room() {
			l.pause(d.listener, 0)
			return
		}
		fd, client, e := sock.Accept(d.fd)
		switch {
		case e == 0:
			l.admit(fd, client, d.listener)
		case e == sock.Again:
			d.readable = false
			return
		case sock.OutOfDescriptors(e):
			l.pause(d.listener, e)
			return
		default:
			// accept4(2): errors already pending on the new connection, such as a reset, are reported
			// here and concern nobody else.
		}
	}
	l.more = true
}

// admit decides whether a client is served, and by which loop.
func (l *loop) admit(fd int, client netip.AddrPort, ls *listener) {
	if !l.server.enter(ls) {
		ls.counters[l.index].ended[MaxSessions].Add(1)
		if ls.spec.Load().Refuse == RefuseReset {
			sock.Reset(fd)
		} else {
			sock.Close(fd)
		}
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

// pause stops accepting; clients wait in the kernel's queue. e is the error that said so, zero when the
// process's own reckoning did.
func (l *loop) pause(ls *listener, e sock.Errno) {
	l.paused = true
	l.freed, l.more = false, false
	l.resumeAt = l.now + acceptPause
	l.server.notePause(ls, e)
}

// acceptAgain lets the doors that still have clients take another batch, once a pause is over.
func (l *loop) acceptAgain() {
	if l.paused && !l.freed && l.now < l.resumeAt {
		return
	}
	l.paused, l.freed, l.more = false, false, false
	for _, d := range l.doors {
		if d != nil && d.readable {
			l.acceptFrom(d)
		}
	}
}
