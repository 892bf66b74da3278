package healthcheck

import "time"

// A Blindness says that the checks of a target have found nothing out (ErrInconclusive) for the StaleAfter of its policy, or that
// they do again. The verdict of before stays: what this machine lacks says nothing about the target. It is a plain value.
type Blindness struct {
	Target Target
	Since  time.Time // when the first check of those in a row began that found nothing out
	Reason string    // of the last of them, or what was found out now
	Over   bool      // they find something out again
}

// lookLocked takes down whether a check of j, which ran from start to end, found anything out.
func (s *Scheduler) lookLocked(j *job, o Outcome, detail string, start, end time.Time) {
	switch {
	case o != FoundNothingOut:
		if j.told {
			s.blind = append(s.blind, Blindness{Target: j.target, Since: j.blind, Reason: detail, Over: true})
		}
		j.blind, j.told = time.Time{}, false
		return
	case j.blind.IsZero():
		j.blind = start
	}
	if !j.told && end.Sub(j.blind) >= j.policy.StaleAfter {
		j.told = true
		s.blind = append(s.blind, Blindness{Target: j.target, Since: j.blind, Reason: detail})
	}
}
