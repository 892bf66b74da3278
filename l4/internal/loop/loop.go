// Package loop is the kernel of the data plane: one event loop, with the things that all protocols on it need. It has
// timers, a mailbox, memory that is used again, buffers, pipes and a heartbeat, and it knows no protocol.
//
// A Loop is one goroutine with one epoll instance. It owns its sockets, timers and buffers outright, without a lock:
// "onLoop" in a comment means that goroutine only. Other goroutines reach it through Post, Offer and Ask.
//
// A package that puts a protocol on a loop does two things. For events it makes a Source, which has a handler, and
// registers its descriptors there. For work that comes around in every turn it attaches a Part.
package loop

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// maxBehind is how many full batches of events may come before timers: all events of as many sessions as descriptors
// allow, and still an end under a load that fills each batch.
const maxBehind = 64

// A Loop is one event loop. Its zero value is of no use, see New. Fields and methods are onLoop only, but for those
// that say otherwise.
type Loop struct {
	// set once, then read-only
	Index   int
	Started time.Time // the moment from which Now counts; for all loops of a server it is the same
	Scratch []byte    // of ScratchBytes; what a read brings, until the next one

	Now     time.Duration // since Started; read once in a turn
	Buffers Buffers
	Pipes   Pipes
	Freed   bool // a descriptor was closed; who waits for one sets it back

	poller    *sock.Poller
	sources   []Handler
	parts     []Part
	mailbox   mailbox
	mail      []message
	question  question
	heartbeat heartbeat
	lastID    uint64
	behind    int  // batches in a row that were full: more events wait
	stopped   bool // Run is to return
	discarded bool // Run never was and never will be called
}

// A Handler takes an event of a descriptor: its slot and generation, as it was registered with, and the sock.Poll bits
// that are set. An event may be of a descriptor that was closed earlier in the same batch: the generation tells.
type Handler func(slot, generation, bits uint32)

// A Part is what one protocol does in every turn of a loop, besides handling events. Parts have their share in the
// order in which they were attached.
type Part interface {
	// AfterEvents goes on where the events of the turn left something over.
	AfterEvents()

	// OnTime does what is due. It is left out while more events wait: after a stall, a timer must not judge a session
	// whose bytes are in the next batch.
	OnTime()

	// EndTurn is the last share of a turn, which has had so many events.
	EndTurn(events int)

	// Due returns when the next turn has to begin even if there is no event; false for never. A moment that is not
	// after Loop.Now means at once.
	Due() (at time.Duration, ok bool)

	// Close gives back what the part holds. It is the last call.
	Close()
}

// New makes a loop that does not run yet. firstID begins the ids of NextID.
func New(index int, started time.Time, firstID uint64) (*Loop, error) {
	poller, err := sock.NewPoller()
	if err != nil {
		return nil, fmt.Errorf("loop %d: %w", index, err)
	}
	l := &Loop{Index: index, Started: started, poller: poller, Scratch: make([]byte, ScratchBytes), lastID: firstID}
	mail := l.NewSource(l.openMail)
	if l.mailbox.wake, err = sock.NewWakeup(poller, mail.key(0)); err != nil {
		poller.Close()
		return nil, fmt.Errorf("loop %d: %w", index, err)
	}
	return l, nil
}

// Attach adds a part. It is called before Run, from the goroutine that has made the loop.
func (l *Loop) Attach(p Part) { l.parts = append(l.parts, p) }

// Run is the loop. It returns after Stop.
func (l *Loop) Run() {
	for !l.stopped {
		patience := l.patience()
		l.heartbeat.rest()
		n := l.poller.Wait(patience)
		l.Now = time.Since(l.Started)
		l.heartbeat.beat(l.Now)
		for i := range n {
			e := l.poller.Event(i)
			key, generation := e.Key()
			l.sources[uint32(key)>>slotBits](uint32(key)&slotMask, generation, e.Bits())
		}
		for _, p := range l.parts {
			p.AfterEvents()
		}
		if n < sock.EventBatch || l.behind >= maxBehind {
			l.behind = 0
			for _, p := range l.parts {
				p.OnTime()
			}
		} else {
			l.behind++
		}
		for _, p := range l.parts {
			p.EndTurn(n)
		}
	}
	l.close()
}

// patience is how long the next wait may take: not at all while more events wait, until a part is due, or without a
// limit.
func (l *Loop) patience() time.Duration {
	if l.behind > 0 {
		return 0
	}
	limit := time.Duration(-1)
	for _, p := range l.parts {
		if at, ok := p.Due(); ok {
			if wait := max(at-l.Now, 0); limit < 0 || wait < limit {
				limit = wait
			}
		}
	}
	return limit
}

// NextID returns a number that no session or flow of this loop has had.
func (l *Loop) NextID() uint64 {
	l.lastID++
	return l.lastID
}

// Stop makes Run return at the end of this turn.
func (l *Loop) Stop() { l.stopped = true }

// Discard gives back what a loop holds that never ran: it does what was posted, and closes. It is called from the
// goroutine that has made the loop.
func (l *Loop) Discard() {
	l.discarded = true
	l.openMail(0, 0, 0)
	l.close()
}

// Discarded reports whether Discard was called.
func (l *Loop) Discarded() bool { return l.discarded }

// close gives back what the loop holds. What was handed over and not yet taken is given up.
func (l *Loop) close() {
	for _, p := range l.parts {
		p.Close()
	}
	l.mailbox.close()
	for _, m := range l.mailbox.take(nil) {
		if m.handover != nil {
			m.handover.GiveUp()
		}
	}
	l.Pipes.close()
	l.poller.Close()
}

// Each has every loop do f, and returns a channel that is closed when all have. It may be called from any goroutine
// while no loop has ended.
func Each(loops []*Loop, f func(*Loop)) <-chan struct{} {
	done := make(chan struct{})
	var left atomic.Int64
	left.Store(int64(len(loops)))
	for _, l := range loops {
		l.Post(func() {
			f(l)
			if left.Add(-1) == 0 {
				close(done)
			}
		})
	}
	return done
}
