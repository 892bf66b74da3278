package algo

import "slices"

// tableSizes returns the primes that a table's size is chosen from, the first one that has 100 entries for each member;
// the paper asks for that to keep shares within 1 % of each other. It depends on the number of members alone: a change
// moves few keys unless it leads to another size, beyond 655, 2,621 and 10,485 members.
func tableSizes() []int { return []int{65537, 262147, 1048583, 4194319} }

// maglev looks a key up in a table in which each member stands as often as its weight says, to within one entry for
// equal weights (Eisenbud et al.: Maglev, NSDI 2016, 3.4, with weights by turns). Of all hashing algorithms it has the
// most even shares, and a pick reads one entry. In return, a change moves a few more keys than those of the changed
// member; docs/algorithms.md says how many (TestMaglevMovesFewKeys).
type maglev struct {
	preference
	table []int32 // ranks
}

func newMaglev(members []candidate, o Options) Picker {
	m := &maglev{preference: newPreference(members, o)}
	sizes := tableSizes()
	size := sizes[len(sizes)-1]
	for _, s := range slices.Backward(sizes) {
		if s >= 100*len(members) {
			size = s
		}
	}
	m.fill(size)
	return m
}

// A walker is a member's position in its permutation of the table, where it looks next for a free entry.
type walker struct {
	rank   int32
	at     uint32
	skip   uint32
	weight int32
	credit int32 // of weights; a turn costs the largest of all
}

// fill gives the members turns in the order of their hashes, so that the table does not depend on the order of members.
// In each round a member of weight w has w/max of a turn; in a turn it takes the next entry of its permutation that is
// still free.
func (m *maglev) fill(size int) {
	m.table = make([]int32, size)
	for i := range m.table {
		m.table[i] = -1
	}
	walkers := make([]walker, len(m.members))
	var most int32
	for i := range m.members {
		c := &m.members[i]
		second := Mix(c.hash ^ shareSalt)
		walkers[i] = walker{
			rank: int32(i), weight: int32(c.weight),
			at: uint32(c.hash % uint64(size)), skip: uint32(second%uint64(size-1)) + 1,
		}
		most = max(most, walkers[i].weight)
	}
	slices.SortFunc(walkers, func(a, b walker) int {
		if m.members[a.rank].hash < m.members[b.rank].hash {
			return -1
		}
		return 1
	})
	for left := size; left > 0; {
		for i := range walkers {
			w := &walkers[i]
			if w.credit += w.weight; w.credit < most {
				continue
			}
			w.credit -= most
			for m.table[w.at] >= 0 {
				w.step(uint32(size))
			}
			m.table[w.at] = w.rank
			w.step(uint32(size))
			if left--; left == 0 {
				break
			}
		}
	}
}

func (w *walker) step(size uint32) {
	if w.at += w.skip; w.at >= size {
		w.at -= size
	}
}

// Pick returns the key's member, or if that may not be picked, the member of a following entry.
func (m *maglev) Pick(key uint64) int {
	at := int(Mix(key) % uint64(len(m.table)))
	for range tries {
		if c := &m.members[m.table[at]]; m.allows(c, key) {
			return c.index
		}
		if at++; at == len(m.table) {
			at = 0
		}
	}
	return m.favourite(key)
}
