// Package algo chooses one member of a set: one file per algorithm, each built once for one immutable membership.
//
// It knows nothing of sockets, health or the time of day. The caller decides which members may be chosen, and builds a
// new [Picker] whenever the membership or a weight changes; a [State] holds what must outlive that. Values that change
// from one session to the next (leases, limits, a growing weight, times) are read live through each member's [Load].
//
// [Build] and [Kinds] are not for the hot path. [Picker.Pick] and the methods of [Load] are the hot path: any goroutine
// may call them at any time.
package algo

import (
	"fmt"
	"strings"
)

// MaxWeight is the largest weight of a member. It keeps the table of round_robin at 256 entries per member.
const MaxWeight = 256

// A Member is one candidate of a picker.
// It is a plain value; Build copies what it needs of it and keeps the pointer to its Load.
type Member struct {
	ID     string // stable name, the same on every machine; the hashing algorithms use it
	Weight uint32 // share relative to the other members, 0 to MaxWeight
	Load   *Load  // never nil; shared with the code that counts the leases
}

// A Picker chooses among the members it was built for.
//
// Pick returns an index into those members, and -1 only when there is none or each is at the limit of its Load. It may
// be called from any goroutine; it never allocates, blocks or spins. The key identifies the client: algorithms that
// hash give the same key the same member, the others ignore it.
//
// A member of weight 0 is picked only when all members have weight 0, and then all have equal shares. A member at its
// limit is skipped.
type Picker interface {
	Pick(key uint64) int
}

// Options are the settings of Build. The zero value is usable.
type Options struct {
	// State is carried from one build to the next of the same set; nil starts anew.
	State *State
	// Balance bounds the loads of the hashing algorithms: no member gets a lease that would take it above this multiple
	// of the mean, by weight, rounded up (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, SODA
	// 2018). 0 is no bound; otherwise it is above 1. The other algorithms ignore it.
	Balance float64
	// Total is the Total that the members' loads have joined. It is required with Balance, and ignored without.
	Total *Total
}

// A Kind describes one algorithm: its name in the configuration, its use in one sentence, and properties.
type Kind struct {
	Name string
	Use  string

	Hash    bool // it hashes the key; Options.Balance applies
	Ordered bool // it goes by the members' order: the next member replaces one that cannot be picked
	Drawn   bool // it draws at random; the next pick of other algorithms can be predicted
	Timed   bool // it uses the times of Load.ObserveConnect and ObserveFirstByte
}

// kind is one row of the registry.
type kind struct {
	Kind
	build func(members []candidate, o Options) Picker
}

// registry lists the algorithms in the order of the documentation.
func registry() []kind {
	return []kind{
		{Kind{Name: "round_robin", Use: "turns by weight, evenly mixed; for short sessions that cost about the same"},
			newRoundRobin},
		{Kind{Name: "random", Use: "a draw by weight for each session; where many balancers must not fall into step",
			Drawn: true}, newRandom},
		{Kind{Name: "least_conn", Use: "the fewest sessions for its weight; for long sessions, such as a database's"},
			newLeastConn},
		{Kind{Name: "p2c", Use: "the less loaded of two draws; nearly as even as least_conn, for many backends or balancers", Drawn: true}, newP2C},
		{Kind{Name: "least_time",
			Use:   "of two draws the sooner to answer for its load; for backends of unequal or changing speed",
			Drawn: true, Timed: true}, newLeastTime},
		{Kind{Name: "first", Use: "the first in order, the next when it is full; for a primary and its stand-ins",
			Ordered: true}, newFirst},
		{Kind{Name: "client_hash",
			Use: "a client keeps its backend, only a removed one's move; for up to some hundred backends", Hash: true},
			newClientHash},
		{Kind{Name: "ring_hash",
			Use: "the same on a ring of points; for many backends, where nobody else's clients may move", Hash: true},
			newRingHash},
		{Kind{Name: "maglev", Use: "the same by a table; the evenest and the fastest, but a change moves a few clients more", Hash: true}, newMaglev},
	}
}

