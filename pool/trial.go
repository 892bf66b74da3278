package pool

import (
	"slices"
	"sync/atomic"
	"time"
)

// HeldAfter is how long a backend must keep a connection open for it to count as working without having sent anything,
// as the backend of a one-way service never does. If it closes a connection sooner and nothing was sent, that counts as
// a failure: no working server gives up on a silent client so soon.
const HeldAfter = time.Second

// trialTime returns how long a trial keeps its place: enough time to connect and to be held. Later outcomes say
// nothing.
func (s *settings) trialTime() time.Duration { return s.ConnectTimeout + 2*HeldAfter }

// trials has the places of a half-open breaker; each lets one session through. It is safe for concurrent use.
type trials struct {
	// places has the number of free places in its lower half and the number of their grant in its upper half. The grant
	// is never 0 after the first one.
	places atomic.Uint64
	taken  atomic.Int64 // when the last place was taken, on the pool's clock
	good   atomic.Int32 // trials that succeeded
	opened atomic.Int64 // when the first trial reached the backend, on the pool's clock; 0: none has
}

// begin grants the places of a breaker that has just become half-open.
func (t *trials) begin(n int) {
	t.good.Store(0)
	t.opened.Store(0)
	t.grant(n)
}

// grant makes n new places. Trials of earlier grants no longer count.
func (t *trials) grant(n int) {
	for {
		old := t.places.Load()
		if t.places.CompareAndSwap(old, uint64(max(uint32(old>>32)+1, 1))<<32|uint64(n)) {
			return
		}
	}
}

// left returns how many places are free.
func (t *trials) left() int { return int(uint32(t.places.Load())) }

// current reports whether grant is the last one.
func (t *trials) current(grant uint32) bool { return uint32(t.places.Load()>>32) == grant }

// lost reports whether no place is left and the last trial's time is over. So a silent session, or one of an earlier
// grant, cannot block all others.
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

// giveBack gives a place back, unless there was a later grant.
func (t *trials) giveBack(grant uint32) {
	for {
		old := t.places.Load()
		if uint32(old>>32) != grant || t.places.CompareAndSwap(old, old+1) {
			return
		}
	}
}

// held reports whether a trial reached the backend so long ago that it would have failed by now.
func (t *trials) held(now, trialTime time.Duration) bool {
	opened := t.opened.Load()
	return opened != 0 && now >= time.Duration(opened)+trialTime
}

// trial returns a backend whose breaker is half-open, with a lease on it and the trial's grant, or nil. A backend of a
// later tier gets no trial while an earlier tier can serve.
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
		if b.load.TryAcquire() && b.withinRate() {
			return b, grant
		}
		t.giveBack(grant)
	}
	return nil, 0
}
