package healthcheck

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"
)

// An Outcome is how one check ended. The zero value is Succeeded.
type Outcome uint8

// The outcomes. Each check that ends has exactly one; those that are cancelled, or whose target is removed or updated
// meanwhile, have none.
const (
	Succeeded       Outcome = iota
	Failed                  // and none of the following
	TimedOut                // the target did not answer in time; it counts as a failure like any other
	FoundWrongRole          // ErrWrongRole
	FoundLagging            // ErrLagging
	FoundNothingOut         // ErrInconclusive: no result
	Refused                 // ErrCredentials; a failure only if others take the credentials, see Credentials

	outcomes // how many there are
)

// String returns the outcome as a lower-case word, for the label of a metric.
func (o Outcome) String() string {
	switch o {
	case Succeeded:
		return "success"
	case Failed:
		return "failure"
	case TimedOut:
		return "timeout"
	case FoundWrongRole:
		return "wrong_role"
	case FoundLagging:
		return "lagging"
	case FoundNothingOut:
		return "inconclusive"
	case Refused:
		return "refused"
	}
	return "outcome(" + strconv.Itoa(int(o)) + ")"
}

// Verdict returns what a check with that outcome says by itself; Unknown if it found nothing out.
func (o Outcome) Verdict() Verdict {
	switch o {
	case Succeeded:
		return Healthy
	case FoundWrongRole:
		return WrongRole
	case FoundLagging:
		return Lagging
	case FoundNothingOut:
		return Unknown
	}
	return Unhealthy
}

// outcomeOf returns how a check ended with err.
func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return Succeeded
	case errors.Is(err, ErrInconclusive):
		return FoundNothingOut
	case errors.Is(err, ErrWrongRole):
		return FoundWrongRole
	case errors.Is(err, ErrLagging):
		return FoundLagging
	case errors.Is(err, ErrCredentials):
		return Refused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return TimedOut
	}
	return Failed
}

// Counts are numbers of checks by their Outcome, which is the index. They only grow.
type Counts [outcomes]uint64

// durationBuckets is how many upper bounds DurationBounds has.
const durationBuckets = 11

// DurationBounds returns the upper bounds of Tally.Buckets, in ascending order: from a check on loopback to one that
// waits for the longest timeout that makes sense.
func DurationBounds() [durationBuckets]time.Duration {
	const ms = time.Millisecond
	return [durationBuckets]time.Duration{
		ms, 2500 * time.Microsecond, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms, time.Second, 5 * time.Second,
	}
}

// A Tally adds up checks that ended. It is a plain value, its zero value is that of none.
type Tally struct {
	Checks   Counts
	Duration time.Duration // of all of them together
	// Buckets[i] counts those that took up to DurationBounds()[i], and longer than the bound before. What took longer than
	// the last bound is in Checks alone.
	Buckets [durationBuckets]uint64
}

// add counts one check.
func (t *Tally) add(o Outcome, took time.Duration) {
	t.Checks[o]++
	t.Duration += took
	for i, bound := range DurationBounds() {
		if took <= bound {
			t.Buckets[i]++
			return
		}
	}
}

// Ended is how one check ended. It is a plain value; its zero value is that none has.
type Ended struct {
	At      time.Time
	Took    time.Duration
	Outcome Outcome
	Detail  string // why, or what was found, in words
}

// TargetStats is what a scheduler knows of a target. It is a plain value.
type TargetStats struct {
	Target  Target
	Verdict Verdict
	Checks  Counts    // since it was added
	Last    Ended     // the last check that counts in Checks
	Due     time.Time // of the next check; in the past while it waits for a slot, zero while it runs and before Run
	Running bool
	Waiting bool // for a slot: its check is due
	Blind   bool // its checks have found nothing out for so long that Options.Blind was told
}

// SlotStats are the slots of one kind. It is a plain value.
type SlotStats struct {
	Max     int // how many there are
	Running int // taken
	Waiting int // checks that are due and have none; some may wait while slots are free, see lanes.go
}

// Stats are the numbers of a scheduler at one moment. It is a plain value that belongs to whoever asked for it.
type Stats struct {
	Sockets  SlotStats // of checks over the network
	Programs SlotStats // of those that run a program

	Groups  map[string]Tally       // by Target.Group, also of the targets that were removed; a group stays
	Targets map[string]TargetStats // by Target.ID
}

// Stats returns the numbers of now. It costs a copy of all that it returns, during which no check begins or ends: some
// 3 ms for 10,000 targets (BenchmarkStats).
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := Stats{
		Groups: make(map[string]Tally, len(s.groups)), Targets: make(map[string]TargetStats, len(s.jobs)),
	}
	for name, g := range s.groups {
		all.Groups[name] = g.tally
	}
	waits := [slotKinds]int{}
	for id, j := range s.jobs {
		t := j.statsLocked()
		if t.Waiting {
			waits[j.kind]++
		}
		all.Targets[id] = t
	}
	for kind, to := range map[slotKind]*SlotStats{socketSlots: &all.Sockets, programSlots: &all.Programs} {
		*to = SlotStats{Max: s.slots[kind].max, Running: s.slots[kind].running, Waiting: waits[kind]}
	}
	return all
}

// Target returns the numbers of one target, as Stats does of all; false if there is none of that id.
func (s *Scheduler) Target(id string) (TargetStats, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id]
	if j == nil {
		return TargetStats{}, false
	}
	return j.statsLocked(), true
}

// statsLocked returns the numbers of j; its scheduler's mu is held.
func (j *job) statsLocked() TargetStats {
	t := TargetStats{
		Target: j.target, Verdict: j.streak.verdict, Checks: j.counts, Last: j.last,
		Due: j.due, Running: j.state == running, Waiting: j.state == waiting, Blind: j.told,
	}
	if t.Running {
		t.Due = time.Time{}
	}
	return t
}

// noteLocked counts a check of j that ran from start to end.
func (s *Scheduler) noteLocked(j *job, o Outcome, detail string, start, end time.Time) {
	took := end.Sub(start)
	j.counts[o]++
	j.last = Ended{At: end, Took: took, Outcome: o, Detail: detail}
	j.group.tally.add(o, took)
	j.stale = end.Add(j.policy.StaleAfter)
	j.hangs = o != Succeeded && took >= j.policy.Timeout/2
	s.lookLocked(j, o, detail, start, end)
}
