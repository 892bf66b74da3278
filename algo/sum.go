package algo

import (
	"cmp"
	"math"
	"slices"
)

// Sum returns a number that stands for all choices of a picker of an algorithm that hashes. Two pickers with the same
// sum give each key the same member, but for one chance in 2^64, while no member is at its limit. It depends neither on
// the order of the members nor on the machine, so that the balancers of a fleet can compare what they do. It returns
// false for the other algorithms.
//
// It reads the whole table, which takes milliseconds for thousands of members.
func Sum(p Picker) (sum uint64, hashes bool) {
	t, hashes := p.(interface{ sum() uint64 })
	if !hashes {
		return 0, false
	}
	return t.sum(), true
}

// sum covers the names and weights of the members and the bound, which decide about a key whose first choices may not be
// picked.
func (p *preference) sum() uint64 {
	members := slices.Clone(p.members)
	slices.SortFunc(members, func(a, b hashed) int { return cmp.Compare(a.hash, b.hash) })
	h := Mix(math.Float64bits(p.balance))
	for i := range members {
		h = Mix(Mix(h^members[i].hash) ^ uint64(members[i].weight))
	}
	return h
}

// sum covers each entry of the table.
func (m *maglev) sum() uint64 {
	h := m.preference.sum()
	for _, rank := range m.table {
		h = Mix(h ^ m.members[rank].hash)
	}
	return h
}

// sum covers each point of the ring.
func (r *ringHash) sum() uint64 {
	h := r.preference.sum()
	for _, p := range r.points {
		h = Mix(h ^ r.members[p.rank].hash ^ uint64(p.place))
	}
	return h
}
