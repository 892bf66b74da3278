package healthcheck

// A streak makes a verdict of results. After rise successes in a row the verdict is healthy. After fall failures in a
// row, of any kind, it is that of the last failure. To change from one kind of failure to another it takes fall
// failures of the new kind in a row. Fallback is between the two: a target that was not healthy works again when rise
// results in a row say so, and for one that was healthy Fallback is a failure like another. A streak is plain data for
// one goroutine; rise and fall are at least 1.
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
	results, needed := s.same, s.fall
	switch {
	case result == Healthy, result == Fallback && s.verdict != Healthy:
		needed = s.rise
	case s.verdict == Healthy, s.verdict == Unknown:
		results = s.failures
	}
	if results < needed || result == s.verdict {
		return false
	}
	s.verdict = result
	return true
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
