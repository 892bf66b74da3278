package tally

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// HistogramSchema is the schema of the Histograms here, numbered as Prometheus numbers the schemas of native
// histograms. Each bucket's bound is 2^(1/4) times the bound below it, so a time read off the buckets is wrong by less
// than 19 %.
const HistogramSchema = 2

// The bounds of a Histogram's buckets are 2^(i/4) seconds, for i from lowestBucket to highestBucket: from a little
// below a microsecond, 2^-20 s, to twelve days, 2^20 s. One more bucket counts everything above.
const (
	lowestBucket  = -20 << HistogramSchema
	highestBucket = 20 << HistogramSchema
	bucketCount   = highestBucket - lowestBucket + 2
)

// A Histogram counts how long something took each time. It is an immutable copy.
//
// Buckets[i] counts the times above HistogramBound(i-1) and up to HistogramBound(i). The first bucket also counts all
// shorter times, zero included, since a loop reads its clock once for a batch of events.
type Histogram struct {
	Count   uint64
	Sum     float64 // seconds
	Buckets []uint64
}

// HistogramBound returns the upper bound of a bucket in seconds. The bound itself belongs to the bucket. The last
// bucket's bound is infinite.
func HistogramBound(bucket int) float64 {
	if bucket >= bucketCount-1 {
		return math.Inf(1)
	}
	return math.Exp2(float64(lowestBucket+bucket) / (1 << HistogramSchema))
}

// Classic returns the counts as a classic Prometheus histogram: for each upper bound in seconds, the number of times up
// to it. It uses every step-th bound of the buckets, from the first on; with a step of 4 they are the powers of two.
// Times above the last bound are in Count alone.
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

// Native returns the counts as a native Prometheus histogram of schema HistogramSchema: the counts by the bucket's
// number in that schema, without empty buckets. zero is the count of its zero bucket, the times up to threshold
// seconds.
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

// A Recorder is a Histogram that one loop writes and any goroutine may read. Its zero value is empty and ready.
type Recorder struct {
	buckets [bucketCount]atomic.Uint64
	micros  atomic.Uint64 // the sum; many long sessions would overflow nanoseconds within weeks
	rest    time.Duration // less than a microsecond, not yet in the sum; onLoop
}

// Observe counts a time. A negative time counts as zero. onLoop.
func (h *Recorder) Observe(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucketOf(uint64(d))].Add(1)
	d += h.rest
	h.micros.Add(uint64(d / time.Microsecond))
	h.rest = d % time.Microsecond
}

// bucketOf returns the bucket of a time in nanoseconds. The number of bits in the time gives the first bucket to look
// at; the right one is at most four buckets above it.
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
