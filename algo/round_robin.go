package algo

// roundRobin walks a table in which each member stands as often as its weight says, evenly mixed. It is immutable apart
// from the position, which it shares with earlier and later pickers.
//
// Between two picks of one member of weight w, each other member of weight v is picked v/w times, rounded up or down:
// weights 5, 1, 1 give a a b a a c a, never five of a in a row.
//
// A pick is one atomic add and one read of the table (BenchmarkPick/round_robin). The usual way, nginx's current weight
// per member, gives the same quality but must change all members under a lock at each pick.
type roundRobin struct {
	members []candidate
	table   []int32 // ranks of members; one period
	state   *State
}

func newRoundRobin(members []candidate, o Options) Picker {
	return &roundRobin{members: members, table: mixedTable(members), state: o.State}
}

// Pick returns the next member that is not full; the key does not matter.
func (r *roundRobin) Pick(uint64) int {
	var position uint64
	for range tries {
		position = r.state.next()
		if m := &r.members[r.table[position%uint64(len(r.table))]]; m.allows(Mix(position)) {
			return m.index
		}
	}
	return withRoom(r.members, Mix(position))
}

// An occurrence is one place of a member in the table: its k-th, counted from 0.
type occurrence struct {
	rank int32 // among the candidates
	k    int32
}

// mixedTable orders the occurrences of all members by their ideal times. In a period from 0 to 1, occurrence k of the
// member of rank i among n, of weight w, is due at (k + i/n) / w: so the occurrences of a member are evenly spaced, and
// the i/n keeps members of equal weight from being due at the same time. Members due at the same time are in the order
// of their ranks.
//
// It is a counting sort into as many buckets as there are occurrences, and so linear in the sum of the weights: 1 ms
// for 10,000 members of weights up to 10 (BenchmarkBuild), and 40 ms and 10 MB for the largest table of that many
// members, with 2,559,999 entries.
func mixedTable(members []candidate) []int32 {
	n := int64(len(members))
	var divisor, total int64
	for _, m := range members {
		divisor = gcd(divisor, m.weight)
	}
	for _, m := range members {
		total += m.weight / divisor
	}
	bucket := func(rank, k, weight int64) int64 { return (k*n + rank) * total / (n * weight) }

	ends := make([]int32, total) // of each bucket; first its size, then its start, at last its end
	for i, m := range members {
		w := m.weight / divisor
		for k := range w {
			ends[bucket(int64(i), k, w)]++
		}
	}
	var start int32
	for b, size := range ends {
		ends[b] = start
		start += size
	}
	order := make([]occurrence, total)
	for i, m := range members {
		w := m.weight / divisor
		for k := range w {
			b := bucket(int64(i), k, w)
			order[ends[b]] = occurrence{rank: int32(i), k: int32(k)}
			ends[b]++
		}
	}
	sortWithinBuckets(order, members)

	table := make([]int32, total)
	for at, o := range order {
		table[at] = o.rank
	}
	return table
}

// sortWithinBuckets finishes the sort that the buckets began. It is an insertion sort in which no occurrence leaves its
// bucket; a bucket has one occurrence on average, and each member at most once.
func sortWithinBuckets(order []occurrence, members []candidate) {
	n := int64(len(members))
	due := func(o occurrence) (num, den int64) { return int64(o.k)*n + int64(o.rank), members[o.rank].weight }
	for i := 1; i < len(order); i++ {
		o := order[i]
		num, den := due(o)
		j := i
		for ; j > 0; j-- {
			pnum, pden := due(order[j-1])
			// Both times have the factor divisor/n, which cancels out.
			if before, after := pnum*den, num*pden; before < after || before == after && order[j-1].rank < o.rank {
				break
			}
			order[j] = order[j-1]
		}
		order[j] = o
	}
}

// gcd returns the greatest common divisor; gcd(0, b) is b.
func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
