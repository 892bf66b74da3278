// Package rate says whether something may happen once more: so often in a time, and so many at once. It is the generic
// cell rate algorithm (ITU-T I.371, annex A), whose whole state is one moment. It knows neither what happens nor what
// becomes of that which may not.
package rate

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// The limits of a Limit.
const (
	MinEvery = time.Microsecond            // a million in a second
	MaxEvery = 24 * time.Hour              // one in a day
	MaxBurst = 10_000_000                  // at once
	MaxCount = int(time.Second / MinEvery) // in a second
)

// A Limit is how often something may happen. It is a value; the zero value is without a limit.
type Limit struct {
	Every time.Duration // the mean time from one to the next: MinEvery to MaxEvery; 0 = without a limit
	Burst int           // how many may happen at once after a pause: 1 to MaxBurst; 0 counts as 1
}

// PerSecond returns the limit of n in a second, 1 to MaxCount, of which burst may happen at once.
func PerSecond(n, burst int) Limit { return Limit{Every: time.Second / time.Duration(n), Burst: burst} }

// On reports whether there is a limit.
func (l Limit) On() bool { return l.Every > 0 }

// Share returns the limit of one of several who keep l together: share is its part, from above 0 to 1. Its mean rate is
// exact, however small the part is. Bursts add up to that of l, but one may always happen.
func (l Limit) Share(share float64) Limit {
	if !l.On() || !(share > 0 && share < 1) {
		return l
	}
	every := math.Min(math.Round(float64(l.Every)/share), maxSlack)
	burst := float64(max(l.Burst, 1))*share + 1e-6 // so that 49 times 1/49 is 1
	return Limit{Every: time.Duration(every), Burst: max(1, int(burst))}
}

// slack is how long before its moment the next one may happen.
func (l Limit) slack() time.Duration {
	high, slack := bits.Mul64(uint64(l.Every), uint64(max(l.Burst, 1)-1))
	if high != 0 || slack > maxSlack {
		return maxSlack
	}
	return time.Duration(slack)
}

// maxSlack is 73 years: a burst that takes longer to come back is as good as this one, and the sum of two is in range.
const maxSlack = 1 << 61

// Take lets one happen at the moment now. at is the moment that Take returned last, 0 at first: when the next one would
// come if they came evenly. It returns that moment as it is afterwards, and 0; or how long it takes until one may
// happen, with at as it was. Moments count from any point; a state whose moment has passed is the same as none.
func (l Limit) Take(at, now time.Duration) (next, wait time.Duration) {
	if wait := l.Wait(at, now); wait > 0 {
		return at, wait
	}
	return max(at, now) + l.Every, 0
}

// Wait is how long it takes from now until one may happen; 0 = it may now.
func (l Limit) Wait(at, now time.Duration) time.Duration { return max(0, at-now-l.slack()) }

// Instead returns the state for this limit that was one for another until now: what has happened of the burst stays so,
// as far as the new burst reaches. If there was no limit, a whole burst may happen, and if there is none now, the state
// stays as it is.
func (l Limit) Instead(of Limit, at, now time.Duration) time.Duration {
	switch {
	case !l.On():
		return at
	case !of.On():
		return 0
	}
	used := min(float64(max(0, at-now))/float64(of.Every), float64(max(l.Burst, 1)))
	return now + time.Duration(min(used*float64(l.Every), maxSlack))
}

// A Bucket is the state of one limit, for use from any goroutine. The zero value is full: a burst may happen. The Limit
// is given to each call, so that another one may be used from then on.
type Bucket struct {
	at atomic.Int64
}

// Take lets one happen at the moment now, or returns how long it takes until one may.
func (b *Bucket) Take(l Limit, now time.Duration) (wait time.Duration) {
	if !l.On() {
		return 0
	}
	for {
		at := b.at.Load()
		next, wait := l.Take(time.Duration(at), now)
		if wait > 0 || b.at.CompareAndSwap(at, int64(next)) {
			return wait
		}
	}
}

// Wait is how long it takes from now until one may happen; 0 = it may now, unless another one comes first.
func (b *Bucket) Wait(l Limit, now time.Duration) time.Duration {
	if !l.On() {
		return 0
	}
	return l.Wait(time.Duration(b.at.Load()), now)
}

// Return gives back what a Take has let happen, and what did not happen after all.
func (b *Bucket) Return(l Limit) {
	if l.On() {
		b.at.Add(-int64(l.Every))
	}
}

// Change turns the state for one limit into that for another, see Limit.Instead.
func (b *Bucket) Change(from, to Limit, now time.Duration) {
	for {
		at := b.at.Load()
		if b.at.CompareAndSwap(at, int64(to.Instead(from, time.Duration(at), now))) {
			return
		}
	}
}

// CopyFrom copies the current state of other to b, which must be new and not in use yet.
func (b *Bucket) CopyFrom(other *Bucket) { b.at.Store(other.at.Load()) }
