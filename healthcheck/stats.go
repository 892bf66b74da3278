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

// The outcomes. Each check that ends has exactly one. A check that is cancelled, or whose target is removed or updated
// meanwhile, has none.
const (
	Succeeded       Outcome = iota
	Failed                  // for none of the following reasons
	TimedOut                // the target did not answer in time; a failure like any other
	FoundWrongRole          // ErrWrongRole
	FoundLagging            // ErrLagging
	FoundNothingOut         // ErrInconclusive: neither a success nor a failure
	Refused                 // ErrCredentials; a failure only if another target takes the credentials, see Credentials
	FoundFallback           // ErrFallback

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
	case FoundFallback:
		return "fallback"
	}
	return "outcome(" + strconv.Itoa(int(o)) + ")"
}

// Verdict returns the verdict that checks with this outcome lead to; Unknown if they find nothing out.
func (o Outcome) Verdict() Verdict {
	switch o {
	case Succeeded:
		return Healthy
	case FoundWrongRole:
		return WrongRole
	case FoundLagging:
		return Lagging
	case FoundFallback:
		return Fallback
	case FoundNothingOut:
		return Unknown
	}
	return Unhealthy
}

// outcomeOf returns the outcome of a check that returned err.
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
	case errors.Is(err, ErrFallback):
		return FoundFallback
	case errors.Is(err, ErrCredentials):
		return Refused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return TimedOut
	}
	return Failed
}

// Counts are numbers of checks, indexed by Outcome. They never decrease.
type Counts [outcomes]uint64

// durationBuckets is how many upper bounds DurationBounds has.
const durationBuckets = 11

// DurationBounds returns the upper bounds of Tally.Buckets in ascending order: from what a check over loopback takes to
// the longest timeout that makes sense.
func DurationBounds() [durationBuckets]time.Duration {
	const ms = time.Millisecond
	return [durationBuckets]time.Duration{
		ms, 2500 * time.Microsecond, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms,
		time.Second, 5 * time.Second,
	}
}

// A Tally adds up checks that ended. It is a plain value, and its zero value counts no checks.
type Tally struct {
	Checks   Counts
	Duration time.Duration // of all of these checks together
	// Buckets[i] counts the checks that took up to DurationBounds()[i] and longer than the previous bound. Checks that
	// took longer than the last bound are in no bucket.
	Buckets [durationBuckets]uint64

	// Shared counts the results that came from checks of other targets, which may be of other groups. A check that is
	// shared is in Checks for one target only, the one that was there first.
	Shared uint64
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

// Ended is how one check ended. It is a plain value; the zero value means that no check has ended.
type Ended struct {
	At      time.Time
	Took    time.Duration
	Outcome Outcome
	Detail  string // why it failed, or what it found, in words

	Role     Role // these three as in Result
	Lag      time.Duration
	KnowsLag bool
}

// TargetStats is what a scheduler knows about a target. It is a plain value.
type TargetStats struct {
	Target  Target
	Verdict Verdict
	Checks  Counts        // since the target was added
	Took    time.Duration // all of Checks together
	Last    Ended         // the last check in Checks
	Due     time.Time     // of the next check; in the past while it waits for a slot, zero while it runs and before Run
	Running bool
	Waiting bool // for a slot: its check is due
	Blind   bool // its checks have been inconclusive for so long that Options.Blind was called
}

// SlotStats are the slots of one kind. It is a plain value.
type SlotStats struct {
	Max     int // how many there are
	Running int // taken
	Waiting int // checks that are due and have no slot; some may wait although slots are free, see lanes.go
}

// Stats are the numbers of a scheduler at one moment. It is a plain value that belongs to the caller.
type Stats struct {
	Sockets  SlotStats // of checks over the network
	Programs SlotStats // of checks that run a program

	Groups  map[string]Tally       // by Target.Group; they include removed targets, and groups are never removed
	Targets map[string]TargetStats // by Target.ID
}

// Stats returns the present numbers. It copies all of them, and no check begins or ends meanwhile: about 3 ms for
// 10,000 targets (BenchmarkStats).
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := Stats{
		Groups: make(map[string]Tally, len(s.groups)), Targets: make(map[string]TargetStats, len(s.views)),
	}
	for name, g := range s.groups {
		all.Groups[name] = g.tally
	}
	waits := [slotKinds]int{}
	for id, v := range s.views {
		t := v.statsLocked()
		if t.Waiting && v.job.views[0] == v {
			waits[v.job.kind]++
		}
		all.Targets[id] = t
	}
	for kind, to := range map[slotKind]*SlotStats{socketSlots: &all.Sockets, programSlots: &all.Programs} {
		*to = SlotStats{Max: s.slots[kind].max, Running: s.slots[kind].running, Waiting: waits[kind]}
	}
	return all
}

// Target returns the numbers of one target; false if there is no target of that id.
func (s *Scheduler) Target(id string) (TargetStats, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[id]
	if v == nil {
		return TargetStats{}, false
	}
	return v.statsLocked(), true
}

// statsLocked returns the numbers of v; its scheduler's mu is held.
func (v *view) statsLocked() TargetStats {
	j := v.job
	t := TargetStats{
		Target: v.target, Verdict: v.streak.verdict, Checks: v.counts, Took: v.took, Last: v.last,
		Due: j.due, Running: j.state == running, Waiting: j.state == waiting, Blind: v.blindReported,
	}
	if t.Running {
		t.Due = time.Time{}
	}
	return t
}

// noteLocked counts a check of v that ran from start to end. shared says that it is counted for another view already.
func (s *Scheduler) noteLocked(v *view, found *Result, err error, start, end time.Time, shared bool) {
	took, o, detail := end.Sub(start), outcomeOf(err), words(*found, err)
	v.counts[o]++
	v.took += took
	v.last = Ended{At: end, Took: took, Outcome: o, Detail: detail,
		Role: found.Role, Lag: found.Lag, KnowsLag: found.KnowsLag}
	if shared {
		v.group.tally.Shared++
	} else {
		v.group.tally.add(o, took)
	}
	s.noteBlindLocked(v, o, detail, start, end)
}