// Kinds returns the known algorithms, for error texts and documentation. The slice is the caller's.
func Kinds() []Kind {
	var kinds []Kind
	for _, k := range registry() {
		kinds = append(kinds, k.Kind)
	}
	return kinds
}

// KindOf returns the algorithm of that name, or the zero value if there is none.
func KindOf(name string) Kind {
	for _, k := range registry() {
		if k.Name == name {
			return k.Kind
		}
	}
	return Kind{}
}

// An UnknownKindError says that no algorithm has the name asked for.
type UnknownKindError struct {
	Kind  string   // what was asked for
	Known []string // what there is
}

// Error names the algorithm asked for and those that exist.
func (e *UnknownKindError) Error() string {
	return fmt.Sprintf("unknown algorithm %q (known: %s)", e.Kind, strings.Join(e.Known, ", "))
}

// Build makes the picker of the given kind for members, which it does not keep. Its only error is an *UnknownKindError.
// members may be empty: Pick then returns -1. Build panics on a caller's bug: a member without a Load or heavier than
// MaxWeight, or a Balance without a Total or of 1 or less.
//
// A Load fully serves only the picker that was built last with it: least_conn and first learn through it of released
// leases, and an older picker may overlook a member that became free.
func Build(kindName string, members []Member, o Options) (Picker, error) {
	if o.State == nil {
		o.State = new(State)
	}
	if o.Balance != 0 && (!(o.Balance > 1) || o.Total == nil) {
		panic(fmt.Sprintf("algo: balance %v with total %v", o.Balance, o.Total))
	}
	var known []string
	for _, k := range registry() {
		if k.Name != kindName {
			known = append(known, k.Name)
			continue
		}
		c := candidates(members)
		for i := range c { // left by an earlier picker of another kind
			if l := c[i].load; l.seat.Load() != nil {
				l.seat.Store(nil)
			}
		}
		if len(c) == 0 {
			return nobody{}, nil
		}
		return k.build(c, o), nil
	}
	return nil, &UnknownKindError{Kind: kindName, Known: known}
}

// A candidate is a member that can be picked.
type candidate struct {
	load   *Load
	weight int64
	index  int // into the members given to Build
	id     string
}

// candidates returns the members of positive weight, or, if there are none, all members with weight 1.
func candidates(members []Member) []candidate {
	var weighted int
	for i := range members {
		m := &members[i]
		if m.Load == nil || m.Weight > MaxWeight {
			panic(fmt.Sprintf("algo: member %q has no load or weight %d above %d", m.ID, m.Weight, MaxWeight))
		}
		if m.Weight > 0 {
			weighted++
		}
	}
	c := make([]candidate, 0, len(members))
	for i, m := range members {
		switch {
		case weighted == 0:
			c = append(c, candidate{index: i, weight: 1, load: m.Load, id: m.ID})
		case m.Weight > 0:
			c = append(c, candidate{index: i, weight: int64(m.Weight), load: m.Load, id: m.ID})
		}
	}
	return c
}

// totalWeight returns the sum of the candidates' weights.
func totalWeight(members []candidate) (sum int64) {
	for i := range members {
		sum += members[i].weight
	}
	return sum
}

// allows reports whether the member may be picked: it is not full, and if its weight still grows, chance, 64 random
// bits, falls into the part of the weight that is in force. So a member at a quarter of its weight refuses three picks
// of four, which gives all members the right shares for every algorithm, without a new table.
func (c *candidate) allows(chance uint64) bool {
	return !c.load.Full() && c.load.favoured(chance)
}

// withRoom returns the first member from start on, which may be any number, that is not full, or -1. Algorithms use it
// when their first few tries found only full or slow-starting members.
func withRoom(members []candidate, start uint64) int {
	n := len(members)
	at := int(start % uint64(n))
	for range n {
		if !members[at].load.Full() {
			return members[at].index
		}
		if at++; at == n {
			at = 0
		}
	}
	return -1
}

// tries is how many members a pick tries before it searches all of them. If half of them are full, one pick in 65,000
// gets that far.
const tries = 16

// nobody is the picker of no members, so that the algorithms need not handle that case.
type nobody struct{}

// Pick returns -1.
func (nobody) Pick(uint64) int { return -1 }
