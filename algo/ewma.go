package algo

import (
	"math"
	"sync/atomic"
	"time"
)

// fade is the time constant of an average: what was observed so long ago counts for a third. Finagle's peak EWMA has 10
// s too: a few seconds of trouble are over soon after, and a backend that is slow now and then is not forgotten
// between.
const fade = 10 * time.Second

// An ewma is a peak-sensitive, exponentially weighted moving average of times: what is worse than the average replaces
// it at once, what is better pulls it down slowly, so that trouble is seen with the first session and trust comes back
// with time. Its zero value has observed nothing; it is safe for concurrent use.
type ewma struct {
	bits atomic.Uint64 // the average in seconds, a float32, above its time in milliseconds, a uint32; 0 = none
}

// observe takes in one time.
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

// at returns the average as it counts at clock, in milliseconds: halved for each half-life since the last observation,
// so that a member that was slow once and is therefore avoided is tried again.
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
