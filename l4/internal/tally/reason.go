package tally

// A Reason says who ended a session or a flow, and how. The set is closed: it is a field of the access line and a
// label of metrics.
type Reason uint8

// The reasons. Those from MaxSessions on mean that no byte was relayed, as do the client's own when it left before a backend
// was connected.
const (
	NoReason         Reason = iota
	ClientClosed            // both halves ended in order, the client's first
	BackendClosed           // both halves ended in order, the backend's first
	ClientReset             // the client reset the connection, and so was the backend's
	BackendReset            // the backend reset the connection, and so was the client's
	ClientLost              // keepalive or user_timeout gave the client up, or the network did
	BackendLost             // the same of the backend
	Idle                    // nothing came from either side for idle_timeout, or flow_timeout
	HalfClose               // one side had closed its half, and the other was silent for half_close_timeout
	Drained                 // shut down, or the listener's removal, ended what drain_timeout had left
	BackendRemoved          // the backend was removed or put into maintenance: on_remove ends its sessions, drain_timeout its flows
	BackendUnhealthy        // the checks judge the backend unhealthy, and on_unhealthy says that its sessions end
	EndedByOperator         // the operator ended it (Server.End)
	Malformed               // the client has sent what cannot be a DNS question
	NotReading              // the DNS client takes no answers, and more are held for such clients than may be
	Answered                // a flow's: the backend has answered as often as it was to
	Evicted                 // a flow's: it was never answered, and a new client needed its place
	Probe                   // the client has sent nothing, and left at once: see probed
	MaxSessions             // refused: the listener or the process holds all the sessions it may
	NoBackend               // refused: no backend is eligible
	BackendsFull            // refused: every eligible backend is at its max_sessions, and the pool has no queue
	QueueFull               // refused: as many sessions wait for a backend as may
	QueueTimeout            // refused: no eligible backend had room within the queue's timeout
	ConnectFailed           // refused: none of the backends tried could be connected to
	NoDescriptors           // refused: no descriptor or local port was left for the backend's connection
	Loop                    // refused: the client is a socket of ours, and a backend leads back to the listener
	ReasonCount
)

var reasonNames = [ReasonCount]string{
	NoReason:         "none",
	ClientClosed:     "client_closed",
	BackendClosed:    "backend_closed",
	ClientReset:      "client_reset",
	BackendReset:     "backend_reset",
	ClientLost:       "client_lost",
	BackendLost:      "backend_lost",
	Idle:             "idle",
	HalfClose:        "half_close",
	Drained:          "drained",
	BackendRemoved:   "backend_removed",
	BackendUnhealthy: "backend_unhealthy",
	EndedByOperator:  "ended_by_operator",
	Malformed:        "malformed",
	NotReading:       "not_reading",
	Answered:         "answered",
	Evicted:          "evicted",
	Probe:            "probe",
	MaxSessions:      "max_sessions",
	NoBackend:        "no_backend",
	BackendsFull:     "backends_full",
	QueueFull:        "queue_full",
	QueueTimeout:     "queue_timeout",
	ConnectFailed:    "connect_failed",
	NoDescriptors:    "no_descriptors",
	Loop:             "loop",
}

// Reasons returns every reason there is.
func Reasons() []Reason {
	all := make([]Reason, 0, ReasonCount)
	for r := NoReason + 1; r < ReasonCount; r++ {
		all = append(all, r)
	}
	return all
}

// String returns the reason as logs and metrics write it.
func (r Reason) String() string { return reasonNames[r] }

// Abrupt reasons cut a connection that had not ended by itself: the peer is told by a reset, since a FIN
// would make a truncated answer look whole.
func (r Reason) Abrupt() bool {
	switch r {
	case ClientReset, BackendReset, ClientLost, BackendLost, BackendRemoved, BackendUnhealthy, Drained, EndedByOperator:
		return true
	}
	return false
}
