package algo

import (
	"sync/atomic"
	"time"
)

// A Load holds the live figures of one member, which algorithms read at each pick.
// Its zero value is ready to use: no lease, no limit, the full weight. It is safe for concurrent use and must not be
// copied.
//
// Invariant: the low bits of leases are the number of leases not yet released, and so never negative.
type Load struct {
	leases   atomic.Int64 // and joined
	limit    atomic.Int64 // of leases; 0 = none
	withheld atomic.Uint32
	seat     atomic.Pointer[seat] // in the picker built last, if that wants to know of released leases
	totals   [2]*Total            // each set once, by the first Join of it

	firstByte, connect ewma
}

// Bits of Load.leases, beside their number: each lease taken or given back counts in that one of Load.totals, too. That
// both change in one atomic step is what keeps the totals exact while members come, go and change over under load.
const (
	joinedFirst  int64 = 1 << 62
	joinedSecond int64 = 1 << 61
	joined             = joinedFirst | joinedSecond
)

// count adds a change to the totals that bits, the leases after that change, say.
func (l *Load) count(bits, change int64) {
	if bits&joinedFirst != 0 {
		l.totals[0].leases.Add(change)
	}
	if bits&joinedSecond != 0 {
		l.totals[1].leases.Add(change)
	}
}

// Leases returns the number of leases held now.
func (l *Load) Leases() int64 { return l.leases.Load() &^ joined }

// Acquire counts one lease more, whatever the limit, and returns the number now held.
func (l *Load) Acquire() int64 {
	n := l.leases.Add(1)
	if n&joined != 0 {
		l.count(n, 1)
	}
	return n &^ joined
}

// TryAcquire counts one lease more unless that would be more than the limit, and reports whether it did. However many
// try at once, there are never more leases than the limit, and it fails only when there are as many.
func (l *Load) TryAcquire() bool {
	limit := l.limit.Load()
	if limit == 0 {
		l.Acquire()
		return true
	}
	for {
		n := l.leases.Load()
		if n&^joined >= limit {
			return false
		}
		if l.leases.CompareAndSwap(n, n+1) {
			if n&joined != 0 {
				l.count(n, 1)
			}
			return true
		}
	}
}

// Release counts one lease less and returns the number still held.
// It panics when none was held: a lease was then released twice, and every later figure would be wrong.
func (l *Load) Release() int64 {
	n := l.leases.Add(-1)
	if (n+1)&^joined == 0 {
		panic("algo: lease released twice: load below zero")
	}
	if n&joined != 0 {
		l.count(n, -1)
	}
	l.lighter()
	return n &^ joined
}

// SetLimit says how many leases there may be at once; 0 is no limit. Leases beyond it that are held already stay.
func (l *Load) SetLimit(n int64) {
	l.limit.Store(n)
	l.lighter()
}

// Limit returns how many leases there may be at once; 0 is no limit.
func (l *Load) Limit() int64 { return l.limit.Load() }

// Full reports whether there are as many leases as there may be.
func (l *Load) Full() bool {
	limit := l.limit.Load()
	return limit > 0 && l.Leases() >= limit
}

// fullShare is a whole weight, as SetShare counts.
const fullShare = 256

// SetShare says which part of its weight a member has now, from nearly 0 to 1: one that has just come back grows into
// it. It is kept in steps of 1/256, and never quite 0.
func (l *Load) SetShare(share float64) {
	kept := min(max(uint32(share*fullShare), 1), fullShare)
	if l.withheld.Swap(fullShare-kept) != fullShare-kept {
		l.lighter()
	}
}

// Share returns which part of its weight the member has now.
func (l *Load) Share() float64 { return float64(fullShare-l.withheld.Load()) / fullShare }

// weight is what a weight comes to now, in 256ths.
func (l *Load) weight(w int64) int64 { return w * int64(fullShare-l.withheld.Load()) }

// favoured says of 64 random bits whether they fall into the part of the weight that the member has.
func (l *Load) favoured(chance uint64) bool {
	withheld := l.withheld.Load()
	return withheld == 0 || uint32(chance>>56) >= withheld
}

// lighter tells the picker that the member may cost less than before.
func (l *Load) lighter() {
	if s := l.seat.Load(); s != nil {
		s.lower(l)
	}
}

// ObserveFirstByte takes in how long the member took to its first byte, now on the clock of State.Advance.
func (l *Load) ObserveFirstByte(took, now time.Duration) { l.firstByte.observe(took, now) }

// ObserveConnect takes in how long it took to connect to the member, now on the clock of State.Advance. It stands in
// for the time to the first byte until there is one.
func (l *Load) ObserveConnect(took, now time.Duration) { l.connect.observe(took, now) }

// Latency returns the average that least_time goes by, as observed last; false when nothing was observed yet.
func (l *Load) Latency() (time.Duration, bool) {
	seconds := l.latency(0)
	return time.Duration(float64(seconds) * float64(time.Second)), seconds > 0
}

// latency is the average in seconds as it has faded by clock, in milliseconds; 0 when nothing was observed yet.
func (l *Load) latency(clock int64) float32 {
	if at := l.firstByte.at(clock); at > 0 {
		return at
	}
	return l.connect.at(clock)
}

// A Total counts the leases of all loads that have joined it. Its zero value is ready to use, and it is safe for
// concurrent use. It must not be copied.
type Total struct {
	leases atomic.Int64
}

// Leases returns the number of leases held now by the loads that have joined.
func (t *Total) Leases() int64 { return t.leases.Load() }

// Join counts l's leases, those it has and those to come, until Leave. Joining again does nothing. A Load may join two
// Totals in its life, also both at once, so that it can change from one to the other; a third one is the caller's bug,
// and panics. Calls of Join and Leave for one Load must not overlap.
func (t *Total) Join(l *Load) {
	bit := joinedFirst
	switch {
	case l.totals[0] == t:
	case l.totals[0] == nil:
		l.totals[0] = t // before the bit that has others read it
	case l.totals[1] == t:
		bit = joinedSecond
	case l.totals[1] == nil:
		l.totals[1], bit = t, joinedSecond
	default:
		panic("algo: a load joined a third total")
	}
	if n := l.leases.Or(bit); n&bit == 0 {
		t.leases.Add(n &^ joined)
	}
}

// Leave counts l's leases no more. Leaving again, or what was never joined, does nothing.
func (t *Total) Leave(l *Load) {
	for i, bit := range [...]int64{joinedFirst, joinedSecond} {
		if l.totals[i] != t {
			continue
		}
		if n := l.leases.And(^bit); n&bit != 0 {
			t.leases.Add(-(n &^ joined))
		}
	}
}
