package sock

import (
	"errors"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TooLong is the error of sending a datagram that, with the header in front of it, is longer than UDP or the path
// allows.
const TooLong = unix.EMSGSIZE

// NoPort is the error of ConnectDatagram when the kernel has no local port left (send(2)).
const NoPort = unix.EAGAIN

// An Offload says which of the kernel's ways to move several datagrams in one call are available.
type Offload struct {
	GRO bool // UDP_GRO, Linux 5.0: datagrams of one sender and one size are read as a train
	GSO bool // UDP_SEGMENT, Linux 4.18: a train is sent in one piece
}

// DetectOffload asks the kernel which Offload it supports, with a temporary socket.
func DetectOffload() (Offload, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return Offload{}, os.NewSyscallError("socket", err)
	}
	defer Close(fd)
	return Offload{
		GRO: setInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil,
		GSO: setInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 0) == nil,
	}, nil
}

// DatagramOptions are the options of a UDP socket that clients send to.
type DatagramOptions struct {
	DualStack     bool // an IPv6 wildcard accepts IPv4 clients too
	ReceiveBuffer int  // bytes as in socket(7); 0 = the kernel's default; getting less is no error
	SendBuffer    int
	GRO           bool // the kernel may deliver datagrams as trains
	Named         bool // each datagram comes with its local address, for a socket that has several
}

