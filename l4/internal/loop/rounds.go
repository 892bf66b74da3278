package loop

import "time"

// flushEvery is how far the byte counters of listeners and backends may lag behind running sessions: less than half of
// the usual scrape interval of 15 s, and a round through 10,000 sessions, about a millisecond, is then nothing.
const flushEvery = 5 * time.Second

// Rounds flush what the values of a slab have counted, in slices, flushEvery after the first turn that brought events.
// A read of the counters thus costs nothing for it, and a loop that sleeps is not woken: with no event since the last
// round, there is nothing to flush. Used onLoop only; see NewRounds.
type Rounds struct {
	some    func(from int) int
	pending bool // events have come since the last round began
	begun   bool // a round is under way, or will be at the time at
	at      time.Duration
	next    int // where the round goes on
}

// NewRounds makes rounds of slices: some flushes the slice that begins at from, and returns where the next one begins,
// or a negative number after the last, as Slab.Some does.
func NewRounds(some func(from int) int) Rounds { return Rounds{some: some} }

// EndTurn flushes a slice if it is time to; events is how many the turn has had.
func (r *Rounds) EndTurn(now time.Duration, events int) {
	if events > 0 {
		r.pending = true
	}
	if !r.begun {
		r.begun, r.at = r.pending, now+flushEvery
		return
	}
	if now < r.at {
		return
	}
	if r.next == 0 {
		r.pending = false // bytes of later turns may be those of sessions that were flushed before
	}
	if r.next = r.some(r.next); r.next < 0 {
		r.next, r.begun, r.at = 0, r.pending, now+flushEvery
	}
}

// Due returns when the next slice is to be flushed; false for none.
func (r *Rounds) Due() (time.Duration, bool) { return r.at, r.begun }
