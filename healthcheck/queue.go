package healthcheck

import "time"

// A job is a target with all the scheduler knows of it. Scheduler.mu guards it.
type job struct {
	target   Target
	checker  Checker
	policy   Policy // complete
	revision int    // counts the Updates of checker and policy
	streak   streak
	counts   Counts // of the checks that ended
	last     Ended  // the last of them

	state  state
	due    time.Time // of the next check, when idle
	stale  time.Time // when the verdict becomes unknown unless there is a result before
	judged time.Time // when the verdict was made by something else than results
	cancel func()    // ends the check, when running

	at    time.Time // its key in the queue
	index int       // its place in the queue, -1 when it is not there
}

// state is where a job stands between two checks.
type state uint8

const (
	idle    state = iota // its next check is at job.due
	waiting              // its check is due; all slots are taken
	running              // it is being checked
	removed              // it is no longer the scheduler's; a check may still run
)

// wakeAt returns when the scheduler must look at j next, and whether it must at all.
func (j *job) wakeAt() (at time.Time, must bool) {
	known := j.streak.verdict != Unknown
	switch {
	case j.state == removed:
		return time.Time{}, false
	case j.state == idle && known && j.stale.Before(j.due):
		return j.stale, true
	case j.state == idle:
		return j.due, true
	default:
		return j.stale, known
	}
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
