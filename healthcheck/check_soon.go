package healthcheck

// CheckSoon brings the next check of a target forward, since something hints at trouble with the target. The check
// begins at once, or a FastInterval after the last one: anybody may cause hints, and they must not cause more checks
// than an uncertain verdict does. If a check runs or waits for a slot, CheckSoon does nothing.
//
// It reports whether there is such a target.
func (s *Scheduler) CheckSoon(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[id]
	if v == nil {
		return false
	}
	s.hurryLocked(v.job)
	return true
}
