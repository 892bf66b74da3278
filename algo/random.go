package algo

import "math/rand/v2"

// random draws a member by weight, independently each time.
//
// A pick is one random number and one entry of an alias table (BenchmarkPick/random). Shares follow the weights on
// average only: of N sessions, a member of share s gets N s, plus or minus three times the root of N s (1-s).
type random struct {
	members []candidate
	table   aliasTable
}

func newRandom(members []candidate, _ Options) Picker {
	return &random{members: members, table: newAliasTable(members)}
}

// Pick returns a member that is not full; the key does not matter.
func (r *random) Pick(uint64) int {
	for range tries {
		if m := &r.members[r.table.drawn(r.members)]; !m.load.Full() {
			return m.index
		}
	}
	return withRoom(r.members, rand.Uint64())
}
