package sock

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A KeepAlive says when the kernel probes a silent peer, and when it gives the peer up (tcp(7)). Idle and Interval
// count in whole seconds, at least one.
type KeepAlive struct {
	Idle     time.Duration // silence before the first probe; 0 = no probes
	Interval time.Duration // between probes
	Count    int           // unanswered probes before the connection is given up
}

// ListenOptions are the options of a listening socket. Accepted sockets inherit the connection's options on Linux,
// which saves a system call per client and option.
type ListenOptions struct {
	Backlog     int           // completed connections that wait for accept; the kernel caps it at somaxconn
	DualStack   bool          // an IPv6 wildcard accepts IPv4 clients too
	UserTimeout time.Duration // TCP_USER_TIMEOUT; 0 = the kernel's
	KeepAlive   KeepAlive

	FastOpen          bool   // TCP Fast Open (RFC 7413), with a queue as long as Backlog
	CongestionControl string // the algorithm's name; "" = the system's, or LoopbackCongestionControl
}

// Listen opens a listening TCP socket that shares its address with others of this process (SO_REUSEPORT). The kernel
// spreads clients over them.
//
// With first set, it fails if another socket listens there already. Sockets of one user with SO_REUSEPORT share an
// address silently, so two daemons started by mistake would each get half of the clients. To prevent that, the first
// socket binds and listens without the option, which only one socket can do, and gets the option afterwards.
func Listen(addr netip.AddrPort, o ListenOptions, first bool) (int, error) {
	fd, err := bound(addr, o.DualStack, !first)
	if err != nil {
		return -1, err
	}
	if err := listen(fd, o, first); err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

func listen(fd int, o ListenOptions, first bool) error {
	if err := setListenOptions(fd, o); err != nil {
		return err
	}
	if o.CongestionControl == "" {
		resetCongestionControl(fd)
	}
	if err := unix.Listen(fd, o.Backlog); err != nil {
		return os.NewSyscallError("listen", err)
	}
	if first {
		return setInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	return nil
}

// HasIPv6 reports whether the kernel supports IPv6 at all. It does not if it was booted with ipv6.disable=1.
func HasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return !errors.Is(err, unix.EAFNOSUPPORT)
	}
	Close(fd)
	return true
}

// bound makes a TCP socket and binds it to addr.
func bound(addr netip.AddrPort, dualStack, share bool) (int, error) {
	sa, family, err := sockaddr(addr)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := bind(fd, sa, family, dualStack, share); err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

func bind(fd int, sa unix.Sockaddr, family int, dualStack, share bool) error {
	if err := setInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if share {
		if err := setInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	if family == unix.AF_INET6 {
		only := 1
		if dualStack {
			only = 0
		}
		if err := setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return nil
}

func setListenOptions(fd int, o ListenOptions) error {
	if err := setInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	if o.FastOpen {
		if err := setInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, o.Backlog); err != nil {
			return err
		}
	}
	if o.CongestionControl != "" {
		if e := setCongestionControl(fd, o.CongestionControl); e != 0 {
			return &CongestionError{Name: o.CongestionControl, Err: e}
		}
	}
	return SetLiveness(fd, o.KeepAlive, o.UserTimeout)
}

// SetLiveness sets how a connection detects that its peer has vanished: keepalive while nothing is sent,
// TCP_USER_TIMEOUT while something is. The latter also gives up a peer that answers but keeps its window closed for
// that long; see Sent and SetUserTimeout. On a listening socket it applies to all connections accepted from it.
func SetLiveness(fd int, k KeepAlive, userTimeout time.Duration) error {
	if userTimeout > 0 {
		if err := setInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds())); err != nil {
			return err
		}
	}
	if k.Idle <= 0 {
		return nil
	}
	for _, o := range [...]struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(k.Idle)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(k.Interval)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	} {
		if err := setInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}

// SetNoDelay turns Nagle's algorithm off. The first write of a connection does not need it, since no earlier bytes are
// unacknowledged.
func SetNoDelay(fd int) {
	one := int32(1)
	setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, unsafe.Pointer(&one), unsafe.Sizeof(one))
}

func seconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }

// Accept accepts the next client of a listening socket, and returns its address (IPv4 as IPv4, also on a dual-stack
// socket). Again means that no client waits.
func Accept(fd int) (int, netip.AddrPort, Errno) {
	var sa unix.RawSockaddrInet6 // large enough for both families
	size := uint32(unsafe.Sizeof(sa))
	n, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if e != 0 {
		return -1, netip.AddrPort{}, e
	}
	return int(n), addrPort(&sa), 0
}

