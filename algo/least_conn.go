package algo

// leastConn picks the member with the fewest leases for its weight: the smallest (leases + 1) / weight, that is, the
// one that would be least loaded with the new lease on it. Leases count from the pick, so a session still connecting is
// seen.
//
// It is exact, and yet reads few of many members; see blocks. Concurrent picks may see the same loads and then agree;
// the start that moves on with each pick lets them agree on different members when several are equal, which after a
// restart is all of them. What it costs is in docs/algorithms.md (BenchmarkPick/least_conn, BenchmarkChurn).
type leastConn struct {
	blocks *blocks
	state  *State
}

func newLeastConn(members []candidate, o Options) Picker {
	return &leastConn{blocks: newBlocks(members, func(c *candidate) float32 { return float32(c.weight) }),
		state: o.State}
}

// Pick returns the least loaded member that is not full; the key does not matter.
func (l *leastConn) Pick(uint64) int { return l.blocks.cheapest(l.state.next()) }
