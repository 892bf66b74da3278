// Package dial connects sockets to backends, and says what the end of an attempt means for the backend. It also notices
// backends that are listeners of this very process, so that clients do not go round in a circle.
package dial

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A Dialer is one loop's, used onLoop only. See NewDialer.
type Dialer struct {
	chains     *Chains
	localities map[netip.Addr]locality
	exhausted  map[portsOf]time.Duration // sources that had no port left, and until when they come last
}

// NewDialer returns a dialer that notes its sockets in c.
func NewDialer(c *Chains) *Dialer { return &Dialer{chains: c} }

// A Client is on whose behalf a socket is connected: a listener's client, and its link, which is nil for none.
// Afterwards the link is the socket's too if the backend is a listener of ours.
type Client struct {
	By   ListenerID
	Link **Link
	Port uint16 // that it has connected to, for backends without a port of their own; 0 if there is none
}

// Dial makes a socket and connects it to a backend of a pool, from a source address of the pool if it has some. For TCP
// the error is sock.InProgress while the connect goes on. A backend that is a Unix socket takes TCP's part and has no
// source; UDP cannot reach it. A backend without a port gets the client's, and the error is sock.PortNeeded if there is
// none. The socket belongs to the caller, who calls Forget when it is closed.
func (d *Dialer) Dial(
	now time.Duration, p sock.Protocol, of *pool.Pool, b *pool.Backend, c Client,
) (fd int, e sock.Errno) {
	to := b.Addr()
	if to.IsUnix() {
		if p == sock.UDP {
			return -1, sock.NoProtocol
		}
		return sock.ConnectUnix(to.Path)
	}
	if to.IsPortless() {
		if c.Port == 0 {
			return -1, sock.PortNeeded
		}
		to = to.WithPort(c.Port)
	}
	sources, only := of.Sources(to.Addr())
	if only {
		return d.dialFrom(now, p, of, b, to.AddrPort, c, sources)
	}
	return d.dial(now, p, to.AddrPort, c, sock.ConnectOptions{CongestionControl: of.CongestionControl(to.Addr())})
}

// dial makes a socket and connects it with these options.
func (d *Dialer) dial(
	now time.Duration, p sock.Protocol, to netip.AddrPort, c Client, o sock.ConnectOptions,
) (fd int, e sock.Errno) {
	switch {
	case d.isOwn(now, p, to):
		return d.dialOwn(p, to, c, o)
	case p == sock.UDP:
		return sock.ConnectDatagramFrom(o.From, to)
	}
	return sock.ConnectWith(to, o)
}

// Chains are where the dialer notes its sockets.
func (d *Dialer) Chains() *Chains { return d.chains }

// Forget says that the socket of a link is closed, or about to be; k may be nil.
func (d *Dialer) Forget(k *Link) { d.chains.Forget(k) }

func (d *Dialer) dialOwn(p sock.Protocol, to netip.AddrPort, by Client, o sock.ConnectOptions) (int, sock.Errno) {
	c := d.chains
	k := by.Link
	if *k == nil {
		*k = new(Link)
	}
	one := *k
	c.Forget(one)
	if one.chain == nil {
		one.chain = NewChain(by.By)
		if one.came != nil {
			one.chain.listeners = append(one.chain.listeners, one.came.listeners...)
		}
	}
	note := func(at netip.AddrPort) { c.note(one, socketName{p, at}) }
	if p == sock.TCP { // the listener may accept it before connect returns
		chosen := o.From.IsValid()
		if !chosen {
			o.From = to.Addr()
		}
		o.Bound = note
		fd, e := sock.ConnectWith(to, o)
		if e == sock.NoSource && !chosen {
			e = sock.AddrNotAvail // the backend's own address is gone, and no source
		}
		if e != 0 && e != sock.InProgress {
			c.Forget(one)
		}
		return fd, e
	}
	fd, e := sock.ConnectDatagramFrom(o.From, to)
	if e == 0 {
		if at, err := sock.LocalAddr(fd); err == nil {
			note(at)
		}
	}
	return fd, e
}

// isOwn reports whether a listener of this process listens at an address.
func (d *Dialer) isOwn(now time.Duration, p sock.Protocol, at netip.AddrPort) bool {
	own := d.chains.own.Load()
	if own == nil || own.ports[p][at.Port()/64]&(1<<(at.Port()%64)) == 0 {
		return false
	}
	for _, bound := range own.at[p] {
		if bound.Port() != at.Port() {
			continue
		}
		if bound.Addr() == at.Addr() || bound.Addr().IsUnspecified() && d.isLocal(now, at.Addr()) {
			return true
		}
	}
	return false
}

// A host's addresses change seldom. Those that are asked about are backends', and few; but there is a bound.
const (
	localFor = 5 * time.Second
	localMax = 4096
)

// A locality is whether an address is one of this host's, and until when that is taken to be so.
type locality struct {
	local bool
	until time.Duration
}

// isLocal reports whether an address is one of this host's.
func (d *Dialer) isLocal(now time.Duration, a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	known := d.localities[a]
	if now >= known.until {
		if len(d.localities) >= localMax {
			clear(d.localities)
		}
		if d.localities == nil {
			d.localities = make(map[netip.Addr]locality)
		}
		known = locality{sock.IsLocal(a), now + localFor}
		d.localities[a] = known
	}
	return known.local
}
