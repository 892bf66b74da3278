package l4

import (
	"errors"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A Protocol is what a listener's clients speak.
type Protocol uint8

// The protocols.
const (
	TCP Protocol = iota
	UDP
)

// String returns the protocol as a lower-case word.
func (p Protocol) String() string { return [...]string{TCP: "tcp", UDP: "udp"}[p] }

// A FlowKey says which datagrams go to one backend.
type FlowKey uint8

// The flow keys. Whatever the key, answers find the address and port that was asked from, and come from the one that was asked.
const (
	// ByClient has the datagrams of one address and port go to one backend.
	ByClient FlowKey = iota
	// ByClientIP has those of one address go to one backend, whatever their ports: its flows share one lease. All of them are then
	// on one loop.
	ByClientIP
	// ByPacket has a backend chosen for each datagram. A client has a flow for each backend that it was sent to, until idle.
	ByPacket
)

// String returns the key as the configuration calls it.
func (k FlowKey) String() string {
	return [...]string{ByClient: "client", ByClientIP: "client_ip", ByPacket: "packet"}[k]
}

// FlowSettings are the settings of a UDP listener's flows. The zero value is usable, and comparable like any other.
type FlowSettings struct {
	Key     FlowKey
	Timeout time.Duration // a flow without a datagram for so long ends; 0 = 30 s

	// Responses ends a flow as soon as each of its datagrams could have had so many answers, so that one that gets the only
	// answer it wants holds nothing any longer. A client that asks several things at once from one port gets all of them. 0 = Timeout alone.
	Responses int

	Max       int // flows at once on this listener; 0 = 65536
	ClientMax int // for one client: an IPv4 address, or an IPv6 /64; 0 = without a limit. All of a client's are then on one loop

	ReceiveBuffer int // of each of the listener's sockets, in bytes as the kernel counts them; 0 = 4 MiB. The kernel's limit is net.core.rmem_max
	SendBuffer    int // the same; 0 = the kernel's default

	SendProxy bool // a PROXY protocol header of version 2 in front of each datagram to a backend
}

// Defaults of FlowSettings.
const (
	defaultFlowTimeout = 30 * time.Second // the shortest that RFC 4787, 4.3 lets anybody choose is 2 min, for a NAT; DNS needs seconds
	defaultMaxFlows    = 65536            // more than there are ports for on the way to backends

	// The kernel's own default is 208 KiB, some 270 small datagrams: a burst within a few milliseconds.
	defaultReceiveBuffer = 4 << 20
)

func (s *FlowSettings) timeout() time.Duration {
	if s.Timeout == 0 {
		return defaultFlowTimeout
	}
	return s.Timeout
}

func (s *FlowSettings) max() int64 {
	if s.Max == 0 {
		return defaultMaxFlows
	}
	return int64(s.Max)
}

// steered tells whether all flows of one client must be on one loop.
func (s *FlowSettings) steered() bool { return s.Key == ByClientIP || s.ClientMax > 0 }

func (s *FlowSettings) validate() error {
	switch {
	case s.Key > ByPacket:
		return errors.New("undefined flow key")
	case s.Timeout < 0:
		return errors.New("negative flow timeout")
	case s.Responses < 0 || s.Max < 0 || s.ClientMax < 0 || s.ReceiveBuffer < 0 || s.SendBuffer < 0:
		return errors.New("negative number in the settings of flows")
	}
	return nil
}

// datagramOptions are the options of the spec's UDP sockets.
func (spec *ListenerSpec) datagramOptions(o sock.Offload) sock.DatagramOptions {
	receive := spec.Flows.ReceiveBuffer
	if receive == 0 {
		receive = defaultReceiveBuffer
	}
	return sock.DatagramOptions{DualStack: spec.DualStack, ReceiveBuffer: receive, SendBuffer: spec.Flows.SendBuffer, GRO: o.GRO}
}
