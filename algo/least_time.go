package algo

import "math/rand/v2"

// leastTime draws two members by weight and takes the one that is expected to answer sooner: the average time to the
// first byte, times the leases it would then have, for its weight (peak EWMA, as in Finagle and Linkerd). It takes the
// better of two draws and not the best of all, since otherwise all sessions would go to the member with the best last
// answer.
//
// While either of the two has no time yet, leases decide, as in p2c: a newcomer is neither flooded nor avoided. Times
// fade, so a member that was slow is tried again; the clock for that is the State's, which each observation advances.
type leastTime struct {
	members []candidate
	table   aliasTable
	state   *State
}

func newLeastTime(members []candidate, o Options) Picker {
	return &leastTime{members: members, table: newAliasTable(members), state: o.State}
}

// Pick returns a member that is not full; the key does not matter.
func (p *leastTime) Pick(uint64) int {
	clock := p.state.clock.Load()
	for range tries {
		m := better(p.members, &p.table, func(a, b *candidate) bool {
			ta, tb := a.load.latency(clock), b.load.latency(clock)
			if ta == 0 || tb == 0 {
				return lessLoaded(a, b)
			}
			return ta*float32((a.load.Leases()+1)*b.load.weight(b.weight)) < tb*float32((b.load.Leases()+
				1)*a.load.weight(a.weight))
		})
		if m != nil {
			return m.index
		}
	}
	return withRoom(p.members, rand.Uint64())
}
