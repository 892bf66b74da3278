package healthcheck

// A streak makes a verdict of results. After rise successes in a row the verdict is healthy. After fall failures in a
// row, of any kind, it is that of the last failure. To change from one kind of failure to another it takes fall
// failures of the new kind in a row. A streak is plain data for one goroutine; rise and fall are at least 1.
type streak struct {
	rise, fall int // may be changed between two results

	verdict  Verdict
	last     Verdict // the last result
	same     int     // how many results in a row equal the last one; 0 before the first
	failures int     // how many failures in a row there are, of any kind, up to the last result
}

// add counts a result, anything but Unknown, and reports whether it changed the verdict.
func (s *streak) add(result Verdict) bool {
	if s.same == 0 || result != s.last {
		s.same, s.last = 0, result
	}
	s.same++
	s.failures++
	if result == Healthy {
		s.failures = 0
	}
	failing := s.verdict != Healthy && s.verdict != Unknown
	to := s.verdict
	switch {
	case result == Healthy && s.same >= s.rise,
		result != Healthy && failing && s.same >= s.fall,
		result != Healthy && !failing && s.failures >= s.fall:
		to = result
	}
	changed := to != s.verdict
	s.verdict = to
	return changed
}

// set sets the verdict, as if enough results had led to it.
func (s *streak) set(v Verdict) {
	s.verdict, s.last, s.same, s.failures = v, v, 1, 1
	if v == Healthy {
		s.failures = 0
	}
}

// settled reports whether nothing suggests that the verdict will change.
func (s *streak) settled() bool {
	return s.verdict != Unknown && (s.same == 0 || s.last == s.verdict)
}

// forget makes the verdict unknown and drops the results so far.
func (s *streak) forget() { s.verdict, s.same, s.failures = Unknown, 0, 0 }
