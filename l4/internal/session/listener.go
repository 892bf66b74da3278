package session

import (
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// Settings are those of a listener's sessions. A session keeps what it began with. A zero time is without a limit.
type Settings struct {
	Pool     *pool.Pool // unless a preface chooses another one; nil if clients without one are refused
	Prefaces []Opener   // in their order
	// EndsTLS is how many of Prefaces there are up to the one that ends TLS: a refused client is told why after them. 0
	// is for listeners without TLS, and if Farewell is for those that have not begun it.
	EndsTLS int
	// ForRefused is how many of Prefaces a client goes through, too, that is refused as soon as it has come, if Farewell
	// is to tell it why: it may want something for which there is always room.
	ForRefused int

	IdleTimeout      time.Duration // neither side sent anything for so long
	HalfCloseTimeout time.Duration // the same, once one side has closed its half and the other has taken all
	UserTimeout      time.Duration // a peer that acknowledges nothing for so long has vanished, see look; 0 = the kernel's
	KeepAlive        sock.KeepAlive
	Spoken           Spoken // by the clients
	Refuse           Refusal
	Farewell         Farewell // what refused clients are told; nil = nothing

	// Over is what becomes of clients that the gate refuses, and OverFarewell what they are told with gate.OverTell.
	Over         gate.Over
	OverFarewell Farewell
}

// farewell is what tells clients that they are refused for a reason; nil if nothing does. A denied client is not worth
// a place among those that are told.
func (s *Settings) farewell(why tally.Reason) Farewell {
	switch {
	case !why.AtGate():
		return s.Farewell
	case why == tally.Denied:
		return nil
	case s.Over == gate.OverRefuse:
		return s.Farewell
	case s.Over == gate.OverTell:
		return s.OverFarewell
	}
	return nil
}

// refusal is how clients are turned away that are refused for a reason, and told nothing.
func (s *Settings) refusal(why tally.Reason) Refusal {
	if !why.AtGate() {
		return s.Refuse
	}
	switch s.Over {
	case gate.OverReset, gate.OverDelay:
		return RefuseReset
	case gate.OverClose:
		return RefuseClose
	case gate.OverDrop:
		return refuseMute
	}
	return s.Refuse
}

// A Refusal is how a client that cannot be served is turned away.
type Refusal uint8

// The refusals.
const (
	RefuseReset Refusal = iota // with a RST: the client knows at once that this was no orderly end
	RefuseClose                // with a FIN, after reading what the client has sent so far
	refuseMute                 // without a word, see Loop.ignore
)

// A Listener is a listener of TCP as its sessions know it.
type Listener struct {
	*gate.Listener
	settings   atomic.Pointer[Settings]
	heldSince  []atomic.Int64           // of each loop's socket, see Loop.hold; a moment, and 0 if it is not held
	halfClosed []loop.AgeQueue[Session] // of each loop, used onLoop only: sessions that may have to make room
}

// NewListener makes a listener for so many loops. Set gives it its settings, before its first client.
func NewListener(ls *gate.Listener, loops int) *Listener {
	return &Listener{Listener: ls, halfClosed: make([]loop.AgeQueue[Session], loops),
		heldSince: make([]atomic.Int64, loops)}
}

// Set changes the settings, for sessions that begin from now on. It may be called from any goroutine, which does not
// change them afterwards.
func (ls *Listener) Set(to *Settings) { ls.settings.Store(to) }
