package algo

import (
	"math/bits"
	"math/rand/v2"
)

// An aliasTable draws members by their weights with one random number and one comparison, however many there are
// (Walker 1977, in Vose's form of 1991). Each column stands for 1/n of all draws; below its threshold lies the column's
// own member, above it the alias.
type aliasTable struct {
	columns []column
}

type column struct {
	threshold uint64 // of 2^64
	alias     int32
}

// newAliasTable takes time linear in the number of members. The table is exact apart from rounding to 64 bits.
func newAliasTable(members []candidate) aliasTable {
	n, total := uint64(len(members)), uint64(totalWeight(members))
	// A weight in n-ths of the total: total is one column's worth. At most 2^24 x 256 x 2^24, so far from an overflow.
	left := make([]uint64, n)
	var small, large []int32
	for i := range members {
		left[i] = uint64(members[i].weight) * n
		if left[i] < total {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	t := aliasTable{columns: make([]column, n)}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		threshold, _ := bits.Div64(left[s], 0, total)
		t.columns[s] = column{threshold: threshold, alias: l}
		left[l] -= total - left[s]
		if left[l] < total {
			large, small = large[:len(large)-1], append(small, l)
		}
	}
	for _, i := range large { // exactly full columns; the sum leaves no small ones
		t.columns[i] = column{alias: i}
	}
	return t
}

// draw returns the rank of a member drawn by weight. The generator is the runtime's, one for each thread: no lock.
func (t *aliasTable) draw() int {
	at, within := bits.Mul64(rand.Uint64(), uint64(len(t.columns)))
	if c := &t.columns[at]; within >= c.threshold {
		return int(c.alias)
	}
	return int(at)
}

// drawn draws until it gets a member whose weight is fully in force or, if it grows, happens to allow the pick, a few
// times at most.
func (t *aliasTable) drawn(members []candidate) int {
	for range tries {
		i := t.draw()
		if l := members[i].load; l.withheld.Load() == 0 || l.favoured(rand.Uint64()) {
			return i
		}
	}
	return t.draw()
}
