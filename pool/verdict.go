package pool

import "strconv"

// A Verdict is the result of a backend's health checks. The zero value is Unknown.
type Verdict uint8

// The verdicts. Only a Healthy backend is eligible, and a Fallback one while no Healthy one is.
const (
	Unknown   Verdict = iota // not checked often enough yet, or not any more
	Healthy                  // the last checks succeeded
	Unhealthy                // the last checks failed
	// it works, but is a replica where the pool needs a primary, or the other way round
	WrongRole
	Lagging // it works, but is too far behind its primary
	// it works, but is a primary where the pool wants replicas: it serves while no Healthy backend is eligible
	Fallback
)

// failing reports whether the verdict is one against the backend.
func (v Verdict) failing() bool { return v > Healthy }

// final reports whether the verdict makes a backend's existing sessions useless too. Lag does not: it passes, and a
// session that reads old data may continue.
func (v Verdict) final() bool { return v == Unhealthy || v == WrongRole }

// String returns the verdict as a lower-case word.
func (v Verdict) String() string {
	switch v {
	case Unknown:
		return "unknown"
	case Healthy:
		return "healthy"
	case Unhealthy:
		return "unhealthy"
	case WrongRole:
		return "wrong_role"
	case Lagging:
		return "lagging"
	case Fallback:
		return "fallback"
	}
	return "verdict(" + strconv.Itoa(int(v)) + ")"
}

// A Mode is the operator's wish for a backend. The zero value is Ready.
type Mode uint8

// The modes. Only a Ready backend is eligible.
const (
	Ready Mode = iota // takes new sessions
	Drain             // finishes the sessions it has and gets no new ones
	// is out of use as if it were removed; Options.CloseOnRemove decides whether its sessions end
	Maintenance
)

// String returns the mode as a lower-case word.
func (m Mode) String() string {
	switch m {
	case Ready:
		return "ready"
	case Drain:
		return "drain"
	case Maintenance:
		return "maintenance"
	}
	return "mode(" + strconv.Itoa(int(m)) + ")"
}
