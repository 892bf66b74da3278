package healthcheck

// A streak makes a verdict of results: rise successes in a row make healthy. fall failures in a row make what the last of
// them says, whatever the others said; from one kind of failure to another it takes fall of that kind. It is plain data for
// one goroutine; rise and fall are at least 1.
type streak struct {
	rise, fall int // may be changed between two results

	verdict  Verdict
	last     Verdict // result
	same     int     // results in a row that are like the last one; 0 before the first
	failures int     // in a row, of any kind, the last one included
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

// set makes the verdict, as if enough results had said so.
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

// forget makes the verdict unknown; the next result begins a new row.
func (s *streak) forget() { s.verdict, s.same, s.failures = Unknown, 0, 0 }
