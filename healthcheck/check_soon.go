package healthcheck

import "time"

// CheckSoon brings the next check of a target forward: something else hints at trouble with it. It is made at once, or a FastInterval after
// the last one, so that hints, which anybody may cause, never make more checks than an uncertain verdict does. A check that
// runs, or waits for its slot, is soon enough.
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
