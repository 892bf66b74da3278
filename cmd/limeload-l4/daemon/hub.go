package daemon

import (
	"slices"
	"sync"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// A hub passes events on to all readers. Its zero value is ready; its methods may be called from any goroutine.
type hub struct {
	mu sync.Mutex
	// mu guards the fields below
	readers []*reader
	closed  bool
}

// A reader is one subscription.
type reader struct {
	events chan admin.Event // sent to and closed only with hub.mu held
	lost   uint64
}

// readerBuffer is how many events wait for a reader: enough for all backends of a large pool to change at once.
const readerBuffer = 1024

// subscribe returns the events from now on. The channel is closed by stop and by close.
func (h *hub) subscribe() (events <-chan admin.Event, stop func()) {
	r := &reader{events: make(chan admin.Event, readerBuffer)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(r.events)
		return r.events, func() {}
	}
	h.readers = append(h.readers, r)
	return r.events, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if i := slices.Index(h.readers, r); i >= 0 {
			h.readers = slices.Delete(h.readers, i, i+1)
			close(r.events)
		}
	}
}

// publish sends an event to all readers that have room for it. The next event that another reader gets says how many it
// lost.
func (h *hub) publish(e admin.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.readers {
		e.Lost = r.lost
		select {
		case r.events <- e:
			r.lost = 0
		default:
			r.lost++
		}
	}
}

// close ends the streams of all readers. Later subscriptions get no events.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.readers {
		close(r.events)
	}
	h.readers, h.closed = nil, true
}
