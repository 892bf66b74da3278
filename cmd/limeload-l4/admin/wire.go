package admin

// What the API wraps around the types of its contract: an object and not a bare list, so that more may stand beside it later.
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
	logLevel struct {
		Level string `json:"level"`
	}
)

// EventFilter says which events are meant: those to which all that is set applies. Its zero value is all of them.
type EventFilter struct {
	Pool  string   // events of no pool, such as reloaded, do not apply
	Kinds []string // any of these, see EventKinds; none is every kind
}
