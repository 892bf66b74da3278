package pool

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// timeBuckets is how many buckets Times has.
const timeBuckets = 6

// TimeBounds returns the upper bounds of the buckets of Times in ascending order; the last bucket has none. They are
// few, since each is a series of each backend, and tell a backend in the same rack, one far away, a busy one and a
// stuck one apart.
func TimeBounds() [timeBuckets - 1]time.Duration {
	const ms = time.Millisecond
	return [timeBuckets - 1]time.Duration{ms, 5 * ms, 25 * ms, 100 * ms, time.Second}
}

// Times are how long something took each time. It is a plain value; the zero value counts nothing.
type Times struct {
	Sum     float64 // seconds, of times rounded to about a microsecond
	Buckets [timeBuckets]uint64
}

// Count returns how often it was.
func (t *Times) Count() (n uint64) {
	for _, of := range t.Buckets {
		n += of
	}
	return n
}

// The kinds of times that a backend counts.
const (
	connectTimes = iota
	firstByteTimes
	timeKinds
)

// A stopwatch counts the times of one backend. Its methods may be called from any goroutine; see newStopwatch.
//
// Each loop has a stripe of its own, so that loops do not wait for each other's cache lines. A bucket of a stripe is
// one word with both its count and its sum, so that counting a time is one atomic addition: half the price of two,
// 6 ns instead of 11 (BenchmarkTook). A word that could overflow is emptied into spilled.
type stopwatch struct {
	stripes []stripe // a power of two, then read-only

	mu sync.Mutex // guards spilled, and no word is emptied while it is held
	// counts and sums in ticks of what the words have had
	spilled [timeKinds][timeBuckets]struct{ count, sum uint64 }
}

// A stripe is what one loop counts, or more than one if there are more loops than stripes.
type stripe struct {
	words [timeKinds][timeBuckets]atomic.Uint64
	_     [128 - timeKinds*timeBuckets*8]byte // two cache lines, which processors fetch together
}

// The parts of a word: the count above, the sum in ticks below. A tick is about a microsecond.
const (
	tickBits = 10 // of a nanosecond
	tick     = time.Duration(1) << tickBits
	sumBits  = 40
	sumMask  = 1<<sumBits - 1
	nearFull = 1<<63 | 1<<(sumBits-1) // either part is half full
	// longestTime bounds a time, so that a few that are counted at once cannot overflow a half full sum: 19 hours
	longestTime = 1 << (sumBits - 4) * tick
)

// maxStripes bounds the memory of a backend on a machine with very many CPUs: 2 KiB.
const maxStripes = 16

func newStopwatch() *stopwatch {
	n := min(runtime.NumCPU(), maxStripes)
	return &stopwatch{stripes: make([]stripe, 1<<bits.Len(uint(n-1)))}
}

// stopwatch returns the backend's, which it gets if it has none.
func (b *Backend) stopwatch() *stopwatch {
	if b.watch.Load() == nil {
		b.watch.CompareAndSwap(nil, newStopwatch())
	}
	return b.watch.Load()
}

// took counts a time of a kind, on the stripe of a loop.
func (b *Backend) took(kind, loop int, d time.Duration) {
	w := b.watch.Load()
	if w == nil {
		w = b.stopwatch()
	}
	d = min(max(d, 0), longestTime)
	word := &w.stripes[uint(loop)&uint(len(w.stripes)-1)].words[kind][timeBucket(d)]
	if now := word.Add(1<<sumBits | uint64(d+tick/2)>>tickBits); now&nearFull != 0 {
		w.spill(kind, timeBucket(d), word, now)
	}
}

// timeBucket returns the bucket of a time.
func timeBucket(d time.Duration) int {
	switch { // by far the most are short
	case d <= time.Millisecond:
		return 0
	case d <= 5*time.Millisecond:
		return 1
	case d <= 25*time.Millisecond:
		return 2
	case d <= 100*time.Millisecond:
		return 3
	case d <= time.Second:
		return 4
	}
	return 5
}

// spill empties a word that is half full, and was at now a moment ago. While somebody reads, a later call does, unless
// the word has less than a quarter left.
func (w *stopwatch) spill(kind, bucket int, word *atomic.Uint64, now uint64) {
	if !w.mu.TryLock() {
		if now&(now<<1)&nearFull == 0 {
			return
		}
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	had, into := word.Swap(0), &w.spilled[kind][bucket]
	into.count += had >> sumBits
	into.sum += had & sumMask
}

// times returns all times of a kind so far. A nil stopwatch has none.
func (w *stopwatch) times(kind int) (t Times) {
	if w == nil {
		return t
	}
	var ticks uint64
	t.Buckets, ticks = w.total(kind)
	t.Sum = float64(ticks) * tick.Seconds()
	return t
}

// total returns how many times of a kind are in each bucket, and all of them in ticks.
func (w *stopwatch) total(kind int) (buckets [timeBuckets]uint64, ticks uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range buckets {
		buckets[i] = w.spilled[kind][i].count
		ticks += w.spilled[kind][i].sum
		for s := range w.stripes {
			had := w.stripes[s].words[kind][i].Load()
			buckets[i] += had >> sumBits
			ticks += had & sumMask
		}
	}
	return buckets, ticks
}

// timeNames are how another process knows the times of a kind; see Counts.
var timeNames = [timeKinds]string{connectTimes: "connect_time.", firstByteTimes: "first_byte_time."}

// timeName returns how another process knows a bucket, by its upper bound: its index may be another one there.
func timeName(kind, bucket int) string {
	if bounds := TimeBounds(); bucket < len(bounds) {
		return timeNames[kind] + bounds[bucket].String()
	}
	return timeNames[kind] + "longer"
}

// countTimes adds to c what the stopwatch has counted, but for zeros. A nil stopwatch has nothing.
func (w *stopwatch) countTimes(c Counts) {
	if w == nil {
		return
	}
	for kind := range timeKinds {
		buckets, ticks := w.total(kind)
		for i, n := range buckets {
			if n > 0 {
				c[timeName(kind, i)] = n
			}
		}
		if ticks > 0 {
			c[timeNames[kind]+"ticks"] = ticks
		}
	}
}

// addTimes adds the times that another process has counted.
func (b *Backend) addTimes(c Counts) {
	for kind := range timeKinds {
		for i := range timeBuckets {
			if n := c[timeName(kind, i)]; n > 0 {
				w := b.stopwatch()
				w.mu.Lock()
				w.spilled[kind][i].count += n
				w.mu.Unlock()
			}
		}
		if ticks := c[timeNames[kind]+"ticks"]; ticks > 0 {
			w := b.stopwatch()
			w.mu.Lock()
			w.spilled[kind][0].sum += ticks
			w.mu.Unlock()
		}
	}
}
