package dial

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// portsOf names a set of local ports: for TCP those of a source address to one destination, for UDP those of a source
// address to all.
type portsOf struct {
	protocol sock.Protocol
	from     netip.Addr
	to       netip.AddrPort // not valid for UDP
}

const (
	// exhaustedFor is how long a source address comes last after it had no port left. To find that out again costs a
	// millisecond, since the kernel searches all its ports in vain.
	exhaustedFor = 100 * time.Millisecond

	// exhaustedMax bounds the table of such addresses.
	exhaustedMax = 1024
)

// dialFrom connects to a backend at an address, from one of the source addresses of its pool. The first one is the next
// in turn for the backend. One that this host does not have, or that has no port left, is followed by the next. Those
// that had no port a moment ago come last, and only the first of them is tried.
//
// It returns sock.NoPort if an address had no port, else sock.NoSource; both say nothing about the backend.
func (d *Dialer) dialFrom(
	now time.Duration, p sock.Protocol, of *pool.Pool, b *pool.Backend, to netip.AddrPort, c Client,
	sources []netip.Addr,
) (int, sock.Errno) {
	if len(sources) == 0 {
		return -1, sock.NoSource
	}
	o := sock.ConnectOptions{CongestionControl: of.CongestionControl(to.Addr())}
	first := int(b.Turn() % uint32(len(sources)))
	failure, last := sock.Errno(sock.NoSource), netip.Addr{}
	for i := range sources {
		o.From = sources[(first+i)%len(sources)]
		if d.isExhausted(now, portsFrom(p, o.From, to)) {
			if failure = sock.NoPort; !last.IsValid() {
				last = o.From
			}
			continue
		}
		fd, e := d.dialSource(now, p, to, c, o)
		if e != sock.NoPort && e != sock.NoSource {
			return fd, e
		}
		if e == sock.NoPort {
			failure = e
		}
	}
	if last.IsValid() {
		o.From = last
		if fd, e := d.dialSource(now, p, to, c, o); e != sock.NoSource {
			return fd, e
		}
	}
	return -1, failure
}

// dialSource connects from the source address in o, and notes when it has no port.
func (d *Dialer) dialSource(
	now time.Duration, p sock.Protocol, to netip.AddrPort, c Client, o sock.ConnectOptions,
) (int, sock.Errno) {
	if o.From.Is6() && !d.isLocal(now, o.From) {
		return -1, sock.NoSource // with net.ipv6.ip_nonlocal_bind the kernel would send from it, and get no answer
	}
	fd, e := d.dial(now, p, to, c, o)
	if e == sock.NoPort {
		d.noteExhausted(now, portsFrom(p, o.From, to))
	}
	return fd, e
}

func portsFrom(p sock.Protocol, from netip.Addr, to netip.AddrPort) portsOf {
	if p == sock.UDP {
		return portsOf{protocol: p, from: from}
	}
	return portsOf{protocol: p, from: from, to: to}
}

func (d *Dialer) noteExhausted(now time.Duration, ports portsOf) {
	if len(d.exhausted) >= exhaustedMax {
		clear(d.exhausted)
	}
	if d.exhausted == nil {
		d.exhausted = make(map[portsOf]time.Duration)
	}
	d.exhausted[ports] = now + exhaustedFor
}

// Freed says that sockets were closed, so that a source address may have a port again.
func (d *Dialer) Freed() { clear(d.exhausted) }

// isExhausted reports whether a source address had no port a moment ago.
func (d *Dialer) isExhausted(now time.Duration, ports portsOf) bool {
	if len(d.exhausted) == 0 {
		return false
	}
	until, known := d.exhausted[ports]
	if known && now >= until {
		delete(d.exhausted, ports)
		return false
	}
	return known
}
