package algo

import (
	"math"
	"sync/atomic"
)

// blockSize is how many members share a hint: about the square root of the largest pools, so that a search reads about
// as many hints as members. A smaller set of members needs no hints.
const blockSize = 64

// full is the cost of a member that must not be picked, above all others.
const full = math.MaxUint32

// costOf returns the cost of one more lease on the member, (leases + 1) / weight, as the bits of a float32. For
// positive numbers these bits compare as the numbers do. Equal fractions are equal, and others differ as long as each
// member has fewer than some 100,000 leases.
func costOf(l *Load, weight float32) uint32 {
	n := l.Leases()
	if limit := l.limit.Load(); limit != 0 && n >= limit {
		return full
	}
	if withheld := l.withheld.Load(); withheld != 0 {
		weight *= float32(fullShare-withheld) / fullShare
	}
	return math.Float32bits(float32(n+1) / weight)
}

// blocks finds the cheapest of many members without reading them all. The members are divided into blocks. Each block
// has a hint, a lower bound of its members' costs. A search reads only the block with the lowest hint, which is mostly
// enough, and sets that hint to the cost that it found. An acquired lease leaves a hint too low, which costs an extra
// search and causes no mistake; a released one lowers its block's hint, through the member's seat.
//
// Invariant: once all releases and searches under way have ended, no member costs less than its block's hint.
type blocks struct {
	members []candidate
	weights []float32 // as costOf takes them
	hints   []hint    // nil for a single block
}

// A hint is the bound of one block: a uint32 below, and above it a number that every release raises, so that a search
// that read the members before the release cannot overwrite the hint behind it.
type hint struct{ bits atomic.Uint64 }

// A seat is a member's place in the blocks.
type seat struct {
	hint   *hint
	weight float32
}

// newBlocks gives the members their seats: from now on, their loads report released leases. Costs are divided by
// weight.
func newBlocks(members []candidate, weight func(*candidate) float32) *blocks {
	b := &blocks{members: members, weights: make([]float32, len(members))}
	for i := range members {
		b.weights[i] = weight(&members[i])
	}
	if len(members) <= blockSize {
		return b
	}
	b.hints = make([]hint, (len(members)+blockSize-1)/blockSize)
	for i := range members { // the hints are 0, which holds for any member
		members[i].load.seat.Store(&seat{hint: &b.hints[i/blockSize], weight: b.weights[i]})
	}
	return b
}

// lower lowers the hint of the member's block to the member's new cost.
func (s *seat) lower(l *Load) {
	cost := costOf(l, s.weight)
	for {
		old := s.hint.bits.Load()
		if s.hint.bits.CompareAndSwap(old, (old>>32+1)<<32|uint64(min(cost, uint32(old)))) {
			return
		}
	}
}

// searches is how many blocks a pick searches before it takes the best member found so far, if any. One or two are
// enough unless other threads acquire and release at the same time.
const searches = 8

// cheapest returns the index of the cheapest member, or -1 if all are full. Of several equal ones it returns the first
// from start on, so that a moving start spreads the picks.
func (b *blocks) cheapest(start uint64) int {
	if b.hints == nil {
		return b.chosen(b.search(0, len(b.members), start))
	}
	n := uint64(len(b.hints))
	best, bestCost := -1, uint32(full)
	// While none is found it continues: after a build all hints are 0, and any number of blocks may be full.
	for i := 0; i < searches || best < 0 && i < searches+len(b.hints); i++ {
		block, seen, others := b.lowestHint(int(start % n))
		if uint32(seen) >= bestCost { // also when all are full
			break
		}
		from := block * blockSize
		at, cost := b.search(from, min(from+blockSize, len(b.members)), start/n)
		if cost != uint32(seen) {
			b.hints[block].bits.CompareAndSwap(seen, seen>>32<<32|uint64(cost))
		}
		if cost < bestCost {
			best, bestCost = at, cost
		}
		if cost <= others {
			break
		}
	}
	return b.chosen(best, bestCost)
}

// lowestHint returns the first block after start that has the lowest hint, that hint, and the lowest of all others.
func (b *blocks) lowestHint(start int) (block int, seen uint64, others uint32) {
	block, seen, others = start, b.hints[start].bits.Load(), full
	look := func(from int, hints []hint) {
		for i := range hints {
			bits := hints[i].bits.Load()
			switch bound := uint32(bits); {
			case bound < uint32(seen):
				others = uint32(seen)
				block, seen = from+i, bits
			case bound < others:
				others = bound
			}
		}
	}
	look(start+1, b.hints[start+1:])
	look(0, b.hints[:start])
	return block, seen, others
}

// search returns the cheapest of the members from one index to another, the first from start on if there are several,
// and its cost.
func (b *blocks) search(from, to int, start uint64) (at int, cost uint32) {
	middle := from + int(start%uint64(to-from))
	at, cost = -1, full
	for _, part := range [2][2]int{{middle, to}, {from, middle}} {
		for i := part[0]; i < part[1]; i++ {
			if c := costOf(b.members[i].load, b.weights[i]); c < cost {
				at, cost = i, c
			}
		}
	}
	return at, cost
}

func (b *blocks) chosen(at int, cost uint32) int {
	if cost == full {
		return -1
	}
	return b.members[at].index
}
