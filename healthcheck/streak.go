package healthcheck

// A streak makes a verdict of results: rise successes in a row make healthy, fall failures in a row make unhealthy, and
// one result of the other kind begins a new row. It is plain data for one goroutine; rise and fall are at least 1.
type streak struct {
	// set once, then read-only
	rise, fall int

	verdict   Verdict
	length    int  // results in a row, the last one included; 0 before the first
	succeeded bool // what they all are
}

// add counts a result and reports whether it changed the verdict.
func (s *streak) add(succeeded bool) bool {
	if succeeded != s.succeeded {
		s.length, s.succeeded = 0, succeeded
	}
	s.length++
	to := s.verdict
	switch {
	case succeeded && s.length >= s.rise:
		to = Healthy
	case !succeeded && s.length >= s.fall:
		to = Unhealthy
	}
	changed := to != s.verdict
	s.verdict = to
	return changed
}

// settled reports whether nothing suggests that the verdict will change.
func (s *streak) settled() bool {
	return s.verdict != Unknown && (s.length == 0 || s.succeeded == (s.verdict == Healthy))
}

// forget makes the verdict unknown; the next result begins a new row.
func (s *streak) forget() { s.verdict, s.length = Unknown, 0 }
