package algo

import "math"

// A hashed is a candidate with the hash of its name, which the hashing algorithms use: it depends neither on the order
// of members nor on the machine.
type hashed struct {
	candidate
	hash uint64
}

// A preference is the common part of the hashing algorithms: which members may be picked, and which one to pick if the
// first choices may not.
type preference struct {
	members []hashed
	balance float64 // 0 without a bound
	total   *Total
	weights float64 // the sum of all
}

func newPreference(members []candidate, o Options) preference {
	p := preference{
		members: make([]hashed, len(members)), balance: o.Balance, total: o.Total,
		weights: float64(totalWeight(members)),
	}
	for i, m := range members {
		p.members[i] = hashed{candidate: m, hash: hashString(m.id)}
	}
	return p
}

// allows reports whether the member may be picked for the key: it is not full, it is within the bound, and if its
// weight still grows, the key falls into the part in force, which is fixed for each key.
func (p *preference) allows(m *hashed, key uint64) bool {
	l := m.load
	if l.Full() || l.withheld.Load() != 0 && !l.favoured(Mix(key^m.hash^shareSalt)) {
		return false
	}
	return p.balance == 0 || p.withinBound(m)
}

// shareSalt makes a key's chance with a growing weight independent of the member that the key falls on.
const shareSalt = 0x6c696d656c6f6164

// withinBound reports whether one more lease keeps the member within the bound: the balance times the mean, by weight,
// with that lease counted, rounded up. Some member always is.
func (p *preference) withinBound(m *hashed) bool {
	mean := float64(p.total.Leases()+1) * float64(m.weight) / p.weights
	return float64(m.load.Leases()+1) <= math.Ceil(p.balance*mean)
}

// favourite returns the index of the key's most preferred member among those that may be picked. The order of
// preference differs between keys and is the same on every machine. If no member may be picked, it ignores the bound
// and growing weights, which only concern shares. Limits always hold: if all members are at theirs, it returns -1.
func (p *preference) favourite(key uint64) int {
	if m := p.rank(key, func(m *hashed) bool { return p.allows(m, key) }); m != nil {
		return m.index
	}
	if m := p.rank(key, func(m *hashed) bool { return !m.load.Full() }); m != nil {
		return m.index
	}
	return -1
}

// rank returns the member with the best score for the key among those that may be picked, or nil. It calls may only for
// members that are better than all before.
func (p *preference) rank(key uint64, may func(*hashed) bool) *hashed {
	var best *hashed
	var bestScore uint64
	for i := range p.members {
		m := &p.members[i]
		s := score(key, m.hash, m.weight)
		if best != nil && (s > bestScore || s == bestScore && m.hash >= best.hash) {
			continue
		}
		if may(m) {
			best, bestScore = m, s
		}
	}
	return best
}