// addrPort reads a socket address that the kernel wrote. That of a Unix socket is not valid. It omits the zone of a
// link-local client, whose name would have to be looked up and allocated for each client.
func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := sa.Port>>8 | sa.Port<<8
	if sa.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	if sa.Family != unix.AF_INET6 {
		return netip.AddrPort{} // a Unix socket
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
}

// Addresses that no host has (RFC 5737, RFC 3849).
var (
	nobodys4 = netip.AddrFrom4([4]byte{192, 0, 2, 1})
	nobodys6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})
)

// IsLocal reports whether an address is one of this host's, which means that a socket can be bound to it. If
// net.ipv4.ip_nonlocal_bind allows binding to any address, it reports whether the kernel uses the address as the source
// of packets to the address itself.
func IsLocal(a netip.Addr) bool {
	nobodys := nobodys6
	if a = a.Unmap(); a.Is4() {
		nobodys = nobodys4
	}
	if !bindable(a) {
		return false
	}
	if !bindable(nobodys) {
		return true
	}
	if a.Is4() {
		return canSendFrom(a)
	}
	fd, e := ConnectDatagram(netip.AddrPortFrom(a, discardPort))
	if e != 0 {
		return false
	}
	defer Close(fd)
	from, err := LocalAddr(fd)
	return err == nil && from.Addr() == a.WithZone("")
}

// discardPort is where sockets are connected to that send nothing.
const discardPort = 9

// canSendFrom reports whether the kernel sends from an IPv4 address, which it does if the address is this host's.
func canSendFrom(a netip.Addr) bool {
	fd, e := connectDatagram(a, netip.AddrPortFrom(a, discardPort))
	if e == 0 {
		Close(fd)
	}
	return e == 0
}

// isOfSource reports whether an error of connect is about the local address of the socket: the kernel sends nothing
// from it to that destination.
func isOfSource(from netip.Addr, e Errno) bool {
	switch e {
	case unix.EINVAL: // from a loopback address to another host
		return true
	case unix.ENETUNREACH: // if net.ipv4.ip_nonlocal_bind let it be bound; or there is no route
		return from.Is4() && !canSendFrom(from)
	}
	return false
}

// bindable reports whether a UDP socket can be bound to an address.
func bindable(a netip.Addr) bool {
	var sa unix.RawSockaddrInet6
	size, e := rawSockaddr(netip.AddrPortFrom(a, 0), &sa)
	if e != 0 {
		return false
	}
	fd, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(sa.Family), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC,
		unix.IPPROTO_UDP)
	if e != 0 {
		return false
	}
	defer Close(int(fd))
	_, _, e = unix.RawSyscall(unix.SYS_BIND, fd, uintptr(unsafe.Pointer(&sa)), size)
	return e == 0
}

// ConnectError takes the pending error of a socket (SO_ERROR): the reason why a connect failed or a connection broke.
func ConnectError(fd int) Errno {
	var v, size int32 = 0, 4
	unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR, uintptr(unsafe.Pointer(&v)),
		uintptr(unsafe.Pointer(&size)), 0)
	return Errno(v)
}

// rawSockaddr writes addr in the kernel's format. Connect has its own function for that, so that a connect allocates
// nothing.
func rawSockaddr(addr netip.AddrPort, sa *unix.RawSockaddrInet6) (uintptr, Errno) {
	port := addr.Port()>>8 | addr.Port()<<8
	ip := addr.Addr()
	if ip.Is4() || ip.Is4In6() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: ip.Unmap().As4()}
		return unsafe.Sizeof(*v4), 0
	}
	zone, err := zoneID(ip.Zone())
	if err != nil {
		return 0, unix.ENODEV
	}
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: ip.As16(), Scope_id: zone}
	return unsafe.Sizeof(*sa), 0
}

func sockaddr(addr netip.AddrPort) (unix.Sockaddr, int, error) {
	ip := addr.Addr()
	if ip.Is4() || ip.Is4In6() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.Unmap().As4()}, unix.AF_INET, nil
	}
	zone, err := zoneID(ip.Zone())
	if err != nil {
		return nil, 0, err
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16(), ZoneId: zone}, unix.AF_INET6, nil
}

// zoneID returns the interface index of a link-local address's zone, which is an interface name or the index itself.
func zoneID(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if id, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(id), nil
	}
	ifc, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return uint32(ifc.Index), nil
}

// LocalAddr returns the address that a socket is bound to, with the port that the kernel chose for a listener on port
// 0.
func LocalAddr(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, e := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size)))
	if e != 0 {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", e)
	}
	return addrPort(&sa), nil
}
