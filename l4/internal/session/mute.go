package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A client that is refused without a word finds its connection open, and hears nothing: whatever closes the connection
// would tell it. So the connection is kept for a while, as a descriptor that nobody looks at, and what the client sends
// fills the kernel's buffer. There are only so many of these (gate.Listener.AdmitMute). Connections beyond that, and old
// ones, vanish (see sock.Vanish).

// muteFor is how long a connection is kept: longer than most clients wait for an answer.
const muteFor = 30 * time.Second

// A muted is a connection that is kept.
type muted struct {
	fd       int
	listener *gate.Listener
	until    time.Duration
}

// ignore leaves a client that is refused without a word.
func (l *Loop) ignore(fd int, ls *gate.Listener) {
	if !ls.AdmitMute() {
		sock.Vanish(fd)
		return
	}
	l.mute = append(l.mute, muted{fd, ls, l.Now + muteFor})
}

// endMute ends the connections whose time has come.
func (l *Loop) endMute() {
	over := 0
	for over < len(l.mute) && l.mute[over].until <= l.Now {
		over++
	}
	l.vanish(over)
}

// vanish ends the oldest n connections of clients that are refused without a word.
func (l *Loop) vanish(n int) {
	for _, m := range l.mute[:n] {
		sock.Vanish(m.fd)
		m.listener.LeaveMute()
	}
	l.mute = l.mute[:copy(l.mute, l.mute[n:])]
	l.Freed = l.Freed || n > 0
}

// muteDue is when endMute has something to do next; false for never.
func (l *Loop) muteDue() (time.Duration, bool) {
	if len(l.mute) == 0 {
		return 0, false
	}
	return l.mute[0].until, true
}
