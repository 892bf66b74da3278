package sock

// A Protocol is the transport protocol of a listener's clients.
type Protocol uint8

// The protocols.
const (
	TCP Protocol = iota
	UDP
)

// String returns the protocol as a lower-case word.
func (p Protocol) String() string { return [...]string{TCP: "tcp", UDP: "udp"}[p] }
