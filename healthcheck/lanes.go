package healthcheck

// This file decides whose check begins when more are due than may run at once. Three rules keep the trouble of some targets
// from delaying the checks of others:
//
//   - Each group has lanes of its own, and lanes take turns: a group of thousands delays another one by a single check.
//   - A lane may hold hogFactor times as many slots as it leaves free. So one group whose checks all hang leaves a third of the
//     slots, two leave a fifth, and nobody has to reserve anything for groups that may come.
//   - A target whose last check hung waits in a lane for such targets. Together these lanes leave a quarter of the slots, however
//     many groups hang; and within a group those that hang do not delay those that answer.

// hogFactor is how many times the free slots one lane may hold: dynamic thresholds, as switches share their buffers (Choudhury
// and Hahne, 1998). With 1 a group that is alone could not use half of the slots; with more, few are left for the others.
const hogFactor = 2

// A slotKind says what a check costs while it runs. Sockets and programs do not share slots: a socket costs a descriptor, a
// program a process.
type slotKind uint8

const (
	socketSlots slotKind = iota
	programSlots

	slotKinds // how many there are
)

// A Costly checker says what one of its checks costs. A Checker that is not Costly costs one socket.
type Costly interface {
	Checker

	// Cost returns how many sockets and how many programs one check has at the same time. It always returns the same.
	Cost() (sockets, programs int)
}

// CostOf returns how many sockets and programs checks of all these checkers have together.
func CostOf(checkers ...Checker) (sockets, programs int) {
	for _, c := range checkers {
		s, p := 1, 0
		if c, ok := c.(Costly); ok {
			s, p = c.Cost()
		}
		sockets += s
		programs += p
	}
	return sockets, programs
}

// slotsOf returns which kind of slots a check with c takes, and how many of them.
func slotsOf(c Checker) (slotKind, int) {
	sockets, programs := CostOf(c)
	if programs > 0 {
		return programSlots, programs
	}
	return socketSlots, max(1, sockets)
}

// A group is the targets of one Target.Group. Scheduler.mu guards it; newGroup makes it.
type group struct {
	tally Tally
	lanes [slotKinds][2]lane // of each kind of slots one for targets that answer, and one for those that hang
}

func newGroup() *group {
	g := new(group)
	for kind := range g.lanes {
		g.lanes[kind] = [2]lane{{kind: slotKind(kind)}, {kind: slotKind(kind), hangs: true}}
	}
	return g
}

// lane returns where j waits.
func (g *group) lane(j *job) *lane {
	if j.hangs {
		return &g.lanes[j.kind][1]
	}
	return &g.lanes[j.kind][0]
}

// A lane is the targets of one group that wait for slots of one kind. Scheduler.mu guards it.
//
// Invariant: a lane with anything in ready is in its slots' waiting, once.
type lane struct {
	// set once, then read-only
	kind  slotKind
	hangs bool // it is for targets whose last check hung

	ready   []*job // waiting or removed, in the order in which they came due
	running int    // slots taken
	queued  bool   // it is in slots.waiting
}

// slots are those of one kind. Scheduler.mu guards them.
//
// Invariant: running is the sum of the lanes' running, and hanging that of the lanes for targets that hang.
type slots struct {
	max     int // set once, then read-only
	running int // taken; above max by what one check costs, at most
	hanging int
	waiting []*lane // with something in ready, in their turn
}

// maxHanging is how many slots the checks of targets that hang may take together.
func (s *slots) maxHanging() int { return s.max - s.max/4 }

// allows reports whether a check of the lane may begin.
func (s *slots) allows(l *lane) bool {
	free := s.max - s.running
	if l.hangs {
		free = min(free, s.maxHanging()-s.hanging)
	}
	return l.running < hogFactor*free
}

// add lets j wait in its lane.
func (s *slots) add(l *lane, j *job) {
	l.ready = append(l.ready, j)
	if !l.queued {
		l.queued = true
		s.waiting = append(s.waiting, l)
	}
}

// take returns the job whose turn it is, with its slots taken, or nil if no check may begin now. It looks at each lane once; lanes
// that may not begin another check are as many as there are slots, at most.
func (s *slots) take() *job {
	for range len(s.waiting) {
		if s.running >= s.max {
			return nil
		}
		l := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		l.queued = false
		var j *job
		if s.allows(l) {
			j = l.next()
		}
		if len(l.ready) > 0 {
			l.queued = true
			s.waiting = append(s.waiting, l)
		}
		if j != nil {
			s.count(l, int(j.slots))
			return j
		}
	}
	return nil
}

// next takes the first job that still waits out of the lane; nil if there is none.
func (l *lane) next() *job {
	for len(l.ready) > 0 {
		j := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		if j.state == waiting {
			return j
		}
	}
	return nil
}

// count takes n more slots for a check of the lane, or gives back -n.
func (s *slots) count(l *lane, n int) {
	l.running += n
	s.running += n
	if l.hangs {
		s.hanging += n
	}
}
