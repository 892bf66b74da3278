package tally

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// HistogramSchema is the schema of the Histograms here, as Prometheus numbers those of native histograms: each bucket's bound
// is 2^(1/4) times that of the one below, so that a time read off them is off by less than 19 %.
const HistogramSchema = 2

// The bounds of a Histogram's buckets are 2^(i/4) seconds, for i from lowestBucket on: a little below a microsecond, 2^-20 s,
// to twelve days, 2^20 s. One more bucket holds what is above.
const (
	lowestBucket  = -20 << HistogramSchema
	highestBucket = 20 << HistogramSchema
	bucketCount   = highestBucket - lowestBucket + 2
)

// A Histogram is how long something took, over all times that it did; an immutable copy.
//
// Buckets[i] counts the times above HistogramBound(i-1) and not above HistogramBound(i). The first one also counts all below,
// zero included: a loop reads its clock once for a batch of events.
type Histogram struct {
	Count   uint64
	Sum     float64 // seconds
	Buckets []uint64
}

// HistogramBound is the upper bound of a bucket, which belongs to it, in seconds. The last one's is infinite.
func HistogramBound(bucket int) float64 {
	if bucket >= bucketCount-1 {
		return math.Inf(1)
	}
	return math.Exp2(float64(lowestBucket+bucket) / (1 << HistogramSchema))
}

// Classic returns the counts as a classic Prometheus histogram has them: for each upper bound in seconds, how many were not above
// it. The bounds are each step-th of the buckets', counted from the first; with 4 they are the powers of two. What is above the
// last is in Count alone.
func (h *Histogram) Classic(step int) map[float64]uint64 {
	buckets := make(map[float64]uint64, bucketCount/step+1)
	var n uint64
	for i, count := range h.Buckets {
		n += count
		if i%step == 0 && i < bucketCount-1 {
			buckets[HistogramBound(i)] = n
		}
	}
	return buckets
}

// Native returns the counts as a native Prometheus histogram of schema HistogramSchema has them: by the bucket's number there, those
// with none left out. zero counts what was not above threshold seconds, its zero bucket.
func (h *Histogram) Native() (buckets map[int]int64, zero uint64, threshold float64) {
	buckets = make(map[int]int64)
	for i, count := range h.Buckets {
		if i > 0 && count > 0 {
			buckets[lowestBucket+i] = int64(count)
		}
	}
	if len(h.Buckets) > 0 {
		zero = h.Buckets[0]
	}
	return buckets, zero, HistogramBound(0)
}

// Merge adds other's counts.
func (h *Histogram) Merge(other *Recorder) {
	if h.Buckets == nil {
		h.Buckets = make([]uint64, bucketCount)
	}
	for i := range other.buckets {
		n := other.buckets[i].Load()
		h.Buckets[i] += n
		h.Count += n
	}
	h.Sum += float64(other.micros.Load()) / 1e6
}

// A Recorder is a Histogram that one loop writes and anyone may read. Its zero value is empty and ready.
type Recorder struct {
	buckets [bucketCount]atomic.Uint64
	micros  atomic.Uint64 // the sum; nanoseconds would overflow in weeks where there are many long sessions
	rest    time.Duration // what the sum lacks of it, below a microsecond; onLoop
}

// Observe counts a time; a negative one counts as none. onLoop.
func (h *Recorder) Observe(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucketOf(uint64(d))].Add(1)
	d += h.rest
	h.micros.Add(uint64(d / time.Microsecond))
	h.rest = d % time.Microsecond
}

// bucketOf finds the bucket of a time in nanoseconds. The number of its bits leads to the first bound that it may be not above;
// four bounds later at the latest it is found.
func bucketOf(ns uint64) int {
	i := bucketTable.first[bits.Len64(ns)]
	for ns > bucketTable.bounds[i] {
		i++
	}
	return int(i)
}

// bucketTable is read-only.
var bucketTable = makeBucketTable()

type buckets struct {
	bounds [bucketCount]uint64 // nanoseconds
	first  [65]uint16          // by number of bits: the first bucket whose bound is not below all such times
}

func makeBucketTable() *buckets {
	t := new(buckets)
	for i := range t.bounds {
		t.bounds[i] = math.MaxUint64
		if i < bucketCount-1 {
			t.bounds[i] = uint64(HistogramBound(i) * 1e9)
		}
	}
	for n := range t.first {
		least := uint64(0)
		if n > 0 {
			least = 1 << (n - 1)
		}
		i, _ := slices.BinarySearch(t.bounds[:], least)
		t.first[n] = uint16(i)
	}
	return t
}
