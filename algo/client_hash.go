package algo

import (
	"math"
	"math/bits"
)

// clientHash gives each key to the member with the best score, a hash of both: rendezvous or highest random weight
// hashing (Thaler and Ravishankar 1998), with weights by the logarithm (Schindelhauer and Schomaker 2005). Shares
// follow the weights as exactly as chance allows, and a change moves only keys to or from the changed member.
//
// A pick computes a score for every member (BenchmarkPick/client_hash), so its cost grows with their number;
// docs/algorithms.md says when ring_hash and maglev are the better choice.
type clientHash struct {
	preference
	weighs []weigh // contiguous, since winner reads nothing else
}

// A weigh has the values that a member's score is computed from.
type weigh struct {
	hash    uint64
	inverse uint64 // of the weight, see scale
}

func newClientHash(members []candidate, o Options) Picker {
	c := &clientHash{preference: newPreference(members, o), weighs: make([]weigh, len(members))}
	for i := range c.members {
		c.weighs[i] = weigh{hash: c.members[i].hash, inverse: scale / uint64(c.members[i].weight)}
	}
	return c
}

// Pick returns the key's best member that may be picked.
func (c *clientHash) Pick(key uint64) int {
	// Loads are spread over memory, so only the winner's is read.
	if m := &c.members[c.winner(key)]; c.allows(m, key) {
		return m.index
	}
	return c.favourite(key)
}

// begin is how many members winner examines together before it goes through the rest; a power of two.
const begin = 16

// winner returns the rank of the member with the best score. A lower bound of a score is much cheaper than the score,
// and after the first few members hardly any bound is low enough to win.
//
// For the first few the processor would mispredict the branches, a third of the cost for ten members. So their lowest
// bound is found without branches; it mostly belongs to the winner, unless the second lowest is below its score.
func (c *clientHash) winner(key uint64) int {
	key = Mix(key)
	first := c.weighs[:min(begin, len(c.weighs))]
	lowest, second := uint64(math.MaxUint64), uint64(math.MaxUint64) // with the rank in the low bits
	for i := range first {
		bound := first[i].atLeast(key)*begin | uint64(i)
		second = min(second, max(lowest, bound))
		lowest = min(lowest, bound)
	}
	best, bestScore := c.better(key, 0, math.MaxUint64, int(lowest%begin))
	rest := len(first)
	if second/begin <= bestScore {
		rest = 0
	}
	for i := rest; i < len(c.weighs); i++ {
		if c.weighs[i].atLeast(key) <= bestScore {
			best, bestScore = c.better(key, best, bestScore, i)
		}
	}
	return best
}

// atLeast returns a bound below the member's score.
func (w *weigh) atLeast(key uint64) uint64 { return atLeast(fold(key^w.hash)) * w.inverse }

// better returns the rank and the score of the better one of the best so far and the member of the given rank.
func (c *clientHash) better(key uint64, best int, bestScore uint64, rank int) (int, uint64) {
	w := &c.weighs[rank]
	s := negLog(fold(key^w.hash)) * w.inverse
	if s < bestScore || s == bestScore && w.hash < c.weighs[best].hash {
		return rank, s
	}
	return best, bestScore
}

// scale divided by a weight is its inverse. negLog is below 2^39, so a score is below 2^63. atLeast is below 2^33, so a
// bound has room for a rank below begin.
const scale = 1 << 24

// score returns the distance of a member from a key; the least is best. It is -log2(u) / weight for a u drawn by key
// and member from 0 to 1, so the chance to be the least is the share of the weight.
func score(key, hash uint64, weight int64) uint64 {
	return negLog(fold(Mix(key)^hash)) * (scale / uint64(weight))
}

// fold mixes x, which is random already, by one multiplication, and combines the halves of the product. It takes half
// the time of Mix, and a pick needs one for every member (TestClientHashScoresAreIndependent).
func fold(x uint64) uint64 {
	high, low := bits.Mul64(x, 0x9e3779b97f4a7c15)
	return high ^ low
}

// negLog returns -log2(h / 2^64) in steps of 2^-32, in whole numbers: the floating point of two machines may differ in
// the last bit, and their fleet must not. Between the entries of its table it is linear, and so too large by 2^-22 at
// most and for a small result by no more than 2^-11 of it.
func negLog(h uint64) uint64 {
	zeros := uint(bits.LeadingZeros64(h | 1))
	mantissa := h << zeros << 1 // what follows the first 1
	at, within := mantissa>>(64-logBits), mantissa<<logBits>>32
	low, high := logTable[at], logTable[at+1]
	return uint64(zeros+1)<<32 - (low + (high-low)*within>>32)
}

// atLeast returns a lower bound of negLog(h) that is close to it where it is small: -log2(1-x) is at least x / ln 2,
// and negLog errs upwards only.
func atLeast(h uint64) uint64 { return (^h >> 32) * 0x17154765 >> 28 } // 0x1.7154765p0 is below 1 / ln 2

const logBits = 10

// logTable holds log2(1 + i/1024) in steps of 2^-32.
var logTable = makeLogTable()

// makeLogTable squares, which doubles a logarithm: each time the square reaches 2, the next bit of the logarithm is 1.
// All of it is in whole numbers, see negLog.
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
