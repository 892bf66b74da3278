package sock

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NoSource is what ConnectWith and ConnectDatagramFrom fail with when the local address is not one of this host's, or
// nothing can be sent to the destination from it, as from a loopback address. No system call made here returns this
// number; Text has its words.
const NoSource = unix.EADV

// Text returns the words of an error number, those of the errors that this package adds included.
func Text(e Errno) string {
	switch e {
	case NoSource:
		return "the source address cannot be used"
	case QueueFull:
		return "its queue of new connections is full"
	}
	return e.Error()
}

// ConnectOptions are what a connection has that is not the kernel's choice. The zero value leaves all to the kernel.
type ConnectOptions struct {
	From              netip.Addr // the local address; of the destination's family
	CongestionControl string     // the algorithm's name; one that the kernel does not take is ignored

	// Bound is called with the socket's own address and port before anybody can see it there. The kernel then has a
	// port for one connection only, and not for one connection to each destination.
	Bound func(netip.AddrPort)
}

// Connect makes a socket and starts to connect it. With InProgress, the usual result, an event reports the end of the
// connect: PollOut without PollError is success, else ConnectError returns the reason. With any other Errno but zero
// there is no socket; CauseOf returns its cause. For EADDRNOTAVAIL, Connect returns either NoPort or, if there is no
// address to send from, AddrNotAvail.
func Connect(addr netip.AddrPort) (int, Errno) { return ConnectWith(addr, ConnectOptions{}) }

// ConnectWith is Connect with options. NoPort says that all ports of the address From are in use to this destination,
// and NoSource that From cannot be used.
func ConnectWith(to netip.AddrPort, o ConnectOptions) (int, Errno) {
	var sa unix.RawSockaddrInet6
	size, e := rawSockaddr(to, &sa)
	if e != 0 {
		return -1, e
	}
	s, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(sa.Family),
		unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if e != 0 {
		return -1, e
	}
	fd := int(s)
	if o.CongestionControl != "" {
		setCongestionControl(fd, o.CongestionControl) // a connection with another one is better than none
	}
	if o.From.IsValid() {
		if e = bindSource(fd, o.From, o.Bound == nil); e != 0 {
			Close(fd)
			return -1, e
		}
		if o.Bound != nil {
			if at, err := LocalAddr(fd); err == nil {
				o.Bound(at)
			}
		}
	}
	_, _, e = unix.RawSyscall(unix.SYS_CONNECT, s, uintptr(unsafe.Pointer(&sa)), size)
	if e == 0 || e == InProgress {
		return fd, e
	}
	Close(fd)
	if !o.From.IsValid() {
		return -1, whyNot(e, to, true)
	}
	switch {
	case e == AddrNotAvail: // the address was there a moment ago, so it is the port
		return -1, NoPort
	case isOfSource(o.From, e):
		return -1, NoSource
	}
	return -1, whyNot(e, to, false)
}

// bindSource binds a socket to a local address. late leaves the choice of a TCP port to connect: the kernel may then
// give connections to other destinations the same port.
func bindSource(fd int, from netip.Addr, late bool) Errno {
	if late {
		one := int32(1) // Linux 4.2; without it, a port is for one connection
		setsockopt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, unsafe.Pointer(&one), unsafe.Sizeof(one))
	}
	var sa unix.RawSockaddrInet6
	size, e := rawSockaddr(netip.AddrPortFrom(from, 0), &sa)
	if e != 0 {
		return NoSource // its interface is not there
	}
	_, _, e = unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size)
	switch e {
	case unix.EADDRINUSE: // bind(2): all ephemeral ports are taken
		return NoPort
	case AddrNotAvail, unix.EINVAL, unix.ENODEV, unix.EAFNOSUPPORT:
		return NoSource
	}
	return e
}
