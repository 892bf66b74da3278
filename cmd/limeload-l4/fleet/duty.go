package fleet

import (
	"cmp"
	"slices"

	"github.com/limeload/limeload-l4/algo"
)

// Duties returns the k nodes that have a duty, such as the check of a backend, the first of them first; all nodes if
// there are no more than k. It depends on the names and the key only, not on the order of nodes, so all nodes that know
// the same names agree. When a node leaves, its duties move to others and no other duty moves; when a node comes, only
// the duties that it gets move.
//
// It is rendezvous hashing (Thaler, Ravishankar 1998): the k nodes of the highest weight have the duty. A node's weight
// is Mix(FNV1a(name) XOR Mix(FNV1a(key))), with 64-bit FNV-1a and algo.Mix. This is fixed for ever, since nodes of
// different versions must agree.
func Duties(nodes []string, key string, k int) []string {
	salt := algo.Mix(fnv1a(key))
	best := make([]candidate, 0, max(0, min(k, len(nodes)))+1)
	for _, name := range nodes { // k is small: it takes less time to insert than to sort all
		c := candidate{name, weight(name, salt)}
		i, twice := slices.BinarySearchFunc(best, c, candidate.compare)
		if i >= k || twice {
			continue
		}
		best = slices.Insert(best[:min(len(best), k-1)], i, c)
	}
	chosen := make([]string, len(best))
	for i, c := range best {
		chosen[i] = c.name
	}
	return chosen
}

// A candidate is a node that may have a duty.
type candidate struct {
	name   string
	weight uint64
}

// compare is negative if c comes before another candidate.
func (c candidate) compare(other candidate) int {
	return cmp.Or(cmp.Compare(other.weight, c.weight), cmp.Compare(c.name, other.name))
}

// rank returns how many nodes come before this one in the order of a duty. This one need not be among them.
func rank(nodes []string, node, key string) (before int) {
	salt := algo.Mix(fnv1a(key))
	own := candidate{node, weight(node, salt)}
	for _, name := range nodes {
		if (candidate{name, weight(name, salt)}).compare(own) < 0 {
			before++
		}
	}
	return before
}

func weight(name string, salt uint64) uint64 { return algo.Mix(fnv1a(name) ^ salt) }

// fnv1a returns the 64-bit FNV-1a hash of s. Package hash/fnv would allocate for each node of each key.
func fnv1a(s string) uint64 {
	const offset, prime = 0xcbf29ce484222325, 0x100000001b3 // RFC 9923, 2.1
	h := uint64(offset)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return h
}
