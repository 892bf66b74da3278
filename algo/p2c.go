package algo

import "math/rand/v2"

// p2c draws two members by weight and takes the one with fewer leases for its weight: the power of two choices
// (Mitzenmacher 2001). Its fullest member holds hardly more than the mean, where random's holds some times the root of
// the mean more, and unlike least_conn no number of balancers that choose at once all choose the same member. A new
// member gets at most the sessions whose draws include it, twice its share.
//
// A pick is two draws and four loads, whatever the number of members (BenchmarkPick/p2c).
type p2c struct {
	members []candidate
	table   aliasTable
}

func newP2C(members []candidate, _ Options) Picker {
	return &p2c{members: members, table: newAliasTable(members)}
}

// Pick returns a member that is not full; the key does not matter.
func (p *p2c) Pick(uint64) int {
	for range tries {
		if m := better(p.members, &p.table, lessLoaded); m != nil {
			return m.index
		}
	}
	return withRoom(p.members, rand.Uint64())
}

// better draws two different members, if there are two, and returns the one that less prefers. If it prefers neither,
// that is the first one drawn, so that equal members keep the shares of their weights. If one is full it returns the
// other, and nil if both are.
func better(members []candidate, t *aliasTable, less func(a, b *candidate) bool) *candidate {
	i, j := t.drawn(members), t.drawn(members)
	if i == j {
		j = t.drawn(members)
	}
	if i == j { // a member that outweighs all others: any other will do
		if j = i + 1; j == len(members) {
			j = 0
		}
	}
	a, b := &members[i], &members[j]
	switch {
	case a.load.Full() && b.load.Full():
		return nil
	case a.load.Full():
		return b
	case !b.load.Full() && less(b, a):
		return b
	}
	return a
}

// lessLoaded compares leases by weight. Unlike least_conn's cost it leaves the new lease out: among idle members the
// draw has counted the weights already.
func lessLoaded(a, b *candidate) bool {
	return a.load.Leases()*b.load.weight(b.weight) < b.load.Leases()*a.load.weight(a.weight)
}
