package healthcheck

import (
	"math"
	"time"
)

// A job is a target and all that the scheduler knows about it. Scheduler.mu guards it.
type job struct {
	target   Target
	checker  Checker
	policy   Policy // complete
	revision int    // counts the Updates and Moves
	streak   streak
	group    *group
	counts   Counts // the checks that ended
	last     Ended  // the last one

	kind          slotKind // which slots a check takes
	slots         uint16   // how many of them
	state         state
	soon          bool // the next check begins as soon as the running one has ended
	hangs         bool // the last check failed after half of its timeout or more
	blindReported bool // Options.Blind has the present blindness

	lane   *lane     // in state waiting: where j waits; in state running: whose slots it has
	due    time.Time // in state idle: of the next check; in state waiting: when the check became due
	stale  time.Time // when the verdict becomes unknown, if the running check has not ended by then
	blind  time.Time // start of the first of the inconclusive checks in a row; zero if the last was conclusive
	close  time.Time // until when it is checked closely; zero if it is not
	judged time.Time // when the verdict was last set by something other than results
	cancel func()    // in state running: ends the check

	at    time.Time // its key in the queue
	index int       // its place in the queue, -1 when it is not there
}

// state is where a job stands between two checks.
type state uint8

const (
	idle    state = iota // the next check is at job.due
	waiting              // the check is due and has no slot yet
	running              // the check runs
	removed              // the target was removed; its check may still run
)

// use makes c the checker of j.
func (j *job) use(c Checker) {
	j.checker = c
	kind, n := slotsOf(c)
	j.kind, j.slots = kind, uint16(min(n, math.MaxUint16))
}

// wakeAt returns when the scheduler must look at j next, and whether it must at all.
//
// Only a check that runs and does not end makes a verdict stale. A target is not to blame for a check that is not due
// yet, that waits for a slot, or that this machine lacks the means to make.
func (j *job) wakeAt() (at time.Time, must bool) {
	switch j.state {
	case idle:
		return j.due, true
	case running:
		return j.stale, j.streak.verdict != Unknown
	}
	return time.Time{}, false
}

// A queue is a heap of jobs for container/heap, ordered by job.at.
type queue []*job

// Len returns the number of jobs.
func (q queue) Len() int { return len(q) }

// Less reports whether job i is earlier than job j.
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }

// Swap exchanges two jobs.
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push appends a *job.
func (q *queue) Push(x any) {
	j := x.(*job)
	j.index = len(*q)
	*q = append(*q, j)
}

// Pop takes the last job off.
func (q *queue) Pop() any {
	last := len(*q) - 1
	j := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	j.index = -1
	return j
}
