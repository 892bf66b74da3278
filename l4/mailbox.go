package l4

import (
	"net/netip"
	"sync"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// mailboxClients bounds the clients that wait in a mailbox. A loop that is so far behind gets no more:
// whoever accepted them keeps them.
const mailboxClients = 1024

// A message is what another goroutine wants of a loop: either a client it is to serve, or something to do.
type message struct {
	do func() // onLoop; nil for a client

	fd       int
	client   netip.AddrPort
	listener *listener
}

// A mailbox is how other goroutines reach a loop. post may be called from any goroutine; take onLoop only.
type mailbox struct {
	wake sock.Wakeup

	// mu guards the fields below
	mu      sync.Mutex
	queue   []message
	clients int
	woken   bool // a wake-up is under way; one is enough for all that is queued by then
	closed  bool
}

// post queues m and wakes the loop. It reports false, and queues nothing, when the loop is gone or m is
// a client and there are mailboxClients already; the caller then still owns the client's descriptor.
func (b *mailbox) post(m message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || m.do == nil && b.clients >= mailboxClients {
		return false
	}
	b.queue = append(b.queue, m)
	if m.do == nil {
		b.clients++
	}
	if !b.woken {
		b.woken = true
		b.wake.Signal() // under the lock: after close the descriptor may be someone else's
	}
	return true
}

// take returns what is queued, and leaves spare as the next queue.
func (b *mailbox) take(spare []message) []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := b.queue
	b.queue, b.clients, b.woken = spare[:0], 0, false
	return queue
}

// close makes every later post fail.
func (b *mailbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wake.Close()
}
