package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
)

// A listener whose clients wait in the kernel's queue while it is over a limit holds its listening sockets: a held
// socket accepts nobody. Each loop has a socket of its own with a queue of its own, and the place of a session that ends
// on one loop may be for a client of another one. So whoever ends a session wakes the loops that hold sockets, and of
// several the one goes first whose socket is held for the longest.

// holdFirst is how long a loop lets another one go first. That one may find that nobody waits there any more.
const holdFirst = 5 * time.Millisecond

// heldRecheck is how long a held socket waits at most until it asks again: a reload may have changed the limits.
const heldRecheck = 250 * time.Millisecond

// hold stops accepting the clients of a socket until there is a place for them. again is when to ask for one.
func (l *Loop) hold(d *socket, again time.Duration, why gate.Reason) {
	d.listener.NoteDelay(why)
	l.unwatch(d)
	d.paused, d.held = true, true
	l.paused++
	d.listener.Hold(true)
	d.listener.heldSince[l.Index].Store(int64(max(l.Now, 1)))
	l.resumeBy(min(again, l.Now+heldRecheck))
}

// resumeBy says when to look again at sockets that are paused.
func (l *Loop) resumeBy(at time.Duration) {
	if l.paused == 1 || at < l.resumeAt {
		l.resumeAt = at
	}
}

// unpause ends the pause of a socket.
func (l *Loop) unpause(d *socket) {
	d.paused = false
	l.paused--
	if d.held {
		d.held = false
		d.listener.Hold(false)
		d.listener.heldSince[l.Index].Store(l.stillHeld(d.listener))
	}
}

// stillHeld is since when the loop holds a socket of a listener; 0 if it holds none.
func (l *Loop) stillHeld(ls *Listener) int64 {
	for _, d := range l.listening {
		if d != nil && d.held && d.listener == ls {
			return int64(max(l.Now, 1))
		}
	}
	return 0
}

// resumeHeld lets a held socket accept if there is a place, unless that is another loop's.
func (l *Loop) resumeHeld(d *socket) {
	if !d.listener.Delays() { // any more: its clients are served or refused
		l.unpause(d)
		l.watch(d)
		return
	}
	again, why := d.listener.Claim(l.Now)
	if why != gate.Admitted {
		l.resumeBy(min(again, l.Now+heldRecheck))
		return
	}
	d.listener.Unclaim()
	mine := d.listener.heldSince[l.Index].Load()
	for i := range d.listener.heldSince {
		if since := d.listener.heldSince[i].Load(); since != 0 && since < mine {
			l.resumeBy(l.Now + holdFirst)
			return
		}
	}
	l.unpause(d)
	l.watch(d)
}

// wakeHeld has the other loops look whether there is a place for the clients of their sockets.
func (l *Loop) wakeHeld(ls *Listener) {
	for _, other := range l.peers {
		if other != l && ls.heldSince[other.Index].Load() != 0 {
			other.Post(func() { other.Freed = true })
		}
	}
}
