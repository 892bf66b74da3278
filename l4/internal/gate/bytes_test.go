package gate

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestBytes holds that a bucket that is emptied again and again gives what its rate is, and a depth in addition,
// whatever the rate and the moments are; and that it gives all of that while nobody is later than the depth.
func TestBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Int64Range(MinBandwidth, MaxBandwidth).Draw(t, "rate")
		depth := max(100*time.Millisecond, TimeOf(rate, 3000))
		start := time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(t, "start"))
		now, sum, late := start, 0.0, false
		var b Bytes
		b.Fill(depth/2, now)
		for range rapid.IntRange(1, 200).Draw(t, "turns") {
			pause := time.Duration(rapid.Int64Range(0, int64(3*depth/2)).Draw(t, "pause"))
			late = late || pause > depth/2
			now += pause
			n := b.Has(rate, depth, now)
			if n < 0 {
				t.Fatalf("%d bytes", n)
			}
			if part := rapid.IntRange(0, 3).Draw(t, "part"); part > 0 {
				n = min(n, n/3*part+1)
			}
			b.Take(rate, n)
			sum += float64(n)
		}
		may := (now - start + depth).Seconds() * float64(rate)
		if sum > may*1.001+1000 {
			t.Fatalf("%.0f bytes in %v at %d: %.0f may be", sum, now-start, rate, may)
		}
		left, due := float64(b.Has(rate, depth, now)), (now-start).Seconds()*float64(rate)
		if !late && sum+left < due*0.999-1000 && left < depth.Seconds()*float64(rate)*0.999 {
			t.Fatalf("%.0f bytes in %v at %d, and %.0f are left", sum, now-start, rate, left)
		}
	})
}

// TestBytesWhen holds that When is the moment at which there is what comes in within that time.
func TestBytesWhen(t *testing.T) {
	const rate = 1_000_000
	var b Bytes
	b.Fill(0, time.Hour)
	at := b.When(50 * time.Millisecond)
	if at != time.Hour+50*time.Millisecond {
		t.Errorf("at %v", at)
	}
	if n := b.Has(rate, time.Second, at); n != 50_000 {
		t.Errorf("%d bytes", n)
	}
}
