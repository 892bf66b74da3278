// Package algo chooses one member of a set: one file per algorithm, each built once for one immutable membership.
//
// It knows nothing of sockets, health or the time of day. Who may be chosen at all is decided by the caller, who
// builds a new [Picker] whenever the membership or a weight changes; what must outlive that is kept in a [State].
//
// [Build] and [Kinds] are for the writer's side. [Picker.Pick] and the methods of [Load] are the hot path: any
// goroutine may call them at any time.
package algo

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// MaxWeight is the largest weight of a member. It keeps the table of round_robin at 256 entries per member.
const MaxWeight = 256

// A Member is one candidate of a picker.
// It is a plain value; Build copies what it needs of it and keeps the pointer to its Load.
type Member struct {
	ID     string // stable name, the same on every machine
	Weight uint32 // share relative to the other members, 0 to MaxWeight
	Load   *Load  // never nil; shared with whoever counts the leases
}

// A Picker chooses among the members it was built for.
//
// Pick returns an index into those members, and -1 only when there is none. It may be called from any goroutine; it
// never allocates, blocks or spins. The key says who asks: algorithms that hash give the same key the same member, the
// others ignore it.
//
// A member of weight 0 is picked only when all are of weight 0, and then all alike.
type Picker interface {
	Pick(key uint64) int
}

// A State holds what must outlive a rebuild of a picker: the position of round_robin and the start of least_conn's scan.
// Its zero value is ready to use, and it is safe for concurrent use. It must not be copied.
type State struct {
	position atomic.Uint64
}

// next returns a position that no other caller gets until the counter has gone round.
func (s *State) next() uint64 { return s.position.Add(1) - 1 }

// Options are the settings of Build. The zero value is usable.
type Options struct {
	// State is carried from one build to the next of the same set; nil starts anew.
	State *State
}

// A Kind describes one algorithm: its name in the configuration and, in a sentence, what it is for.
type Kind struct {
	Name string
	Use  string
}

// kind is one row of the registry.
type kind struct {
	Kind
	build func(members []candidate, s *State) Picker
}

// registry lists the algorithms in the order in which people read about them.
func registry() []kind {
	return []kind{
		{Kind{"round_robin", "one after the other, each as often as its weight says, evenly mixed"}, newRoundRobin},
		{Kind{"least_conn", "the fewest sessions for its weight; for long sessions, such as a database's"}, newLeastConn},
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

// An UnknownKindError says that no algorithm has the name asked for.
type UnknownKindError struct {
	Kind  string   // what was asked for
	Known []string // what there is
}

// Error names the algorithm asked for and those that exist.
func (e *UnknownKindError) Error() string {
	return fmt.Sprintf("unknown algorithm %q (known: %s)", e.Kind, strings.Join(e.Known, ", "))
}

// Build makes the picker of the given kind for members, which it does not keep.
// Its only error is an *UnknownKindError. No member at all is allowed: Pick then returns -1.
// A member without a Load or heavier than MaxWeight is the caller's bug, and panics.
func Build(kindName string, members []Member, o Options) (Picker, error) {
	if o.State == nil {
		o.State = new(State)
	}
	var known []string
	for _, k := range registry() {
		if k.Name != kindName {
			known = append(known, k.Name)
			continue
		}
		c := candidates(members)
		if len(c) == 0 {
			return nobody{}, nil
		}
		return k.build(c, o.State), nil
	}
	return nil, &UnknownKindError{Kind: kindName, Known: known}
}

// A candidate is a member that can be picked.
type candidate struct {
	index  int // into the members given to Build
	weight int64
	load   *Load
}

// candidates returns the members of a positive weight, or, when there is none, all of them with weight 1.
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
			c = append(c, candidate{index: i, weight: 1, load: m.Load})
		case m.Weight > 0:
			c = append(c, candidate{index: i, weight: int64(m.Weight), load: m.Load})
		}
	}
	return c
}

// nobody is the picker of no members, so that no algorithm has to look for that case.
type nobody struct{}

// Pick returns -1.
func (nobody) Pick(uint64) int { return -1 }
