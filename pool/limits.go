package pool

import (
	"strconv"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// The limits of a backend's settings. These constants and the functions below are the one place that defines them: the
// API and discovery use them, and tests compare the API's document and the keys of the configuration file with them.
const (
	MaxWeight       = algo.MaxWeight
	MaxSessionLimit = 100_000_000         // of max_sessions: more than any machine has descriptors
	MaxTier         = 65535               // the highest priority of an SRV record, which becomes a tier
	MaxDrain        = 30 * 24 * time.Hour // of a drain's deadline: who waits longer needs none
)

// CheckWeight returns an *InvalidBackendError unless n is a valid weight.
func CheckWeight(n int) error { return upTo(fieldWeight, n, MaxWeight) }

// CheckMaxSessions returns an *InvalidBackendError unless n is a valid limit of sessions.
func CheckMaxSessions(n int) error { return upTo(fieldMaxSessions, n, MaxSessionLimit) }

// CheckTier returns an *InvalidBackendError unless n is a valid tier.
func CheckTier(n int) error { return upTo("tier", n, MaxTier) }

// upTo refuses a number below 0 or above most.
func upTo(field string, n, most int) error {
	if 0 <= n && n <= most {
		return nil
	}
	return &InvalidBackendError{Field: field, Value: strconv.Itoa(n), Want: "0 to " + strconv.Itoa(most)}
}

// DrainDeadline returns a drain's deadline, given in seconds, as a duration, or an *InvalidBackendError. 0 is no
// deadline.
func DrainDeadline(seconds float64) (time.Duration, error) {
	if seconds >= 0 && seconds <= MaxDrain.Seconds() { // in this form NaN is refused, too
		return time.Duration(seconds * float64(time.Second)), nil
	}
	return 0, &InvalidBackendError{
		Field: "deadline_seconds", Value: strconv.FormatFloat(seconds, 'g', -1, 64),
		Want: "0 to " + strconv.Itoa(int(MaxDrain.Seconds())),
	}
}

// Modes returns all modes.
func Modes() []Mode { return []Mode{Ready, Drain, Maintenance} }

// ParseMode returns the mode of that name, or an *InvalidBackendError.
func ParseMode(name string) (Mode, error) {
	for _, m := range Modes() {
		if m.String() == name {
			return m, nil
		}
	}
	return Ready, &InvalidBackendError{Field: fieldMode, Value: name, Want: modeWords}
}

const modeWords = "ready, drain or maintenance"

func validateMode(m Mode) error {
	if m > Maintenance {
		return &InvalidBackendError{Field: fieldMode, Value: m.String(), Want: modeWords}
	}
	return nil
}
