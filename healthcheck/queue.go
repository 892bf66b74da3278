package healthcheck

import (
	"math"
	"time"
)

// A job is a target with all the scheduler knows of it. Scheduler.mu guards it.
type job struct {
	target   Target
	checker  Checker
	policy   Policy // complete
	revision int    // counts the Updates and Moves
	streak   streak
	group    *group
	counts   Counts // of the checks that ended
	last     Ended  // the last of them

	kind  slotKind // of the slots that a check takes
	state state
	soon  bool   // the next check follows the one that runs at once
	hangs bool   // the last check failed, and took most of its time for that
	told  bool   // of blind, by Options.Blind
	slots uint16 // that a check takes

	lane   *lane     // where it waits, when waiting, or has its slots from, when running
	due    time.Time // of the next check, when idle; when it became due, when waiting
	stale  time.Time // when the verdict becomes unknown unless the check that runs has ended before
	blind  time.Time // since when checks found nothing out; zero when the last one did
	judged time.Time // when the verdict was made by something else than results
	cancel func()    // ends the check, when running

	at    time.Time // its key in the queue
	index int       // its place in the queue, -1 when it is not there
}

// state is where a job stands between two checks.
type state uint8

const (
	idle    state = iota // its next check is at job.due
	waiting              // its check is due; it has no slot yet
	running              // it is being checked
	removed              // it is no longer the scheduler's; a check may still run
)

// use has j checked with c.
func (j *job) use(c Checker) {
	j.checker = c
	kind, n := slotsOf(c)
	j.kind, j.slots = kind, uint16(min(n, math.MaxUint16))
}

// wakeAt returns when the scheduler must look at j next, and whether it must at all.
//
// Only a check that runs, and does not end, makes a verdict stale. What was not checked because it is not time yet, because
// others had the slots, or because this machine is short of something, is not the target's fault.
func (j *job) wakeAt() (at time.Time, must bool) {
	switch j.state {
	case idle:
		return j.due, true
	case running:
		return j.stale, j.streak.verdict != Unknown
	}
	return time.Time{}, false
}

// A queue is a heap of jobs, the earliest first, for container/heap.
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
