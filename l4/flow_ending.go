package l4

import (
	"sync"
	"sync/atomic"
)

// An ending is how the sockets of a UDP listener that was left are closed: all of them, when the last flow of any is over. If one
// went before the others, the kernel would spread the clients anew over those that are left, and flows would not find theirs.
//
// When each loop has been told that no client is to be admitted any more, no flow can begin, and so the last one's end is final.
type ending struct {
	gone chan struct{} // closed with the last door

	told  atomic.Int32 // loops that still admit clients
	flows atomic.Int64
	doors atomic.Int32 // that are open
	over  atomic.Bool  // the doors are being closed

	closeGone sync.Once // of loops that never ran, each closes the only door that was open then
}

func (e *ending) begin(loops int) {
	e.gone = make(chan struct{})
	e.told.Store(int32(loops))
}

// doorClosed counts a door that was closed.
func (e *ending) doorClosed() {
	if e.doors.Add(-1) == 0 {
		e.closeGone.Do(func() { close(e.gone) })
	}
}

// closeFlowDoors has the doors of a binding admit no new client.
func (l *loop) closeFlowDoors(b *binding) {
	for _, d := range l.flows.doors {
		if d != nil && d.binding == b {
			d.draining = true
		}
	}
	if b.ending.told.Add(-1) == 0 {
		l.server.endIfEmpty(b)
	}
}

// endIfEmpty has every loop close its doors of a binding, if that is left by all and has no flow. It may be called from any goroutine.
func (s *Server) endIfEmpty(b *binding) {
	e := &b.ending
	if e.told.Load() > 0 || e.flows.Load() > 0 || e.over.Swap(true) {
		return
	}
	for _, l := range s.loops {
		l.mailbox.post(message{do: func() {
			for _, d := range l.flows.doors {
				if d != nil && d.binding == b {
					l.closeFlowDoor(d)
				}
			}
		}})
	}
}

// closed tells whether the binding's doors are closed; b is of UDP.
func (b *binding) closed() bool {
	select {
	case <-b.ending.gone:
		return true
	default:
		return false
	}
}

// awaitEmpty waits until the doors of bindings are closed that have no flow, after the loops were told to close them.
func awaitEmpty(left []*binding) {
	for _, b := range left {
		if b.protocol == UDP && b.ending.flows.Load() == 0 {
			<-b.ending.gone
		}
	}
}
