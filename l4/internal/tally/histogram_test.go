package tally

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestHistogramBounds compares the bounds with their definition, which is that of native histograms: bound i of a
// schema s is 2^(i/2^s).
func TestHistogramBounds(t *testing.T) {
	for i := range bucketCount - 1 {
		want := math.Pow(2, float64(lowestBucket+i)*math.Pow(2, -HistogramSchema))
		if got := HistogramBound(i); math.Abs(got/want-1) > 1e-12 {
			t.Errorf("bucket %d ends at %v s, want %v", i, got, want)
		}
		if ns := bucketTable.bounds[i]; float64(ns) > want*1e9+1 || float64(ns) < want*1e9-1 {
			t.Errorf("bucket %d ends at %d ns, want %v", i, ns, want*1e9)
		}
	}
	if !math.IsInf(HistogramBound(bucketCount-1), 1) {
		t.Error("the last bucket ends")
	}
	if first, last := HistogramBound(0), HistogramBound(bucketCount-2); first > 1e-6 || last < 10*24*3600 {
		t.Errorf("the bounds are %v to %v s, want a microsecond to ten days inside", first, last)
	}
}

// TestBucketOf checks that a time falls into the bucket around it: at each bound, next to each bound, and for random
// times.
func TestBucketOf(t *testing.T) {
	check := func(ns uint64) {
		t.Helper()
		i := bucketOf(ns)
		if ns > bucketTable.bounds[i] || i > 0 && ns <= bucketTable.bounds[i-1] {
			t.Fatalf("%d ns fell into bucket %d", ns, i)
		}
	}
	for i := range bucketCount - 1 {
		at := bucketTable.bounds[i]
		if got := bucketOf(at); got != i {
			t.Errorf("the bound of bucket %d fell into %d", i, got)
		}
		if got := bucketOf(at + 1); got != i+1 {
			t.Errorf("what is just above bucket %d fell into %d", i, got)
		}
	}
	check(0)
	check(1)
	check(math.MaxUint64)
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		check(r.Uint64() >> r.IntN(64))
	}
}

// TestHistogram checks the count, the sum and both Prometheus forms of observed times.
func TestHistogram(t *testing.T) {
	var one, two Recorder
	for range 1000 {
		one.Observe(1500 * time.Nanosecond) // the sum keeps fractions of a microsecond
	}
	one.Observe(-time.Second)
	two.Observe(time.Second) // a bound: 2^0
	two.Observe(time.Second + 1)
	two.Observe(100 * 24 * time.Hour)
	var h Histogram
	h.Merge(&one)
	h.Merge(&two)
	if want := 0.0015 + 1 + 1 + 100*24*3600; h.Count != 1004 || math.Abs(h.Sum-want) > 1e-5 {
		t.Errorf("count %d, sum %v; want 1004 and %v", h.Count, h.Sum, want)
	}
	classic := h.Classic(4)
	if len(classic) != 41 || classic[1] != 1002 || classic[2] != 1003 || classic[math.Exp2(20)] != 1003 ||
		classic[math.Exp2(-20)] != 1 {
		t.Errorf("classic: %v", classic)
	}
	native, zero, threshold := h.Native()
	above := 20<<HistogramSchema + 1
	if len(native) != 4 || zero != 1 || threshold != math.Exp2(-20) || native[0] != 1 || native[1] != 1 ||
		native[above] != 1 {
		t.Errorf("native: %v, %d up to %v", native, zero, threshold)
	}
	if i := int(math.Ceil(math.Log2(1.5e-6) * 4)); native[i] != 1000 {
		t.Errorf("native: bucket %d has %d of 1.5 us", i, native[i])
	}
	var none Histogram
	if native, zero, _ := none.Native(); len(native) != 0 || zero != 0 || len(none.Classic(4)) != 0 {
		t.Error("an empty histogram has counts")
	}
	if n := testing.AllocsPerRun(100, func() { one.Observe(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations to observe", n)
	}
}
