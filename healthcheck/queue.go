package healthcheck

import (
	"math"
	"slices"
	"time"
)

// A job is what is asked of one place, when, and for whom: a target, or several that are checked together (share.go).
// Scheduler.mu guards it.
//
// Invariant: it has a view unless its state is removed.
type job struct {
	subject  subject
	views    []*view
	revision int // counts the changes of what is asked and where

	// rebuild makes these fields of the views
	checker Checker  // asks what all of them need to know
	target  Target   // the first one's
	policy  Policy   // the first one's; all have the same times
	group   *group   // the first one's
	kind    slotKind // which slots a check takes
	slots   uint16   // how many of them

	state state
	soon  bool // the next check begins as soon as the running one has ended
	hangs bool // the last check failed, for all views, after half of its timeout or more

	lane    *lane     // in state waiting: where j waits; in state running: whose slots it has
	due     time.Time // in state idle: of the next check; in state waiting: when the check became due
	stale   time.Time // when the verdicts become unknown, if the running check has not ended by then
	checked time.Time // when the last check ended
	closely closely   // see checkClosely
	cancel  func()    // in state running: ends the check

	at    time.Time // its key in the queue
	index int       // its place in the queue, -1 when it is not there
}

// state is where a job stands between two checks.
type state uint8

const (
	idle    state = iota // the next check is at job.due
	waiting              // the check is due and has no slot yet
	running              // the check runs
	removed              // the last target was removed; its check may still run
)

// rebuild derives the fields that depend on the views.
func (j *job) rebuild() {
	first := j.views[0]
	j.checker, j.target, j.policy, j.group = first.asks, first.target, first.policy, first.group
	for _, v := range j.views[1:] {
		j.checker = Join(j.checker, v.asks)
	}
	kind, n := slotsOf(j.checker)
	j.kind, j.slots = kind, uint16(min(n, math.MaxUint16))
}

// without removes one of several views.
func (j *job) without(v *view) {
	j.views = slices.DeleteFunc(j.views, func(other *view) bool { return other == v })
	j.rebuild()
}

// settled reports whether nothing suggests that a verdict will change.
func (j *job) settled() bool {
	for _, v := range j.views {
		if !v.streak.settled() {
			return false
		}
	}
	return true
}

// judged reports whether a view has a verdict.
func (j *job) judged() bool {
	return slices.ContainsFunc(j.views, func(v *view) bool { return v.streak.verdict != Unknown })
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
		return j.stale, j.judged()
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
