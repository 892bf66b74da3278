package admin

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
	logLevel struct {
		Level string `json:"level"`
	}
)

// EventFilter selects events: those to which every set field applies. Its zero value selects all.
type EventFilter struct {
	Pool  string   // selects no events without a pool, such as reloaded
	Kinds []string // any of these, see EventKinds; empty for every kind
}
