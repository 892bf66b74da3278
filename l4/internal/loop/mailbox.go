package loop

import (
	"sync"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// maxHandovers bounds the things that wait in a mailbox to be taken over. A loop that is so far behind gets no more:
// whoever has them keeps them.
const maxHandovers = 1024

// A Handover is a thing that a loop takes over from another one.
type Handover interface {
	TakeOver() // onLoop
	GiveUp()   // called instead, from any goroutine, if the loop ends before
}

// A message is what another goroutine wants of a loop: one of both.
type message struct {
	do       func() // onLoop
	handover Handover
}

// A mailbox is how other goroutines reach a loop. post may be called from any goroutine; take onLoop only.
type mailbox struct {
	wake sock.Wakeup

	// mu guards the fields below
	mu        sync.Mutex
	queue     []message
	handovers int
	woken     bool // a wake-up is under way; one is enough for all that is queued by then
	closed    bool
}

// Post has the loop call f in its next turn. It reports false, and f is never called, when the loop has ended. It may
// be called from any goroutine, and never blocks.
func (l *Loop) Post(f func()) bool { return l.mailbox.post(message{do: f}) }

// Offer hands h over. It reports false, and the caller still owns h, when the loop has ended or too many handovers
// wait already. It may be called from any goroutine, and never blocks.
func (l *Loop) Offer(h Handover) bool { return l.mailbox.post(message{handover: h}) }

func (b *mailbox) post(m message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || m.handover != nil && b.handovers >= maxHandovers {
		return false
	}
	b.queue = append(b.queue, m)
	if m.handover != nil {
		b.handovers++
	}
	if !b.woken {
		b.woken = true
		b.wake.Signal() // under the lock: after close the descriptor may be someone else's
	}
	return true
}

// take returns the queue, and makes the memory of spare the next one.
func (b *mailbox) take(spare []message) []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := b.queue
	b.queue, b.handovers, b.woken = spare[:0], 0, false
	return queue
}

// close makes every later post fail.
func (b *mailbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wake.Close()
}

// openMail handles the mailbox's event: it does what was posted.
func (l *Loop) openMail(_, _, _ uint32) {
	l.mail = l.mailbox.take(l.mail)
	for i, m := range l.mail {
		l.mail[i] = message{}
		if m.do != nil {
			m.do()
		} else {
			m.handover.TakeOver()
		}
	}
}
