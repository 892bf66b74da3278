package l4

import (
	"errors"
	"fmt"
	"net/netip"
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
// Apply keeps a copy. Name, Address and Pool are required; a zero time is without a limit.
type ListenerSpec struct {
	Name      string
	Address   netip.AddrPort
	DualStack bool // Address is [::]: IPv4 clients too, and they alone where the kernel has no IPv6
	Pool      *pool.Pool
	Backlog   int // clients that wait in the kernel to be accepted; 0 = 4096

	MaxSessions      int           // at once on this listener; 0 = without a limit of its own
	IdleTimeout      time.Duration // neither side sent anything for so long
	HalfCloseTimeout time.Duration // the same, once one side has closed its half
	UserTimeout      time.Duration // TCP_USER_TIMEOUT, both sides; 0 = the kernel's
	KeepAlive        KeepAlive     // both sides
	Refuse           Refusal
}

// A ListenerInfo is what a listener has come to, read without stopping it; an immutable copy.
type ListenerInfo struct {
	Name     string
	Address  netip.AddrPort
	Sessions int               // now
	BytesIn  uint64            // from clients, of sessions that have ended
	BytesOut uint64            // to clients, the same
	Ended    map[Reason]uint64 // sessions and refusals by their reason
}

// A ListenError is a listener that could not be opened; the system's error is wrapped.
type ListenError struct {
	Listener string
	Address  netip.AddrPort
	Err      error
}

// Error says which listener could not listen where, and why.
func (e *ListenError) Error() string {
	return fmt.Sprintf("listener %q: listen on %s: %v", e.Listener, e.Address, e.Err)
}

// Unwrap returns the system's error.
func (e *ListenError) Unwrap() error { return e.Err }

const defaultBacklog = 4096 // net.core.somaxconn's default since Linux 5.4; the kernel caps what is above it

// A listener is a bound address and its doors. Its methods may be called from any goroutine.
type listener struct {
	// set once, then read-only
	name     string
	address  netip.AddrPort // as bound: a port 0 in the spec is the port it came to be
	counters []loopCounters // one for each loop

	spec     atomic.Pointer[ListenerSpec] // replaced by Apply; sessions keep what they began with
	sessions atomic.Int64

	refusalNote  atomic.Int64  // when noteRefusal may log again, in nanoseconds since Server.started
	refusalsTold atomic.Uint64 // how many noteRefusals has told of
}

// loopCounters are one listener's counts on one loop: written there only, read by anyone. The padding
// keeps loops out of each other's cache lines.
type loopCounters struct {
	ended    [reasonCount]atomic.Uint64
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64
	_        [64]byte
}

// count adds an ended session to the loop's figures.
func (ls *listener) count(loop int, s *session, why Reason) {
	c := &ls.counters[loop]
	c.ended[why].Add(1)
	c.bytesIn.Add(s.in.bytes)
	c.bytesOut.Add(s.out.bytes)
}

func (ls *listener) info() ListenerInfo {
	info := ListenerInfo{
		Name: ls.name, Address: ls.address,
		Sessions: int(ls.sessions.Load()), Ended: make(map[Reason]uint64),
	}
	for i := range ls.counters {
		c := &ls.counters[i]
		info.BytesIn += c.bytesIn.Load()
		info.BytesOut += c.bytesOut.Load()
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

// opened is a listener with its sockets, one for each loop, before the loops have them.
type opened struct {
	listener *listener
	sockets  []int
}

// open binds a listener's sockets. shared says that another listener of this process holds the port, for an
// address that includes this one or is part of it; else nobody may.
func open(spec ListenerSpec, loops int, shared bool) (_ *opened, err error) {
	o := &opened{listener: &listener{name: spec.Name, address: spec.Address, counters: make([]loopCounters, loops)}}
	o.listener.spec.Store(&spec)
	defer func() {
		if err != nil {
			o.close()
			err = &ListenError{Listener: spec.Name, Address: spec.Address, Err: err}
		}
	}()
	options := spec.listenOptions()
	if options.DualStack && !sock.HasIPv6() {
		options.DualStack = false
		o.listener.address = netip.AddrPortFrom(netip.IPv4Unspecified(), spec.Address.Port())
	}
	for i := range loops {
		fd, err := sock.Listen(o.listener.address, options, i == 0 && !shared)
		if err != nil {
			return nil, err
		}
		o.sockets = append(o.sockets, fd)
		local, err := sock.LocalAddr(fd)
		if err != nil {
			return nil, err
		}
		// Only the port is news: the address would come without its zone.
		o.listener.address = netip.AddrPortFrom(o.listener.address.Addr(), local.Port())
	}
	return o, nil
}

func (o *opened) close() {
	for _, fd := range o.sockets {
		sock.Close(fd)
	}
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

// sameSockets tells whether the sockets of one spec serve the other too.
func (spec *ListenerSpec) sameSockets(other *ListenerSpec) bool {
	return spec.Address == other.Address && spec.listenOptions() == other.listenOptions()
}

func (spec *ListenerSpec) validate() error {
	switch {
	case spec.Name == "":
		return errors.New("a listener has no name")
	case spec.Pool == nil:
		return fmt.Errorf("listener %q has no pool", spec.Name)
	case !spec.Address.IsValid():
		return fmt.Errorf("listener %q has no address", spec.Name)
	}
	return nil
}
