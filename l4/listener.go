package l4

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// KeepAlive says when the kernel asks a silent peer whether it is still there (tcp(7)).
// Idle 0 turns it off; both times count in whole seconds.
type KeepAlive = sock.KeepAlive

// A Refusal is how a client that cannot be served is turned away.
type Refusal uint8

// The refusals.
const (
	RefuseReset Refusal = iota // with a RST: the client knows at once that this was no orderly end
	RefuseClose                // with a FIN, after reading what the client has sent so far
)

// A ListenerSpec describes a listener: where it listens, what it sends clients to, and how. It is a value;
// Apply keeps a copy. Name, Address (or Inherited) and Pool are required; a zero time is without a limit.
type ListenerSpec struct {
	Name      string
	Address   netip.AddrPort
	DualStack bool // Address is [::]: IPv4 clients too, and they alone where the kernel has no IPv6

	// Inherited are descriptors of sockets of one address, TCP ones that listen already or bound UDP ones (systemd
	// socket activation); Address and DualStack mean nothing then. They become the server's with Commit, which gives
	// them its options, and are closed when the listener goes. A later Plan names the same numbers, and keeps them.
	Inherited []int

	Protocol Protocol
	Flows    FlowSettings // for UDP; and for TCP alone are Backlog and what follows upon it
	DNS      *DNSSettings // for clients who ask DNS questions; nil = what they send is relayed as it is

	Pool    *pool.Pool
	Backlog int // clients that wait in the kernel to be accepted; 0 = 4096

	MaxSessions      int           // at once on this listener; 0 = without a limit of its own
	IdleTimeout      time.Duration // neither side sent anything for so long
	HalfCloseTimeout time.Duration // the same, once one side has closed its half and the other has taken all
	UserTimeout      time.Duration // a peer that acknowledges nothing for so long has vanished, see look; both sides; 0 = the kernel's
	KeepAlive        KeepAlive     // both sides
	Refuse           Refusal
}

// A ListenerInfo is what a listener has come to, read without stopping it; an immutable copy.
type ListenerInfo struct {
	Name     string
	Address  netip.AddrPort
	Pool     string
	Protocol Protocol
	Sessions int                     // now, or flows
	Accepted uint64                  // sessions that have begun: all clients but those refused with MaxSessions; or flows
	BytesIn  uint64                  // from clients; of running sessions up to some seconds ago, of ended ones exactly
	BytesOut uint64                  // to clients, the same
	Ended    map[Reason]uint64       // sessions and refusals by their reason
	Retries  map[pool.Outcome]uint64 // connects that followed a failed one, by how that failed

	DatagramsIn  uint64          // from clients, those that were dropped and those of DropReceiveBuffer left out included: see Dropped
	DatagramsOut uint64          // to clients
	Dropped      map[Drop]uint64 // datagrams either way
	DNS          *DNSInfo        // nil without DNS settings

	ConnectTime   Histogram // of connects that succeeded
	FirstByteTime Histogram // from when the backend was asked, or connected if it spoke unasked, to its first byte
	Duration      Histogram // of ended sessions that had been connected to a backend, from accept to end
	QueueTime     Histogram // of sessions that waited for a backend, until they were connected to one or ended without
}

// A ListenError is a listener that could not be opened; the system's error is wrapped.
type ListenError struct {
	Listener string
	Address  netip.AddrPort
	Err      error
}

// Error says which listener could not listen where, and why.
func (e *ListenError) Error() string {
	if !e.Address.IsValid() { // it was to inherit its sockets
		return fmt.Sprintf("listener %q: %v", e.Listener, e.Err)
	}
	return fmt.Sprintf("listener %q: listen on %s: %v", e.Listener, e.Address, e.Err)
}

// Unwrap returns the system's error.
func (e *ListenError) Unwrap() error { return e.Err }

const defaultBacklog = 4096 // net.core.somaxconn's default since Linux 5.4; the kernel caps what is above it

// A listener is a bound address and its doors. Its methods may be called from any goroutine.
type listener struct {
	// set once, then read-only
	name     string
	counters []loopCounters // one for each loop

	halfClosed []ageQueue[session] // of each loop, used onLoop only: sessions one side of which has closed its half

	// Server.changing and Server.mu guard these
	bound *binding
	dns   *dnsService // nil without DNS settings

	spec     atomic.Pointer[ListenerSpec] // replaced by Apply; sessions keep what they began with
	sessions atomic.Int64

	unanswered atomic.Int64 // flows, those that are being begun included

	loopNote     atomic.Int64  // the same of noteLoop
	refusalNote  atomic.Int64  // when noteRefusal may log again, in nanoseconds since Server.started
	refusalsTold atomic.Uint64 // how many noteRefusals has told of
}

// loopCounters are one listener's counts on one loop: written there only, read by anyone. The padding
// keeps loops out of each other's cache lines.
type loopCounters struct {
	accepted atomic.Uint64
	ended    [reasonCount]atomic.Uint64
	retries  [pool.Neutral + 1]atomic.Uint64
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64

	datagramsIn  atomic.Uint64
	datagramsOut atomic.Uint64
	dropped      [dropCount]atomic.Uint64

	connectTime, firstByteTime, duration, queueTime histogram

	_ [64]byte
}

