package healthcheck

import "time"

// A Blindness says that all checks of a target have been inconclusive (ErrInconclusive) for the StaleAfter of its
// policy, or that this is over. The verdict stays: what this machine lacks says nothing about the target. It is a plain
// value.
type Blindness struct {
	Target Target
	Since  time.Time // when the first of the inconclusive checks began
	Reason string    // why the last check was inconclusive; if Over, what the check now found
	Over   bool      // a check has found something out again
}

// noteBlindLocked records whether a check of v, which ran from start to end, found anything out.
func (s *Scheduler) noteBlindLocked(v *view, o Outcome, detail string, start, end time.Time) {
	switch {
	case o != FoundNothingOut:
		if v.blindReported {
			s.blind = append(s.blind, Blindness{Target: v.target, Since: v.blind, Reason: detail, Over: true})
		}
		v.blind, v.blindReported = time.Time{}, false
		return
	case v.blind.IsZero():
		v.blind = start
	}
	if !v.blindReported && end.Sub(v.blind) >= v.policy.StaleAfter {
		v.blindReported = true
		s.blind = append(s.blind, Blindness{Target: v.target, Since: v.blind, Reason: detail})
	}
}
