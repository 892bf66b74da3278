package algo

import "math"

// first picks the first member in the order given, and the next one when that is full. Weights do not matter to it.
//
// A pick reads one member, or where many are full the hints of their blocks (BenchmarkPick/first).
type first struct {
	blocks *blocks
}

func newFirst(members []candidate, _ Options) Picker {
	// With an infinite weight all members cost nothing, except full ones.
	return &first{blocks: newBlocks(members, func(*candidate) float32 { return float32(math.Inf(1)) })}
}

// Pick returns the first member that is not full; the key does not matter.
func (f *first) Pick(uint64) int {
	if m := &f.blocks.members[0]; !m.load.Full() {
		return m.index
	}
	return f.blocks.cheapest(0)
}
