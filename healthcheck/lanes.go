package healthcheck

// This file decides which check begins next when more are due than may run at once. Three rules keep targets that hang
// from delaying the checks of others:
//
//   - Each group has its own lanes, and lanes take turns. So a group of thousands delays another group by a single
//     check.
//   - A lane may hold hogFactor times as many slots as are free. So one group whose checks all hang leaves a third of
//     the slots to others, and two such groups leave a fifth. No slots need to be reserved for groups that may be
//     added.
//   - A target whose last check hung waits in a separate lane of its group. All of these lanes together leave a quarter
//     of the slots, however many groups hang. Within a group, targets that hang do not delay those that answer.

// hogFactor is how many slots a lane may hold for each free slot: the dynamic thresholds by which switches share their
// buffers (Choudhury and Hahne, 1998). With 1, a group that is alone could use no more than half of the slots; with
// more than 2, few slots are left for other groups.
const hogFactor = 2

// A slotKind is what a check needs while it runs. Sockets and programs have separate slots, since a socket costs a
// descriptor and a program costs a process.
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

// CostOf returns how many sockets and programs one check by each of these checkers has, all together.
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

// slotsOf returns which kind of slots a check by c takes, and how many.
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
	lanes [slotKinds][2]lane // for each kind of slots: one for targets that answer, one for targets that hang
}

func newGroup() *group {
	g := new(group)
	for kind := range g.lanes {
		g.lanes[kind] = [2]lane{{kind: slotKind(kind)}, {kind: slotKind(kind), hangs: true}}
	}
	return g
}

// lane returns the lane in which j waits.
func (g *group) lane(j *job) *lane {
	if j.hangs {
		return &g.lanes[j.kind][1]
	}
	return &g.lanes[j.kind][0]
}

// A lane is a list of targets of one group that wait for slots of one kind. Scheduler.mu guards it.
//
// Invariant: a lane whose ready list is not empty is in slots.waiting, once.
type lane struct {
	// set once, then read-only
	kind  slotKind
	hangs bool // for targets whose last check hung

	ready   []*job // waiting or removed, in the order in which their checks became due
	running int    // slots taken
	queued  bool   // the lane is in slots.waiting
}

// slots counts the slots of one kind. Scheduler.mu guards it.
//
// Invariant: running is the sum of the lanes' running, and hanging that of the lanes for targets that hang.
type slots struct {
	max     int     // set once, then read-only
	running int     // taken; the last check to begin may exceed max, if it costs more than one slot
	hanging int     // of these, taken by targets that hang
	waiting []*lane // lanes with jobs in their ready list, in the order of their turns
}

// maxHanging is how many slots the checks of all targets that hang may take together.
func (s *slots) maxHanging() int { return s.max - s.max/4 }

// allows reports whether a check of the lane may begin.
func (s *slots) allows(l *lane) bool {
	free := s.max - s.running
	if l.hangs {
		free = min(free, s.maxHanging()-s.hanging)
	}
	return l.running < hogFactor*free
}

// add appends j to the lane, and the lane to those that wait.
func (s *slots) add(l *lane, j *job) {
	l.ready = append(l.ready, j)
	if !l.queued {
		l.queued = true
		s.waiting = append(s.waiting, l)
	}
}

// take returns the job whose turn it is and takes its slots. It returns nil if no check may begin now. It looks at each
// waiting lane once; no more lanes than there are slots can be unable to begin a check.
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

// next removes and returns the first job of the lane that still waits, or nil.
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

// count takes n slots for a check of the lane; a negative n gives slots back.
func (s *slots) count(l *lane, n int) {
	l.running += n
	s.running += n
	if l.hangs {
		s.hanging += n
	}
}
