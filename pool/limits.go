package pool

import (
	"fmt"
	"strconv"
	"time"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/pool/rate"
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

// CheckMaxRate returns an *InvalidBackendError unless l is a valid rate of sessions: the zero value, which is no limit,
// or one within the bounds of package rate.
func CheckMaxRate(l rate.Limit) error {
	if l == (rate.Limit{}) || l.Every >= rate.MinEvery && l.Every <= rate.MaxEvery &&
		l.Burst >= 1 && l.Burst <= rate.MaxBurst {
		return nil
	}
	return &InvalidBackendError{Field: fieldMaxRate, Value: fmt.Sprintf("%d in %v", l.Burst, l.Every),
		Want: rateWords}
}

// rateWords says what a text of ParseMaxRate may be.
var rateWords = fmt.Sprintf(`a number for a second, a minute or an hour, such as "100/s" or "600/m burst 20", up to `+
	`%d a second with a burst of 1 to %d, or ""`, rate.MaxCount, rate.MaxBurst)

// ParseMaxRate returns the rate that a text such as "100/s" or "600/m burst 20" says, or an *InvalidBackendError. "" is
// no limit.
func ParseMaxRate(text string) (rate.Limit, error) {
	l, err := rate.Parse(text)
	if err != nil {
		return l, &InvalidBackendError{Field: fieldMaxRate, Value: text, Want: rateWords}
	}
	return l, nil
}

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
