package healthcheck

import "time"

// CheckSoon brings the next check of a target forward, since something hints at trouble with the target. The check
// begins at once, or a FastInterval after the last one: anybody may cause hints, and they must not cause more checks
// than an uncertain verdict does. If a check runs or waits for a slot, CheckSoon does nothing.
//
// It reports whether there is such a target.
func (s *Scheduler) CheckSoon(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id]
	if j == nil || !s.started || j.state != idle {
		return j != nil
	}
	soon := time.Now()
	if earliest := j.last.At.Add(j.policy.FastInterval); earliest.After(soon) {
		soon = earliest
	}
	if soon.Before(j.due) {
		j.due = soon
		s.requeueLocked(j)
		s.wakeRun()
	}
	return true
}
