package algo

import "math"

// A hashed member is a candidate as the hashing algorithms see it: by a hash of its name, so that neither its place in
// the list nor the machine matters.
type hashed struct {
	candidate
	hash uint64
}

// A preference is what the hashing algorithms share: which member may be taken, and whom to take when the first choices
// may not.
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
		p.members[i] = hashed{candidate: m, hash: HashString(m.id)}
	}
	return p
}

// admits reports whether the member may be picked for the key: it is not full, at a grown weight the key falls into its
// part, always the same way, and within the bound.
func (p *preference) admits(m *hashed, key uint64) bool {
	l := m.load
	if l.Full() || l.withheld.Load() != 0 && !l.favoured(Mix(key^m.hash^shareSalt)) {
		return false
	}
	return p.balance == 0 || p.withinBound(m)
}

// shareSalt makes a key's luck with a growing weight independent of where the key falls.
const shareSalt = 0x6c696d656c6f6164

// withinBound reports whether one more lease leaves the member within the bound: at most the balance times the mean
// with that lease counted, by weight, rounded up. Some member always is.
func (p *preference) withinBound(m *hashed) bool {
	mean := float64(p.total.Leases()+1) * float64(m.weight) / p.weights
	return float64(m.load.Leases()+1) <= math.Ceil(p.balance*mean)
}

// favourite returns the index of the member that the key prefers among those that may be picked: the order is the same
// on every machine and for each key another. When none may, the first reasons to go are the bound and a growing weight,
// which are about shares; a limit holds, and when all are at theirs it returns -1.
func (p *preference) favourite(key uint64) int {
	if m := p.rank(key, func(m *hashed) bool { return p.admits(m, key) }); m != nil {
		return m.index
	}
	if m := p.rank(key, func(m *hashed) bool { return !m.load.Full() }); m != nil {
		return m.index
	}
	return -1
}

// rank returns the member of the best score for the key among those that may be picked, or nil. Whether one may is
// asked only of those that are better than all before.
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
