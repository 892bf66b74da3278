package tally

// A Reason is why a session or a flow ended, and which side ended it. The set is closed: it is a field of the access
// line and a label of metrics.
type Reason uint8

// The reasons. From MaxSessions on they mean that no byte was relayed. The client's own reasons mean the same when the
// client left before a backend was connected.
const (
	NoReason         Reason = iota
	ClientClosed            // both halves ended in order, the client's first
	BackendClosed           // both halves ended in order, the backend's first
	ClientReset             // the client reset its connection; the backend's was reset too
	BackendReset            // the backend reset its connection; the client's was reset too
	ClientLost              // keepalive, user_timeout or the network gave up the client
	BackendLost             // keepalive, user_timeout or the network gave up the backend
	Idle                    // neither side sent anything for idle_timeout, or flow_timeout
	HalfClose               // one side closed its half, and the other was silent for half_close_timeout
	Drained                 // still open at drain_timeout, after a shutdown or the listener's removal
	BackendRemoved          // backend removed or in maintenance: on_remove ends sessions, drain_timeout flows
	BackendUnhealthy        // the checks judge the backend unhealthy, and on_unhealthy ends its sessions
	Moved                   // at rest, it has left a backend that its sessions are to leave (drain = "safe")
	EndedByOperator         // the operator ended it (Server.End)
	Malformed               // the client sent what cannot be a DNS question, a correct ClientHello or a Postgres startup
	BrokenTLS               // the client sent something that is no record of its TLS session
	NotReading              // the DNS client reads no answers, and too many are held for such clients
	Answered                // flows: the backend sent the expected number of answers
	Evicted                 // flows: it had no answer, and a new client needed its place
	Probe                   // the client sent nothing, and left at once: see probed
	Cancel                  // the client has sent a CancelRequest of Postgres, which was passed on
	MaxSessions             // refused: the listener or the process is at its limit of sessions
	Denied                  // refused: the access list or a rule denies the client's address
	ClientSessions          // refused: the client has all the sessions, flows or questions in flight that it may have
	ClientRate              // refused: the client comes more often than it may
	Rate                    // refused: the listener's clients come more often than they may
	NoBackend               // refused: no backend is eligible
	BackendsFull            // refused: every eligible backend is at its max_sessions, and the pool has no queue
	QueueFull               // refused: the pool's queue is full
	QueueTimeout            // refused: no eligible backend had room within the queue's timeout
	HoldFull                // refused: no backend is eligible, and as many sessions wait for one as may
	HoldTimeout             // refused: no backend became eligible within the hold's timeout
	ConnectFailed           // refused: connecting failed for every backend tried
	NoDescriptors           // refused: no descriptor or local port was left for the backend's connection
	NoSource                // refused: none of the pool's source addresses could be used
	Loop                    // refused: the client is a socket of this process; a backend leads back to the listener
	ProxyHeader             // refused: a PROXY header had to come, and something else came, or it came too late
	NoRoute                 // refused: no route fits the server name and protocols in the client's ClientHello
	NotTLS                  // refused: the listener has TLS or routes, and the client does not speak TLS
	InspectTimeout          // refused: the client did not send in time what the listener has to see first
	UnknownName             // refused: no certificate is for the server name that the client asked for (strict_sni)
	HandshakeFailed         // refused: the TLS handshake with the client has failed
	HandshakeTimeout        // refused: the TLS handshake with the client was not over within handshake_timeout
	BackendTLS              // refused: the TLS handshake failed with every backend tried
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
	Moved:            "moved",
	EndedByOperator:  "ended_by_operator",
	Malformed:        "malformed",
	BrokenTLS:        "broken_tls",
	NotReading:       "not_reading",
	Answered:         "answered",
	Evicted:          "evicted",
	Probe:            "probe",
	Cancel:           "cancel",
	MaxSessions:      "max_sessions",
	Denied:           "denied",
	ClientSessions:   "client_sessions",
	ClientRate:       "client_rate",
	Rate:             "rate",
	NoBackend:        "no_backend",
	BackendsFull:     "backends_full",
	QueueFull:        "queue_full",
	QueueTimeout:     "queue_timeout",
	HoldFull:         "hold_full",
	HoldTimeout:      "hold_timeout",
	ConnectFailed:    "connect_failed",
	NoDescriptors:    "no_descriptors",
	NoSource:         "no_source",
	Loop:             "loop",
	ProxyHeader:      "proxy_header",
	NoRoute:          "no_route",
	NotTLS:           "not_tls",
	InspectTimeout:   "inspect_timeout",
	UnknownName:      "unknown_name",
	HandshakeFailed:  "handshake_failed",
	HandshakeTimeout: "handshake_timeout",
	BackendTLS:       "backend_tls",
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

// AtGate reports whether a client was refused for what the gate allows it: it is counted there, and has no access line,
// since a flood of clients must not flood the log.
func (r Reason) AtGate() bool { return MaxSessions <= r && r <= Rate }

// InOrder reports whether a session with this reason went as the protocol has it: both sides closed their halves, or it
// had done all that it was for. A flow also ends in order when it is Idle, which for a session is a time limit.
func (r Reason) InOrder() bool {
	switch r {
	case ClientClosed, BackendClosed, Answered, Moved, Cancel, Probe:
		return true
	}
	return false
}

// Abrupt reports whether the reason cuts a connection that had not ended by itself. The peer then gets a reset, since a
// FIN would make a truncated answer look complete.
func (r Reason) Abrupt() bool {
	switch r {
	case ClientReset, BackendReset, ClientLost, BackendLost, BackendRemoved, BackendUnhealthy, Drained, EndedByOperator,
		BrokenTLS:
		return true
	}
	return false
}
