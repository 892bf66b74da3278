package sock

import (
	"errors"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TooLong is what a datagram fails with that is longer, with what stands in front of it, than UDP or the path allows.
const TooLong = unix.EMSGSIZE

// NoPort is what ConnectDatagram fails with when the kernel has no local port left (send(2)).
const NoPort = unix.EAGAIN

// An Offload says which of the kernel's ways to move several datagrams in one go are there.
type Offload struct {
	GRO bool // UDP_GRO, Linux 5.0: datagrams of one sender and one size are read as one train
	GSO bool // UDP_SEGMENT, Linux 4.18: a train is sent as one
}

// DetectOffload asks the kernel, with a socket of its own.
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
	DualStack     bool // an IPv6 wildcard takes IPv4 clients too
	ReceiveBuffer int  // bytes, as the kernel counts them (socket(7)); 0 = the kernel's default. What the kernel does not give is not an error
	SendBuffer    int
	GRO           bool // datagrams come in trains where they can
	Named         bool // each comes with the address it was sent to, for a socket that has several
}

// ListenDatagram opens a UDP socket that shares its address with others of this process (SO_REUSEPORT): the kernel spreads
// clients over them, each to one as long as the sockets stay the same.
//
// With first set nobody else may have the address yet, see Listen. SO_REUSEADDR, which TCP wants, would let two strangers
// have one UDP address, and only the later one hear anything; it is never set here.
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
	if err := TuneDatagram(fd, o); err != nil { // before the first datagram can come
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

// TuneDatagram gives a socket that clients send to its options, all but DualStack, and has it tell how many datagrams the kernel
// had to drop.
func TuneDatagram(fd int, o DatagramOptions) error {
	if o.Named {
		if err := tellLocal(fd); err != nil {
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

// tellLocal has a socket tell of each datagram where it was sent to.
func tellLocal(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if family == unix.AF_INET {
		return setInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	// On an IPv6 socket this tells of IPv4 datagrams too, with the addresses in their form mapped into IPv6.
	return setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// SetBuffers asks for buffers of so many bytes; zero leaves one as it is. A process that may pass net.core.rmem_max and
// wmem_max (CAP_NET_ADMIN) does, others get what these allow.
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

// ErrNotDatagram is InheritDatagram's error for a descriptor that is open but no UDP socket.
var ErrNotDatagram = errors.New("not a UDP socket")

// InheritDatagram looks at a UDP socket that another process has bound, and returns its address. The descriptor becomes
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

// ConnectDatagram makes a UDP socket and connects it: it gets datagrams from that address alone, and learns of ICMP errors. With
// any Errno but zero there is no socket.
func ConnectDatagram(addr netip.AddrPort) (int, Errno) {
	var sa unix.RawSockaddrInet6
	size, e := rawSockaddr(addr, &sa)
	if e != 0 {
		return -1, e
	}
	s, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(sa.Family), unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if e != 0 {
		return -1, e
	}
	fd := int(s)
	// Without it, a connected socket is told that the port is closed, but not that the host is gone.
	level, name := unix.IPPROTO_IP, unix.IP_RECVERR
	if sa.Family == unix.AF_INET6 {
		level, name = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	one := int32(1)
	setsockopt(fd, level, name, unsafe.Pointer(&one), unsafe.Sizeof(one))
	if _, _, e = unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size); e != 0 {
		Close(fd)
		return -1, whyNot(e, addr, false)
	}
	return fd, 0
}

// ExpectTrains prepares a connected UDP socket for many datagrams: it reads trains if gro is set, has a larger buffer, and tells
// how many datagrams the kernel had to drop. A socket for a single question is not worth these calls.
func ExpectTrains(fd int, gro bool, receiveBuffer int) {
	one := int32(1)
	if gro {
		setsockopt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, unsafe.Pointer(&one), unsafe.Sizeof(one))
	}
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, unsafe.Pointer(&one), unsafe.Sizeof(one))
	SetBuffers(fd, receiveBuffer, 0)
}

// maxQueuedErrors bounds what DatagramError takes in one go; a socket's buffer holds more only of a flood.
const maxQueuedErrors = 256

// A Report is why the other end of a connected UDP socket is said to be out of reach. The zero value is that nothing is said.
type Report struct {
	Errno Errno
	Sure  bool // this host has found out itself; else it is a hint: ICMP says so, and whoever knows addresses and ports can forge that
}

// DatagramError takes the errors that a socket of ConnectDatagram has come to know, and returns the first that says
// something of its other end, one that is sure if there is any. It asks the queue of errors, since sendmmsg(2) may have
// swallowed the pending one. That a datagram was too long for the path is no such error: the kernel has taken note, and
// cuts the next ones.
func DatagramError(fd int) (found Report) {
	var c control
	var h unix.Msghdr
	own, ownKnown := netip.Addr{}, false
	for range maxQueuedErrors {
		h.Control = (*byte)(unsafe.Pointer(&c))
		h.SetControllen(controlBytes)
		if _, _, e := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); e != 0 {
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

// foundHere tells whether an ICMP error comes from this host, as one does when nobody on the link has the backend's
// address, or when the backend is on this host. The kernel takes no packet from elsewhere that comes from a loopback
// address, nor, with IPv4, from one of its own (martians): so nobody else can have sent it.
func foundHere(offender, own netip.Addr) bool {
	return offender.IsLoopback() || offender.Is4() && offender == own
}

// queuedError is the error in a message of the queue of errors (ip(7), IP_RECVERR), and who has sent it.
func (c *control) queuedError(size int) (e Errno, offender netip.Addr) {
	c.each(size, func(level, kind int32, data unsafe.Pointer) {
		if level == unix.IPPROTO_IP && kind == unix.IP_RECVERR || level == unix.IPPROTO_IPV6 && kind == unix.IPV6_RECVERR {
			e = Errno((*unix.SockExtendedErr)(data).Errno)
			behind := (*unix.RawSockaddrInet6)(unsafe.Add(data, unsafe.Sizeof(unix.SockExtendedErr{}))) // SO_EE_OFFENDER
			if behind.Family == unix.AF_INET || behind.Family == unix.AF_INET6 {
				offender = addrPort(behind).Addr()
			}
		}
	})
	return e, offender
}

// Unreachable tells whether an error says that the other end of a socket of ConnectDatagram cannot be reached.
func Unreachable(e Errno) bool {
	switch e {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENONET, unix.EACCES, unix.ENOPROTOOPT,
		unix.EPROTO, unix.ETIMEDOUT:
		return true
	}
	return false
}

// Forbidden tells whether an error of sending says that a firewall of this host forbids it, or its table of tracked connections is full.
func Forbidden(e Errno) bool { return e == unix.EPERM }

// SourceGone tells whether an error of sending says that a connected socket has an address that this host has no more.
// Another socket gets one that is there.
func SourceGone(e Errno) bool { return e == unix.EINVAL || e == AddrNotAvail }

// SendDatagram sends one datagram on a connected UDP socket; it may be empty.
func SendDatagram(fd int, p []byte) Errno {
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		if e != unix.EINTR {
			return e
		}
	}
}

// AddDatagram registers a UDP socket for datagrams and errors, edge-triggered. Room to send is not asked for: a UDP socket has
// it nearly always, and would tell of it after every datagram.
func (p *Poller) AddDatagram(fd int, id int32, generation uint32) Errno {
	return p.ctl(fd, id, generation, unix.EPOLLIN|unix.EPOLLET)
}

// WatchRoom changes whether a socket of AddDatagram also tells of room to send. It tells anew what is there already.
func (p *Poller) WatchRoom(fd int, id int32, generation uint32, on bool) {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: id, Pad: int32(generation)}
	if on {
		ev.Events |= unix.EPOLLOUT
	}
	unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
}
