package gate

import (
	"net/netip"
	"time"
)

// A Direction is which way bytes go.
type Direction uint8

// The directions.
const (
	In  Direction = iota // from the client
	Out                  // to the client
)

// ReserveBytes takes n bytes of a client's bandwidth, and returns how long it takes until they may be moved: 0 is now.
// What is reserved and not moved is given back with ReturnBytes. Those of one client who wait get their turns in the
// order in which they asked. It may be called from any goroutine; without Limits.ClientBandwidth it is always 0.
func (ls *Listener) ReserveBytes(client netip.Addr, d Direction, n int, now time.Duration) (wait time.Duration) {
	return 0
}

// ReturnBytes gives back n bytes that were reserved.
func (ls *Listener) ReturnBytes(client netip.Addr, d Direction, n int) {}

// NoteBytes notes what a client's sessions and flows have moved, for Clients. It is called now and then, not for each
// move.
func (ls *Listener) NoteBytes(client netip.Addr, in, out uint64) {}

// Bandwidth is what the listener's limits allow now, in bytes a second each direction: one session or flow, and all of
// one client; 0 is without a limit. It may be called from any goroutine.
func (ls *Listener) Bandwidth() (session, client int64) {
	l := &ls.settings().Limits
	if l.DryRun {
		return 0, 0
	}
	return l.SessionBandwidth, l.ClientBandwidth
}

// TracksClients reports whether the listener knows its clients, so that NoteBytes is of use.
func (ls *Listener) TracksClients() bool { return false }
