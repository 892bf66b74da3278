package admin

import (
	"fmt"
	"strings"
	"time"
)

// Bounds of the deadline of an upgrade.
const (
	DefaultUpgradeDeadline = 30 * time.Second // the first checks of backends have up to 5 s of it
	minUpgradeDeadline     = time.Second
	maxUpgradeDeadline     = 10 * time.Minute
)

// Upgrade describes an upgrade: a new process of the program takes over what the daemon serves.
type Upgrade struct {
	Deadline float64 `json:"deadline_seconds,omitempty"` // within which it must be ready to take over; 0 is 30
}

// Upgraded is the result of an upgrade.
type Upgraded struct {
	OldPID     int    `json:"old_pid"`
	NewPID     int    `json:"new_pid"`
	OldVersion string `json:"old_version"`
	NewVersion string `json:"new_version"`

	Sessions int            `json:"sessions"` // that went over so far
	Flows    int            `json:"flows"`
	Left     map[string]int `json:"left"`         // sessions, flows and questions of the old process, by why it has them still
	Until    float64        `json:"left_seconds"` // after which the old process ends those that are left then
	Took     float64        `json:"took_seconds"`
}

// Time returns the deadline, or a *RequestError.
func (u Upgrade) Time() (time.Duration, error) {
	d := time.Duration(u.Deadline * float64(time.Second))
	switch {
	case u.Deadline == 0:
		return DefaultUpgradeDeadline, nil
	case !(u.Deadline >= minUpgradeDeadline.Seconds() && u.Deadline <= maxUpgradeDeadline.Seconds()):
		return 0, invalid("deadline_seconds", fmt.Sprint(u.Deadline), "1 to 600")
	}
	return d, nil
}

// An UpgradeError says why an upgrade has failed. The old process goes on with all it has.
type UpgradeError struct {
	Err error
}

// Error returns the cause and the consequence.
func (e *UpgradeError) Error() string {
	return strings.TrimRight(e.Err.Error(), "\n") + "; the old process goes on as before"
}

// Unwrap returns the cause.
func (e *UpgradeError) Unwrap() error { return e.Err }

func (s *Server) upgrade(a *asked) (any, error) {
	var u Upgrade
	if err := s.readJSON(a, &u, true); err != nil {
		return nil, err
	}
	if _, err := u.Time(); err != nil {
		return nil, err
	}
	return result(s.balancer.Upgrade(a.Context(), u))
}
