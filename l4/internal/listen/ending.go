package listen

import (
	"sync"
	"sync/atomic"
)

// An Ending says how the sockets of a UDP listener that was left are closed: all of them, when the last flow of any is
// over. If one went before the others, the kernel would spread the clients anew over those that are left, and flows
// would not find theirs. Its methods may be called from any goroutine.
//
// When every loop has been told to admit no more clients, no flow can begin, and so the last one's end is final.
type Ending struct {
	gone  chan struct{} // closed with the last socket
	close func()        // makes every loop close its sockets

	admitting atomic.Int32 // loops that still admit clients
	held      atomic.Int64 // by flows and questions
	open      atomic.Int32 // sockets
	over      atomic.Bool  // the sockets are being closed

	closeGone sync.Once // of loops that never ran, each closes the only socket that was open then
}

// prepare makes the Ending that of sockets of so many loops. onEmpty is called once, see Open.
func (e *Ending) prepare(loops int, onEmpty func()) {
	e.gone, e.close = make(chan struct{}), onEmpty
	e.admitting.Store(int32(loops))
}

// Hold keeps the sockets open for a flow, or for a question that waits for its answer, until Release.
func (e *Ending) Hold() { e.held.Add(1) }

// Release ends a Hold.
func (e *Ending) Release() {
	if e.held.Add(-1) == 0 {
		e.closeIfEmpty()
	}
}

// Held reports whether anybody holds the sockets.
func (e *Ending) Held() bool { return e.held.Load() > 0 }

// Opened counts a socket that a loop has taken over.
func (e *Ending) Opened() { e.open.Add(1) }

// Closed counts a socket that a loop has closed.
func (e *Ending) Closed() {
	if e.open.Add(-1) == 0 {
		e.closeGone.Do(func() { close(e.gone) })
	}
}

// Left says that one more loop admits no clients any more.
func (e *Ending) Left() {
	e.admitting.Add(-1)
	e.closeIfEmpty()
}

// closeIfEmpty closes the sockets if all loops have left them and nobody holds them.
func (e *Ending) closeIfEmpty() {
	if e.admitting.Load() > 0 || e.held.Load() > 0 || e.over.Swap(true) {
		return
	}
	e.close()
}

// Gone returns a channel that is closed when all sockets are.
func (e *Ending) Gone() <-chan struct{} { return e.gone }

// IsGone reports whether all sockets are closed.
func (e *Ending) IsGone() bool {
	select {
	case <-e.gone:
		return true
	default:
		return false
	}
}
