package tally

// A Drop is the reason why a datagram was dropped. The set is closed: it is a label of metrics.
type Drop uint8

// The drops.
const (
	NoDrop             Drop = iota
	DropTableFull           // the listener has max_flows flows
	DropClientLimit         // the client has client_flows flows, or DNS questions in flight
	DropDenied              // the access list or a rule denies the client's address
	DropClientRate          // the client comes more often than it may
	DropRate                // the listener's clients come more often than they may
	DropBandwidth           // its flow, or its client, sends or gets more than its bandwidth
	DropNoBackend           // no backend is eligible
	DropBackendsFull        // every eligible backend is at its max_sessions
	DropBackendRefused      // the backend's port is closed or it has no route: by ICMP, or by our own routes
	DropNoDescriptors       // no descriptor or local port was left for a flow
	DropNoSource            // none of the pool's source addresses could be used for a flow
	DropQueueFull           // the backend's socket and queue are full, or too many DNS questions are in flight
	DropTruncated           // the datagram was longer than the maximum
	DropTooLong             // it is too long for the path, or with its PROXY header
	DropDraining            // from a new client of a listener that is removed or shut down
	DropSendFailed          // the kernel refused to send it: a firewall rule, or a local address that is gone
	DropReceiveBuffer       // the socket's receive buffer was full
	DropOverload            // the loop cannot keep up, and this flow sends more than its share
	DropFlowEnded           // its flow ended while it waited for its backend's socket
	DropLoop                // its client is a socket of this process: a backend leads back to the listener
	DropMisdirected         // DNS: an answer from a client, a question from a backend, or shorter than a header
	DropCount
)

var dropNames = [DropCount]string{
	NoDrop:             "none",
	DropTableFull:      "table_full",
	DropClientLimit:    "client_limit",
	DropDenied:         "denied",
	DropClientRate:     "client_rate",
	DropRate:           "rate",
	DropBandwidth:      "bandwidth",
	DropNoBackend:      "no_backend",
	DropBackendsFull:   "backends_full",
	DropBackendRefused: "backend_refused",
	DropNoDescriptors:  "no_descriptors",
	DropNoSource:       "no_source",
	DropQueueFull:      "queue_full",
	DropTruncated:      "truncated",
	DropTooLong:        "too_long",
	DropDraining:       "draining",
	DropSendFailed:     "send_failed",
	DropReceiveBuffer:  "receive_buffer",
	DropOverload:       "overload",
	DropFlowEnded:      "flow_ended",
	DropLoop:           "loop",
	DropMisdirected:    "misdirected",
}

// Drops returns every reason to drop a datagram.
func Drops() []Drop {
	all := make([]Drop, 0, DropCount)
	for d := NoDrop + 1; d < DropCount; d++ {
		all = append(all, d)
	}
	return all
}

// String returns the drop as metrics write it.
func (d Drop) String() string { return dropNames[d] }
