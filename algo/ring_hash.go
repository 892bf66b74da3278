package algo

import "math/bits"

// pointsPerWeight is how many points of the ring a unit of weight has, as many as in nginx. With 160, the share of a
// member of weight 1 is off by 8 % (one standard deviation); by 2.5 % for weight 10.
const pointsPerWeight = 160

// maxPoints bounds a ring to 16 MiB. With a total weight above 13,107 a unit of weight has 80 points, above 26,214 it
// has 40, and so on. The number depends on nothing else, so that a change moves only the keys of the changed member
// unless it crosses one of these marks.
const maxPoints = 2 << 20

// ringHash puts each member on a ring at many places, by its weight, and gives a key to the first place after its own:
// the consistent hashing of Karger et al. (1997) in the manner of libketama. A removed member's keys move to the next
// places, which belong to various members, and no other key moves.
//
// A pick reads an index by the key's upper bits, and a few neighbouring points (BenchmarkPick/ring_hash).
type ringHash struct {
	preference
	points []point // in the order of their places
	starts []int32 // the first point at or after each prefix of a place
	shift  uint    // turns a place into its prefix
}

// A point is a place on the ring and the rank of the member that has it.
type point struct {
	place uint32
	rank  int32
}

func newRingHash(members []candidate, o Options) Picker {
	r := &ringHash{preference: newPreference(members, o)}
	total := totalWeight(members)
	each := int64(pointsPerWeight)
	for each > 1 && each*total > maxPoints {
		each /= 2
	}
	n := each * total
	indexBits := uint(min(bits.Len64(uint64(n)), 24)) // one or two points for an entry
	r.shift = 32 - indexBits
	r.starts = make([]int32, 1<<indexBits+1)
	r.points = make([]point, n)
	r.each(each, func(p point) { r.starts[p.place>>r.shift+1]++ })
	for i := range r.starts[1:] {
		r.starts[i+1] += r.starts[i]
	}
	next := append([]int32(nil), r.starts...)
	r.each(each, func(p point) {
		at := &next[p.place>>r.shift]
		r.points[*at] = p
		*at++
	})
	r.sortPoints()
	return r
}

// each calls f for every point.
func (r *ringHash) each(perWeight int64, f func(point)) {
	for rank := range r.members {
		m := &r.members[rank]
		for i := range perWeight * m.weight {
			f(point{place: uint32(Mix(m.hash+uint64(i)*0x9e3779b97f4a7c15) >> 32), rank: int32(rank)})
		}
	}
}

// sortPoints finishes the sort that the index began: an insertion sort in which no point leaves its entry. Points at
// the same place are in the order of their members' hashes, whatever the order of members.
func (r *ringHash) sortPoints() {
	before := func(a, b point) bool {
		return a.place < b.place || a.place == b.place && r.members[a.rank].hash < r.members[b.rank].hash
	}
	for i := 1; i < len(r.points); i++ {
		p := r.points[i]
		j := i
		for ; j > 0 && before(p, r.points[j-1]); j-- {
			r.points[j] = r.points[j-1]
		}
		r.points[j] = p
	}
}

// Pick returns the member of the next place after the key's, or if that may not be picked, of a following place.
func (r *ringHash) Pick(key uint64) int {
	place := uint32(Mix(key) >> 32)
	at := int(r.starts[place>>r.shift])
	for at < len(r.points) && r.points[at].place < place {
		at++
	}
	for range tries {
		if at == len(r.points) {
			at = 0
		}
		if m := &r.members[r.points[at].rank]; r.allows(m, key) {
			return m.index
		}
		at++
	}
	return r.favourite(key)
}
