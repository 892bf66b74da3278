package tally

// A Drop says why a datagram did not get where it was to go. The set is closed: it is a label of metrics.
type Drop uint8

// The drops.
const (
	NoDrop             Drop = iota
	DropTableFull           // the listener has as many flows as it may (max_flows)
	DropClientLimit         // the client has as many flows, or DNS questions in flight, as it may (client_flows)
	DropNoBackend           // no backend is eligible
	DropBackendsFull        // every eligible backend is at its max_sessions
	DropBackendRefused      // the backend's port is closed, or there is no way to it: ICMP said so, or our own routes
	DropNoDescriptors       // no descriptor or local port was left for a flow
	DropQueueFull           // the kernel took no more for that backend, and as much as may waits already; or as many DNS questions as may are in flight
	DropTruncated           // the datagram was longer than any may be
	DropTooLong             // with the PROXY header in front of it, or for the way to the receiver, it is too long
	DropDraining            // a new client's, on a listener that was removed or is shut down
	DropSendFailed          // the kernel refused to send it: a firewall rule, an address of ours that is gone
	DropReceiveBuffer       // the kernel had no room for it: the socket's receive buffer was full
	DropOverload            // the loop cannot keep up with its clients, and this flow sends more than its share
	DropFlowEnded           // it waited for its backend's socket when its flow ended
	DropLoop                // its client is a socket of ours: a backend leads back to the listener
	DropMisdirected         // at a DNS listener: a client sent an answer, or a backend a question; or it is shorter than either may be
	DropCount
)

var dropNames = [DropCount]string{
	NoDrop:             "none",
	DropTableFull:      "table_full",
	DropClientLimit:    "client_limit",
	DropNoBackend:      "no_backend",
	DropBackendsFull:   "backends_full",
	DropBackendRefused: "backend_refused",
	DropNoDescriptors:  "no_descriptors",
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

// Drops returns every reason to drop a datagram that there is.
func Drops() []Drop {
	all := make([]Drop, 0, DropCount)
	for d := NoDrop + 1; d < DropCount; d++ {
		all = append(all, d)
	}
	return all
}

// String returns the drop as metrics write it.
func (d Drop) String() string { return dropNames[d] }