// count adds a session that ends to the loop's figures, all but its bytes.
func (c *loopCounters) count(s *session, why Reason, now time.Duration) {
	c.ended[why].Add(1)
	switch {
	case s.phase == relaying:
		c.duration.observe(now - s.accepted)
	case s.waiter != nil && (why != QueueFull || s.waiting > 0):
		c.queueTime.observe(s.waited(now))
	}
}

func (ls *listener) info() ListenerInfo {
	info := ListenerInfo{
		Name: ls.name, Address: ls.bound.address, Pool: ls.spec.Load().Pool.Name(),
		Sessions: int(ls.sessions.Load()), Ended: make(map[Reason]uint64), Retries: make(map[pool.Outcome]uint64),
		Protocol: ls.spec.Load().Protocol, Dropped: make(map[Drop]uint64),
	}
	for i := range ls.counters {
		c := &ls.counters[i]
		info.Accepted += c.accepted.Load()
		info.BytesIn += c.bytesIn.Load()
		info.BytesOut += c.bytesOut.Load()
		info.DatagramsIn += c.datagramsIn.Load()
		info.DatagramsOut += c.datagramsOut.Load()
		for drop := range c.dropped {
			if n := c.dropped[drop].Load(); n > 0 {
				info.Dropped[Drop(drop)] += n
			}
		}
		for outcome := range c.retries {
			if n := c.retries[outcome].Load(); n > 0 {
				info.Retries[pool.Outcome(outcome)] += n
			}
		}
		info.ConnectTime.merge(&c.connectTime)
		info.FirstByteTime.merge(&c.firstByteTime)
		info.Duration.merge(&c.duration)
		info.QueueTime.merge(&c.queueTime)
	}
	if ls.dns != nil {
		info.DNS = ls.dns.info()
	}
	for _, r := range Reasons() {
		if n := ls.ended(r); n > 0 {
			info.Ended[r] = n
		}
	}
	return info
}

// ended counts the sessions and refusals of that reason, over all loops.
func (ls *listener) ended(r Reason) (n uint64) {
	for i := range ls.counters {
		n += ls.counters[i].ended[r].Load()
	}
	return n
}

func (spec *ListenerSpec) listenOptions() sock.ListenOptions {
	backlog := spec.Backlog
	if backlog == 0 {
		backlog = defaultBacklog
	}
	return sock.ListenOptions{
		Backlog: backlog, DualStack: spec.DualStack,
		UserTimeout: spec.UserTimeout, KeepAlive: spec.KeepAlive,
	}
}

// address is where the spec's listener is to listen.
func (spec *ListenerSpec) address() netip.AddrPort {
	if len(spec.Inherited) == 0 {
		return spec.Address
	}
	at, _ := sock.LocalAddr(spec.Inherited[0]) // an error comes when it is bound
	return at
}

// failed is an error of opening the spec's listener.
func (spec *ListenerSpec) failed(err error) error {
	return &ListenError{Listener: spec.Name, Address: spec.Address, Err: err}
}

// sameSockets tells whether the sockets of one spec serve the other too.
func (spec *ListenerSpec) sameSockets(other *ListenerSpec) bool {
	if spec.Protocol != other.Protocol {
		return false
	}
	if len(spec.Inherited) > 0 || len(other.Inherited) > 0 {
		return slices.Equal(spec.Inherited, other.Inherited)
	}
	return spec.Address == other.Address && spec.DualStack == other.DualStack
}

// sameOptions tells whether the sockets of one spec have the options of the other.
func (spec *ListenerSpec) sameOptions(other *ListenerSpec) bool {
	if spec.Protocol == UDP {
		return spec.datagramOptions(sock.Offload{}) == other.datagramOptions(sock.Offload{}) &&
			spec.Flows.steered() == other.Flows.steered()
	}
	return spec.listenOptions() == other.listenOptions()
}

// equal tells whether two specs, whose sockets are the same, mean the same.
func (spec *ListenerSpec) equal(other *ListenerSpec) bool {
	return spec.Name == other.Name && spec.Pool == other.Pool && spec.listenOptions() == other.listenOptions() &&
		spec.MaxSessions == other.MaxSessions && spec.IdleTimeout == other.IdleTimeout &&
		spec.HalfCloseTimeout == other.HalfCloseTimeout && spec.Refuse == other.Refuse && spec.Flows == other.Flows &&
		spec.sameDNS(other)
}

func (spec *ListenerSpec) validate() error {
	switch {
	case spec.Name == "":
		return errors.New("a listener has no name")
	case spec.Pool == nil:
		return fmt.Errorf("listener %q has no pool", spec.Name)
	case !spec.Address.IsValid() && len(spec.Inherited) == 0:
		return fmt.Errorf("listener %q has no address", spec.Name)
	case spec.Protocol > UDP:
		return fmt.Errorf("listener %q has an undefined protocol", spec.Name)
	}
	if err := spec.Flows.validate(); err != nil {
		return fmt.Errorf("listener %q: %w", spec.Name, err)
	}
	if err := spec.validateDNS(); err != nil {
		return fmt.Errorf("listener %q: %w", spec.Name, err)
	}
	return nil
}
