package algo

import (
	"math"
	"sync/atomic"
	"time"
)

// fade is the time constant of an average: an observation of that age counts for a third. Finagle's peak EWMA uses 10 s
// too: a few seconds of trouble are soon forgotten, but a backend that is slow now and then is not forgotten in
// between.
const fade = 10 * time.Second

// An ewma is a peak-sensitive, exponentially weighted moving average of times: a time above the average replaces it at
// once, and one below pulls it down slowly, so that trouble shows with the first session and trust returns with time.
// Its zero value has observed nothing; it is safe for concurrent use.
type ewma struct {
	bits atomic.Uint64 // the average in seconds, a float32, above its time in milliseconds, a uint32; 0 = none
}

// observe adds one time to the average.
func (e *ewma) observe(took, now time.Duration) {
	sample := max(float32(took.Seconds()), 1e-9)
	stamp := uint32(now.Milliseconds())
	for {
		old := e.bits.Load()
		average := sample
		if was, since := unpack(old, stamp); old != 0 && was > sample {
			kept := float32(math.Exp(-float64(max(since, 1)) / float64(fade.Milliseconds())))
			average = was*kept + sample*(1-kept)
		}
		if e.bits.CompareAndSwap(old, uint64(math.Float32bits(average))<<32|uint64(stamp)) {
			return
		}
	}
}

// at returns the average at clock, in milliseconds: halved for each half-life since the last observation, so that a
// member that is avoided because it was slow is tried again.
func (e *ewma) at(clock int64) float32 {
	bits := e.bits.Load()
	if bits == 0 {
		return 0
	}
	const halfLife = 6931 // ms: fade x ln 2
	average, since := unpack(bits, uint32(clock))
	if since < halfLife {
		return average
	}
	return average / float32(uint64(1)<<min(since/halfLife, 30))
}

// unpack returns an average and how many milliseconds before clock it was made; 0 for one that is newer, as another
// thread's may be. Times wrap after 49 days, and one is only taken for the other when nothing was observed for 24.
func unpack(bits uint64, clock uint32) (average float32, since int32) {
	return math.Float32frombits(uint32(bits >> 32)), max(int32(clock-uint32(bits)), 0)
}
