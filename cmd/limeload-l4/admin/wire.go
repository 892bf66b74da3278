package admin

import "time"

// Objects around the types of the API, in place of bare lists, so that a later version can add to them.
type (
	listenerList struct {
		Listeners []Listener `json:"listeners"`
	}
	poolList struct {
		Pools []Pool `json:"pools"`
	}
	backendList struct {
		Backends []Backend `json:"backends"`
	}
	endedSessions struct {
		Ended int `json:"ended"`
	}
	purgedDNS struct {
		Purged int `json:"purged"`
	}
	accessRuleList struct {
		Rules []AccessRule `json:"rules"`
	}
	logLevelChange struct {
		Level string   `json:"level"`
		For   *float64 `json:"for_seconds,omitempty"` // nil: until the next change or reload
	}
)

// LogLevel is the lowest level that is logged.
type LogLevel struct {
	Level string     `json:"level"`
	Until *time.Time `json:"until,omitempty"` // when the file's level is in force again; nil until a change or a reload
}

// The bounds of how long a level of the log lasts, where that is said.
const (
	MinLogTime = time.Second
	MaxLogTime = 720 * time.Hour
)

// EventFilter selects events: those to which every set field applies. Its zero value selects all.
type EventFilter struct {
	Pool  string   // selects no events without a pool, such as reloaded
	Kinds []string // any of these, see EventKinds; empty for every kind
}
