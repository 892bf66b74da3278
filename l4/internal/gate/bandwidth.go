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

// bandwidthCredit is how much of its bandwidth a client that was quiet may use at once, as the time it stands for.
const bandwidthCredit = 50 * time.Millisecond

// ReserveBytes takes n bytes of a client's bandwidth, and returns how long it takes until they may be moved: 0 is now.
// What is reserved and not moved is given back with ReturnBytes. Those of one client who wait get their turns in the
// order in which they asked. It may be called from any goroutine; without Limits.ClientBandwidth it is always 0.
func (ls *Listener) ReserveBytes(client netip.Addr, d Direction, n int, now time.Duration) (wait time.Duration) {
	t, bandwidth := ls.clients.Load(), ls.settings().Limits.ClientBandwidth
	if t == nil || bandwidth == 0 || !client.IsValid() {
		return 0
	}
	id := t.mask.id(client.As16())
	sh, hash := t.place(&id)
	defer sh.mu.Unlock()
	c := t.know(sh, &id, hash, now)
	if c.seen == 0 { // it was forgotten
		c.seen = max(now, 1)
	}
	begins := max(c.pace[d], now-bandwidthCredit)
	c.pace[d] = begins + TimeOf(bandwidth, n)
	return max(0, begins-now)
}

// ReturnBytes gives back n bytes that were reserved.
func (ls *Listener) ReturnBytes(client netip.Addr, d Direction, n int) {
	t, bandwidth := ls.clients.Load(), ls.settings().Limits.ClientBandwidth
	if t == nil || bandwidth == 0 || !client.IsValid() {
		return
	}
	id := t.mask.id(client.As16())
	sh, hash := t.place(&id)
	if c := sh.find(&id, hash); c != nil {
		c.pace[d] -= TimeOf(bandwidth, n)
	}
	sh.mu.Unlock()
}

// TracksClients reports whether the listener knows its clients, so that NoteBytes has a meaning.
func (ls *Listener) TracksClients() bool { return ls.clients.Load() != nil }

// NoteBytes notes what a client's sessions and flows have moved, for Clients. It is called now and then, not for each
// move.
func (ls *Listener) NoteBytes(client netip.Addr, in, out uint64) {
	t := ls.clients.Load()
	if t == nil || !client.IsValid() {
		return
	}
	id := t.mask.id(client.As16())
	sh, hash := t.place(&id)
	if c := sh.find(&id, hash); c != nil {
		c.bytes[In] += in
		c.bytes[Out] += out
	}
	sh.mu.Unlock()
}
