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
	leases   atomic.Int64 // and the joined bits
	limit    atomic.Int64 // of leases; 0 = none, below 0 = there may be no more leases
	withheld atomic.Uint32
	seat     atomic.Pointer[seat] // in the last picker built, if that needs to know of released leases
	totals   [2]*Total            // each set once, by the first Join

	firstByte, connect ewma
}

// Bits of Load.leases above the number of leases: while one is set, each acquired or released lease also counts in that
// one of Load.totals. Bits and number change in one atomic step, which keeps the totals exact while members come, go
// and move under load.
const (
	joinedFirst  int64 = 1 << 62
	joinedSecond int64 = 1 << 61
	joined             = joinedFirst | joinedSecond
)

// count adds a change to the totals whose bits are set in bits, the value of leases after the change.
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

// acquire counts one more lease, whatever the limit, and returns the number now held.
func (l *Load) acquire() int64 {
	n := l.leases.Add(1)
	if n&joined != 0 {
		l.count(n, 1)
	}
	return n &^ joined
}

// Acquire counts one more lease, whatever the limit.
func (l *Load) Acquire() { l.acquire() }

// TryAcquire counts one more lease unless that would exceed the limit, and reports whether it did. Even with concurrent
// calls the limit is never exceeded, and a call fails only at the limit.
func (l *Load) TryAcquire() bool {
	limit := l.limit.Load()
	if limit == 0 {
		l.acquire()
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

// Release counts one lease less and returns the number still held. It panics when none was held: then a lease was
// released twice, and all later numbers would be wrong.
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

// SetLimit sets the limit of concurrent leases; 0 is no limit, and with a number below 0 the member is full, however
// few leases it has. Existing leases beyond the limit stay.
func (l *Load) SetLimit(n int64) {
	l.limit.Store(n)
	if n >= 0 {
		l.lighter()
	}
}

// Limit returns the limit of concurrent leases as SetLimit has set it.
func (l *Load) Limit() int64 { return l.limit.Load() }

// Full reports whether the number of leases has reached the limit.
func (l *Load) Full() bool {
	limit := l.limit.Load()
	return limit != 0 && l.Leases() >= limit
}

// fullShare is a whole weight, as SetShare counts.
const fullShare = 256

// SetShare sets the part of a member's weight that is in force, from above 0 to 1, for slow start. It is rounded to
// steps of 1/256, the least of which is 1/256.
func (l *Load) SetShare(share float64) {
	kept := min(max(uint32(share*fullShare), 1), fullShare)
	if l.withheld.Swap(fullShare-kept) != fullShare-kept {
		l.lighter()
	}
}

// Share returns the part of the member's weight that is in force.
func (l *Load) Share() float64 { return float64(fullShare-l.withheld.Load()) / fullShare }

// weight returns the part of the weight w that is in force, in 256ths.
func (l *Load) weight(w int64) int64 { return w * int64(fullShare-l.withheld.Load()) }

// favoured reports whether 64 random bits fall into the part of the weight that is in force.
func (l *Load) favoured(chance uint64) bool {
	withheld := l.withheld.Load()
	return withheld == 0 || uint32(chance>>56) >= withheld
}

// lighter lowers the picker's hint, since the member may cost less than before.
func (l *Load) lighter() {
	if s := l.seat.Load(); s != nil {
		s.lower(l)
	}
}

// ObserveFirstByte records how long the member took to its first byte; now is on the clock of State.Advance.
func (l *Load) ObserveFirstByte(took, now time.Duration) { l.firstByte.observe(took, now) }

// ObserveConnect records how long it took to connect to the member; now is on the clock of State.Advance. It is used
// until there is a time to the first byte.
func (l *Load) ObserveConnect(took, now time.Duration) { l.connect.observe(took, now) }

// Latency returns the average that least_time uses, as of the last observation; false if there was none.
func (l *Load) Latency() (time.Duration, bool) {
	seconds := l.latency(0)
	return time.Duration(float64(seconds) * float64(time.Second)), seconds > 0
}

// latency returns the average in seconds, faded up to clock, which is in milliseconds; 0 if nothing was observed yet.
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
		l.totals[0] = t // before the bit is set, with which others read it
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

// Leave stops counting l's leases. It does nothing if l has left already or never joined.
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