// ListenDatagram opens a UDP socket that shares its address with others of this process (SO_REUSEPORT). The kernel
// spreads clients over them, and keeps each client on one socket as long as the set of sockets does not change.
//
// With first set, it fails if another socket has the address already, see Listen. SO_REUSEADDR, which TCP needs, would
// let two unrelated processes bind one UDP address, and only the later one would receive anything; so it is never set
// here.
func ListenDatagram(addr netip.AddrPort, o DatagramOptions, first bool) (int, error) {
	sa, family, err := sockaddr(addr)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := bindDatagram(fd, sa, family, o, first); err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

func bindDatagram(fd int, sa unix.Sockaddr, family int, o DatagramOptions, first bool) error {
	if !first {
		if err := setInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	if family == unix.AF_INET6 {
		only := 1
		if o.DualStack {
			only = 0
		}
		if err := setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
	}
	if err := TuneDatagram(fd, o); err != nil { // before the first datagram can arrive
		return err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if first {
		return setInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	return nil
}

// TuneDatagram sets the options of a socket that clients send to, all but DualStack. It also makes the socket report
// how many datagrams the kernel had to drop.
func TuneDatagram(fd int, o DatagramOptions) error {
	if o.Named {
		if err := reportLocal(fd); err != nil {
			return err
		}
	}
	if err := setInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return err
	}
	if o.GRO {
		if err := setInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
			return err
		}
	}
	SetBuffers(fd, o.ReceiveBuffer, o.SendBuffer)
	return nil
}

// reportLocal makes a socket report each datagram's destination address.
func reportLocal(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if family == unix.AF_INET {
		return setInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	// On an IPv6 socket this covers IPv4 datagrams too, whose addresses are mapped into IPv6.
	return setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// SetBuffers sets the sizes of the socket's buffers in bytes; zero keeps the current size. A process with CAP_NET_ADMIN
// may exceed net.core.rmem_max and wmem_max; for others these are the limits.
func SetBuffers(fd, receive, send int) {
	for _, b := range [...]struct{ bytes, force, name int }{
		{receive, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF},
		{send, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
	} {
		if b.bytes <= 0 {
			continue
		}
		v := int32(b.bytes)
		if setsockopt(fd, unix.SOL_SOCKET, b.force, unsafe.Pointer(&v), unsafe.Sizeof(v)) != 0 {
			setsockopt(fd, unix.SOL_SOCKET, b.name, unsafe.Pointer(&v), unsafe.Sizeof(v))
		}
	}
}

// ErrNotDatagram is InheritDatagram's error for an open descriptor that is not a UDP socket.
var ErrNotDatagram = errors.New("not a UDP socket")

// InheritDatagram checks a UDP socket that another process bound, and returns its address. The descriptor becomes
// non-blocking and close-on-exec; the caller still owns it.
func InheritDatagram(fd int) (netip.AddrPort, error) {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	switch {
	case errors.Is(err, unix.ENOTSOCK):
		return netip.AddrPort{}, ErrNotDatagram
	case err != nil:
		return netip.AddrPort{}, os.NewSyscallError("getsockopt", err)
	case protocol != unix.IPPROTO_UDP:
		return netip.AddrPort{}, ErrNotDatagram
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("fcntl", err)
	}
	unix.CloseOnExec(fd)
	return LocalAddr(fd)
}

// ConnectDatagram makes a UDP socket and connects it: the socket receives datagrams from that address alone, and learns
// of ICMP errors. If the Errno is not zero, there is no socket.
func ConnectDatagram(addr netip.AddrPort) (int, Errno) {
	return ConnectDatagramFrom(netip.Addr{}, addr)
}

// ConnectDatagramFrom is ConnectDatagram from a local address, if from is valid. NoSource says that it cannot be used.
// The socket has a port that no other UDP socket of this address has, so each address adds as many ports.
func ConnectDatagramFrom(from netip.Addr, addr netip.AddrPort) (int, Errno) {
	fd, e := connectDatagram(from, addr)
	if e != 0 && from.IsValid() && isOfSource(from, e) {
		return -1, NoSource
	}
	return fd, e
}

// connectDatagram is ConnectDatagramFrom, but does not tell errors apart that may be about from.
func connectDatagram(from netip.Addr, addr netip.AddrPort) (int, Errno) {
	var sa unix.RawSockaddrInet6
	size, e := rawSockaddr(addr, &sa)
	if e != 0 {
		return -1, e
	}
	s, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(sa.Family),
		unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if e != 0 {
		return -1, e
	}
	fd := int(s)
	// Without it, a connected socket learns that the port is closed, but not that the host is unreachable.
	level, name := unix.IPPROTO_IP, unix.IP_RECVERR
	if sa.Family == unix.AF_INET6 {
		level, name = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	one := int32(1)
	setsockopt(fd, level, name, unsafe.Pointer(&one), unsafe.Sizeof(one))
	if from.IsValid() {
		if e = bindSource(fd, from, false); e != 0 {
			Close(fd)
			return -1, e
		}
	}
	if _, _, e = unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size); e != 0 {
		Close(fd)
		return -1, whyNot(e, addr, false)
	}
	return fd, 0
}

// ExpectTrains prepares a connected UDP socket for many datagrams: it reads trains if gro is set, has a larger buffer,
// and reports how many datagrams the kernel had to drop. For a single question these calls do not pay.
func ExpectTrains(fd int, gro bool, receiveBuffer int) {
	one := int32(1)
	if gro {
		setsockopt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, unsafe.Pointer(&one), unsafe.Sizeof(one))
	}
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, unsafe.Pointer(&one), unsafe.Sizeof(one))
	SetBuffers(fd, receiveBuffer, 0)
}

// maxQueuedErrors bounds how many errors DatagramError reads in one call. A socket's buffer holds more only in a flood.
const maxQueuedErrors = 256

// A Report says why the other end of a connected UDP socket cannot be reached. The zero value means that there is no
// such report.
type Report struct {
	Errno Errno
	Sure  bool // found out by this host; else an ICMP hint, which anyone who knows addresses and ports can forge
}

// DatagramError takes the queued errors of a socket of ConnectDatagram, and returns the first that concerns its other
// end; a sure one wins over a hint. It reads the error queue, since sendmmsg(2) may have swallowed the pending error. A
// datagram that was too long for the path is not such an error: the kernel remembers the path's limit, and fragments
// later datagrams.
func DatagramError(fd int) (found Report) {
	var c control
	var h unix.Msghdr
	own, ownKnown := netip.Addr{}, false
	for range maxQueuedErrors {
		h.Control = (*byte)(unsafe.Pointer(&c))
		h.SetControllen(controlBytes)
		if _, _, e := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)),
			unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); e != 0 {
			break
		}
		e, offender := c.queuedError(int(h.Controllen))
		if e == 0 || e == TooLong || found.Sure {
			continue
		}
		if !ownKnown && offender.Is4() {
			at, _ := LocalAddr(fd)
			own, ownKnown = at.Addr(), true
		}
		if sure := foundHere(offender, own); sure || found.Errno == 0 {
			found = Report{e, sure}
		}
	}
	if e := ConnectError(fd); found.Errno == 0 && e != TooLong {
		found.Errno = e
	}
	return found
}

