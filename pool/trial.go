package pool

import (
	"slices"
	"sync/atomic"
	"time"
)

// HeldAfter is how long a backend holds a connection until that speaks for it, though it has said nothing: a one-way
// service never does. Until then, closing a connection by which nothing was sent speaks against it: no server that
// works has given up a silent client so soon.
const HeldAfter = time.Second

// trialTime is how long a trial keeps its place: it has been connected by then, and has been held. What comes later
// says nothing.
func (s *settings) trialTime() time.Duration { return s.ConnectTimeout + 2*HeldAfter }

// trials are the places of a half-open breaker: so many sessions are let through. It is safe for concurrent use.
type trials struct {
	// left, in the lower half of the word; which grant they are of in the upper, never 0 once there was one
	places atomic.Uint64
	taken  atomic.Int64 // when the last place was, on the pool's clock
	good   atomic.Int32 // trials that worked
	opened atomic.Int64 // when the first one came as far as the backend, on the pool's clock; 0 is never
}

// begin makes places for a breaker that has just become half-open.
func (t *trials) begin(n int) {
	t.good.Store(0)
	t.opened.Store(0)
	t.grant(n)
}

// grant makes new places. Trials by those of before count no more.
func (t *trials) grant(n int) {
	for {
		old := t.places.Load()
		if t.places.CompareAndSwap(old, uint64(max(uint32(old>>32)+1, 1))<<32|uint64(n)) {
			return
		}
	}
}

// left is how many places are free.
func (t *trials) left() int { return int(uint32(t.places.Load())) }

// current reports whether a trial has a place of the last grant.
func (t *trials) current(grant uint32) bool { return uint32(t.places.Load()>>32) == grant }

// lost reports whether no place is left and the last trial has had its time: a session that goes on in silence, or that
// was forgotten by a later grant, does not keep all others out.
func (t *trials) lost(now, trialTime time.Duration) bool {
	return t.left() == 0 && now >= time.Duration(t.taken.Load())+trialTime
}

// take takes a place and returns its grant, or 0 if there is none.
func (t *trials) take(clock func() time.Duration) (grant uint32) {
	for {
		old := t.places.Load()
		if uint32(old) == 0 {
			return 0
		}
		if t.places.CompareAndSwap(old, old-1) {
			t.taken.Store(int64(clock()))
			return uint32(old >> 32)
		}
	}
}

// giveBack gives a place back, unless there were others granted since.
func (t *trials) giveBack(grant uint32) {
	for {
		old := t.places.Load()
		if uint32(old>>32) != grant || t.places.CompareAndSwap(old, old+1) {
			return
		}
	}
}

// held reports whether a trial came as far as the backend so long ago that it would have failed by now.
func (t *trials) held(now, trialTime time.Duration) bool {
	opened := t.opened.Load()
	return opened != 0 && now >= time.Duration(opened)+trialTime
}

// trial returns a backend whose breaker is half-open, with a lease on it and the trial's grant, or nil. A stand-in is
// not tried while the tiers before its own can serve.
func (s *snapshot) trial(pc *PickContext) (*Backend, uint32) {
	for _, b := range s.trials {
		if len(s.tiers) > 0 && b.tier > s.tiers[0].group.tier || slices.Contains(pc.Tried, b) {
			continue
		}
		t := &b.record.trials
		grant := t.take(s.settings.Clock)
		if grant == 0 {
			continue
		}
		if b.load.TryAcquire() {
			return b, grant
		}
		t.giveBack(grant)
	}
	return nil, 0
}
