package algo

import (
	"math"
	"math/bits"
)

// clientHash gives each key to the member of the best score for it, a hash of both: rendezvous or highest random weight
// hashing (Thaler and Ravishankar 1998), with weights by the logarithm (Schindelhauer and Schomaker 2005). Shares follow the
// weights as exactly as chance allows, and whatever changes, only keys to or from the changed member move.
//
// A pick computes a score for every member (BenchmarkPick/client_hash), and so costs more the more there are; where
// ring_hash and maglev are the better choice is in docs/algorithms.md.
type clientHash struct {
	preference
	weighs []weigh // beside each other: the first pass reads nothing else
	equal  bool    // all weights are
}

// A weigh is what the score of a member is made of.
type weigh struct {
	hash    uint64
	inverse uint64 // of the weight, see scale
}

func newClientHash(members []candidate, o Options) Picker {
	c := &clientHash{preference: newPreference(members, o), weighs: make([]weigh, len(members)), equal: true}
	for i := range c.members {
		m := &c.members[i]
		c.weighs[i] = weigh{hash: m.hash, inverse: scale / uint64(m.weight)}
		c.equal = c.equal && m.weight == c.members[0].weight
	}
	return c
}

// Pick returns the key's member, or its next best while that may not be picked.
func (c *clientHash) Pick(key uint64) int {
	// Loads, which are spread over memory, are read of the winner only.
	if m := &c.members[c.winner(key)]; c.admits(m, key) {
		return m.index
	}
	return c.favourite(key)
}

// winner returns the rank of the member of the best score.
func (c *clientHash) winner(key uint64) int {
	best, bestScore := 0, uint64(math.MaxUint64)
	key = Mix(key)
	if c.equal {
		for i := range c.weighs { // the score falls as the hash rises: no need to compute it
			if s := ^fold(key ^ c.weighs[i].hash); s < bestScore || s == bestScore && c.weighs[i].hash < c.weighs[best].hash {
				best, bestScore = i, s
			}
		}
		return best
	}
	for i := range c.weighs {
		w := &c.weighs[i]
		h := fold(key ^ w.hash)
		if atLeast(h)*w.inverse > bestScore { // nearly always, after the first few
			continue
		}
		if s := negLog(h) * w.inverse; s < bestScore || s == bestScore && w.hash < c.weighs[best].hash {
			best, bestScore = i, s
		}
	}
	return best
}

// scale is what weights are inverted to: negLog is below 2^39, so a score is below 2^63.
const scale = 1 << 24

// score says how far a member is from a key; the least is best. It is -log2(u) / weight for a u drawn by key and member
// from 0 to 1, so the chance to be the least is the share of the weight.
func score(key, hash uint64, weight int64) uint64 {
	return negLog(fold(Mix(key)^hash)) * (scale / uint64(weight))
}

// fold stirs x, which is random already, by one multiplication whose halves it lays over each other: half the time of Mix,
// of which a pick would need one for every member (TestClientHashScoresAreIndependent).
func fold(x uint64) uint64 {
	high, low := bits.Mul64(x, 0x9e3779b97f4a7c15)
	return high ^ low
}

// negLog returns -log2(h / 2^64) in steps of 2^-32, in whole numbers: the floating point of two machines may differ in the
// last bit, and their fleet must not. Between the entries of its table it is linear, and so too large by 2^-22 at most and
// for a small result by no more than 2^-11 of it.
func negLog(h uint64) uint64 {
	zeros := uint(bits.LeadingZeros64(h | 1))
	mantissa := h << zeros << 1 // what follows the first 1
	at, within := mantissa>>(64-logBits), mantissa<<logBits>>32
	low, high := logTable[at], logTable[at+1]
	return uint64(zeros+1)<<32 - (low + (high-low)*within>>32)
}

// atLeast returns a bound that negLog(h) is never below, and that it comes close to where it is small: -log2(1-x) is at least
// x / ln 2, and negLog errs upwards only.
func atLeast(h uint64) uint64 { return (^h >> 32) * 0x17154765 >> 28 } // 0x1.7154765p0 is below 1 / ln 2

const logBits = 10

// logTable holds log2(1 + i/1024) in steps of 2^-32.
var logTable = makeLogTable()

// makeLogTable squares, which doubles a logarithm: each time the square reaches 2, the next bit of the logarithm is 1. All of
// it is in whole numbers, see negLog.
func makeLogTable() (t [1<<logBits + 1]uint64) {
	for i := range t[:1<<logBits] {
		x := 1<<63 | uint64(i)<<(63-logBits) // from 1 to below 2, as 1.63 bits
		for bit := range uint64(40) {
			high, low := bits.Mul64(x, x) // as 2.126 bits
			if high>>63 == 1 {
				x = high
				if bit < 32 {
					t[i] |= 1 << (31 - bit)
				}
			} else {
				x = high<<1 | low>>63
			}
		}
	}
	t[1<<logBits] = 1 << 32
	return t
}