// foundHere reports whether an ICMP error comes from this host. It does when nobody on the link has the backend's
// address, or when the backend is on this host. The kernel accepts no packet from outside with a loopback address as
// its source, nor, for IPv4, with one of its own addresses (martians), so nobody else can have sent the error.
func foundHere(offender, own netip.Addr) bool {
	return offender.IsLoopback() || offender.Is4() && offender == own
}

// queuedError returns the error in a message of the error queue (ip(7), IP_RECVERR), and the address of its sender.
func (c *control) queuedError(size int) (e Errno, offender netip.Addr) {
	c.each(size, func(level, kind int32, data unsafe.Pointer) {
		if level == unix.IPPROTO_IP && kind == unix.IP_RECVERR ||
			level == unix.IPPROTO_IPV6 && kind == unix.IPV6_RECVERR {
			e = Errno((*unix.SockExtendedErr)(data).Errno)
			behind := (*unix.RawSockaddrInet6)(unsafe.Add(data,
				unsafe.Sizeof(unix.SockExtendedErr{}))) // SO_EE_OFFENDER
			if behind.Family == unix.AF_INET || behind.Family == unix.AF_INET6 {
				offender = addrPort(behind).Addr()
			}
		}
	})
	return e, offender
}

// Unreachable reports whether an error means that the other end of a socket of ConnectDatagram cannot be reached.
func Unreachable(e Errno) bool {
	switch e {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENONET,
		unix.EACCES, unix.ENOPROTOOPT,
		unix.EPROTO, unix.ETIMEDOUT:
		return true
	}
	return false
}

// Forbidden reports whether an error of sending means that a firewall of this host forbids it, or that the table of
// tracked connections is full.
func Forbidden(e Errno) bool { return e == unix.EPERM }

// SourceGone reports whether an error of sending means that the connected socket's own address no longer exists on this
// host. A new socket gets an address that does.
func SourceGone(e Errno) bool { return e == unix.EINVAL || e == AddrNotAvail }

// SendDatagram sends one datagram on a connected UDP socket; it may be empty.
func SendDatagram(fd int, p []byte) Errno {
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		if e != unix.EINTR {
			return e
		}
	}
}

// datagramEvents is what a socket of AddDatagram is always watched for. The last two occur at connections only: with
// neither, a read that is shorter than its buffer has taken everything.
const datagramEvents = unix.EPOLLIN | unix.EPOLLET | unix.EPOLLRDHUP | unix.EPOLLPRI

// AddDatagram registers a UDP socket, or a connection that carries messages, for what can be read and for errors,
// edge-triggered. It does not watch for room to send: a UDP socket has room nearly always, and would report it after
// every datagram.
func (p *Poller) AddDatagram(fd int, id int32, generation uint32) Errno {
	return p.ctl(fd, id, generation, datagramEvents)
}

// WatchRoom turns reports of room to send on or off for a socket of AddDatagram. It also reports again whatever is
// ready already.
func (p *Poller) WatchRoom(fd int, id int32, generation uint32, on bool) {
	ev := unix.EpollEvent{Events: datagramEvents, Fd: id, Pad: int32(generation)}
	if on {
		ev.Events |= unix.EPOLLOUT
	}
	unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(&ev)),
		0, 0)
}
