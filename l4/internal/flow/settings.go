package flow

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A Key says which datagrams go to one backend.
type Key uint8

// The keys. Whatever the key, answers go to the address and port that asked, and come from the one that was asked.
const (
	// ByClient sends the datagrams of one address and port to one backend.
	ByClient Key = iota
	// ByClientIP sends those of one address to one backend, whatever their ports: its flows share one lease. All of
	// them are then on one loop.
	ByClientIP
	// ByPacket chooses a backend for each datagram. A client has a flow for each backend that it was sent to, until
	// idle.
	ByPacket
)

// String returns the key as the configuration calls it.
func (k Key) String() string {
	return [...]string{ByClient: "client", ByClientIP: "client_ip", ByPacket: "packet"}[k]
}

// Settings are the settings of a UDP listener's flows. The zero value is usable, and comparable like any other.
type Settings struct {
	Key     Key
	Timeout time.Duration // a flow without a datagram for so long ends; 0 = 30 s

	// Responses ends a flow as soon as each of its datagrams could have had so many answers, so that a flow that gets
	// the only answer it wants holds nothing any longer. A client that asks several things at once from one port gets
	// all of the answers. 0 = Timeout alone.
	Responses int

	Max int // flows at once on this listener; 0 = 65536

	// ClientMax is how many flows one client may have at once: an IPv4 address, or an IPv6 /64. All of a client's flows
	// are then on one loop. 0 = without a limit.
	ClientMax int

	// ReceiveBuffer is that of each of the listener's sockets, in bytes as the kernel counts them; 0 = 4 MiB. The
	// kernel's limit is net.core.rmem_max. SendBuffer is the same for sending; 0 = the kernel's default.
	ReceiveBuffer, SendBuffer int

	SendProxy bool // a PROXY protocol header of version 2 in front of each datagram to a backend
}

// Defaults of Settings.
const (
	// RFC 4787, 4.3 lets nobody choose less than 2 min, but that is for a NAT; DNS needs seconds.
	defaultTimeout = 30 * time.Second

	defaultMax = 65536 // more than there are ports for on the way to backends

	// The kernel's own default is 208 KiB, some 270 small datagrams: a burst within a few milliseconds.
	defaultReceiveBuffer = 4 << 20
)

func (s *Settings) timeout() time.Duration {
	if s.Timeout == 0 {
		return defaultTimeout
	}
	return s.Timeout
}

// MaxFlows is Max, or its default.
func (s *Settings) MaxFlows() int {
	if s.Max == 0 {
		return defaultMax
	}
	return s.Max
}

// Steered reports whether all flows of one client must be on one loop.
func (s *Settings) Steered() bool { return s.Key == ByClientIP || s.ClientMax > 0 }

// Validate returns what is wrong with the settings.
func (s *Settings) Validate() error {
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

// SocketOptions are the options of the listener's sockets.
func (s *Settings) SocketOptions(o sock.Offload) sock.DatagramOptions {
	receive := s.ReceiveBuffer
	if receive == 0 {
		receive = defaultReceiveBuffer
	}
	return sock.DatagramOptions{ReceiveBuffer: receive, SendBuffer: s.SendBuffer, GRO: o.GRO}
}

// A Listener is a listener of UDP as its flows know it.
type Listener struct {
	*gate.Listener
	settings atomic.Pointer[settings]
}

// settings are a listener's, and where its backends are. A flow keeps what it began with.
type settings struct {
	Settings
	pool *pool.Pool
}

// NewListener makes a listener. Set gives it its settings, before its first client.
func NewListener(ls *gate.Listener) *Listener { return &Listener{Listener: ls} }

// Set changes the settings and the pool, for flows that begin from now on. It may be called from any goroutine.
func (ls *Listener) Set(to Settings, p *pool.Pool) { ls.settings.Store(&settings{to, p}) }

// Pool is where the backends of new flows are picked. It may be called from any goroutine.
func (ls *Listener) Pool() *pool.Pool { return ls.settings.Load().pool }
