package pool

import (
	"hash/fnv"
	"slices"
	"strconv"

	"github.com/limeload/limeload-l4/algo"
)

// maxNamed is how many backends that are not eligible a Digest names.
const maxNamed = 8

// A Digest stands for what a pool chooses at one moment, so that balancers can compare theirs. Its sums depend neither
// on the order in which backends were added nor on the machine. Limits, trials of breakers, a slow start and stickiness
// do not count. It is a plain value.
type Digest struct {
	Algorithm string
	Zone      string // that the pool prefers; pools of different zones choose differently
	Backends  int
	Eligible  int
	Members   uint64 // the sum of the eligible backends: their names, addresses and tiers
	Weights   uint64 // the sum of their weights
	Choices   uint64 // the sum of the tables that the algorithm chooses by; 0 if it does not hash
	// the first names, in alphabetical order, of backends that are not eligible
	Ineligible []string
}

// Digest returns the digest of the pool as it is now. After a change of the eligible backends it reads their whole
// table, which takes milliseconds for thousands of backends. It may be called from any goroutine.
func (p *Pool) Digest() Digest {
	s := p.snap.Load()
	d := Digest{Algorithm: s.settings.Algorithm, Zone: s.settings.Zone, Backends: len(s.members), Eligible: s.eligible}
	hashes := false
	for _, t := range s.tiers {
		sums := t.sums()
		place := uint64(t.group.tier) << 1
		if t.group.other {
			place++
		}
		d.Members += algo.Mix(sums.members ^ place)
		d.Weights += algo.Mix(sums.weights ^ place)
		d.Choices = algo.Mix(d.Choices ^ sums.choices ^ place)
		hashes = hashes || sums.hashes
	}
	if hashes {
		d.Choices = algo.Mix(d.Choices ^ s.settings.keySum())
	} else {
		d.Choices = 0
	}
	d.Ineligible = s.ineligible()
	return d
}

// ineligible returns the names of Digest.Ineligible.
func (s *snapshot) ineligible() []string {
	if s.eligible == len(s.members) {
		return nil
	}
	in := make(map[*Backend]bool, s.eligible)
	for _, t := range s.tiers {
		for _, b := range t.backends {
			in[b] = true
		}
	}
	var names []string
	for _, m := range s.members {
		if !in[m.backend] {
			names = append(names, m.backend.id)
		}
	}
	slices.Sort(names)
	return slices.Clone(names[:min(len(names), maxNamed)])
}

// keySum stands for what the key of a client is made of.
func (s *settings) keySum() uint64 {
	var sum uint64
	if s.HashName {
		sum = uint64(s.NamedBy) + 2
	}
	if s.HashPort {
		sum = sum<<1 | 1
	}
	return sum
}

// tierSums are the sums of one tier.
type tierSums struct {
	members, weights, choices uint64
	hashes                    bool
}

// sums returns the sums of the tier, which never change.
func (t *tier) sums() *tierSums {
	if known := t.summed.Load(); known != nil {
		return known
	}
	s := new(tierSums)
	for i, b := range t.backends {
		id := sumOf(b.id)
		s.members += algo.Mix(id ^ algo.Mix(sumOf(b.addr.String())))
		s.weights += algo.Mix(id ^ uint64(t.weights[i]))
	}
	s.choices, s.hashes = algo.Sum(t.picker)
	t.summed.Store(s)
	return s
}

// sumOf returns a number that stands for a text, the same on every machine.
func sumOf(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strconv.Itoa(len(text)) + " " + text))
	return algo.Mix(h.Sum64())
}
