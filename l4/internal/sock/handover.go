package sock

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cookie returns a number that only this socket has, in whatever process and under whatever descriptor (SO_COOKIE,
// Linux 4.12). It is 0 for what is no socket.
func Cookie(fd int) uint64 {
	var v uint64
	size := uint32(unsafe.Sizeof(v))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_COOKIE,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return 0
	}
	return v
}

// Dropped returns how many datagrams the kernel has dropped at a UDP socket since it was opened, modulo 2^32: what the
// socket reports with the next datagram. It is 0 if that cannot be found out.
func Dropped(fd int) uint32 {
	const drops = 8 // SK_MEMINFO_DROPS, include/uapi/linux/sock_diag.h
	var v [drops + 1]uint32
	size := uint32(unsafe.Sizeof(v))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 || uintptr(size) < unsafe.Sizeof(v) {
		return 0
	}
	return v[drops]
}

// TakesBoth reports whether a socket of IPv6 takes IPv4 clients, too.
func TakesBoth(fd int) bool {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || family != unix.AF_INET6 {
		return false
	}
	only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return err == nil && only == 0
}

// InheritConnected checks a connection of TCP or of the Unix domain, or with datagram a connected UDP socket, that
// another process has made. The descriptor becomes non-blocking and close-on-exec. It reports false for anything else.
func InheritConnected(fd int, datagram bool) bool {
	want := unix.SOCK_STREAM
	if datagram {
		want = unix.SOCK_DGRAM
	}
	if is, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || is != want {
		return false
	}
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens != 0 {
		return false
	}
	unix.CloseOnExec(fd)
	return unix.SetNonblock(fd, true) == nil
}

// ErrNotUnixListener is InheritUnix's error for an open descriptor that does not listen in the Unix domain.
var ErrNotUnixListener = errors.New("not a listening Unix socket")

// InheritUnix takes over a listening socket of the Unix domain that another process has opened and published. The file
// is the new owner's to remove.
func InheritUnix(fd int, u UnixSocket) (*UnixFile, error) {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	if family != unix.AF_UNIX || listens == 0 {
		return nil, ErrNotUnixListener
	}
	f := &UnixFile{path: u.Path, published: true}
	if f.id, err = os.Lstat(u.Path); err != nil {
		return nil, err
	}
	if f.id.Mode().Type() != os.ModeSocket {
		return nil, ErrNoUnixSocket
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	unix.CloseOnExec(fd)
	return f, nil
}

// Permit gives the file of a published socket the permissions and the owner of u.
func (f *UnixFile) Permit(u UnixSocket) error {
	owner, group, err := u.ids()
	if err != nil {
		return err
	}
	if now, err := os.Lstat(f.path); err != nil || !os.SameFile(f.id, now) {
		return err // it is another one's by now
	}
	if err := os.Chmod(f.path, u.Mode); err != nil {
		return err
	}
	if owner >= 0 || group >= 0 {
		return os.Lchown(f.path, owner, group)
	}
	return nil
}

// WatchDatagram says what a socket of AddDatagram is watched for: datagrams to read, and room to write. It also reports
// again whatever is ready already.
func (p *Poller) WatchDatagram(fd int, id int32, generation uint32, in, out bool) {
	ev := unix.EpollEvent{Events: unix.EPOLLET, Fd: id, Pad: int32(generation)}
	if in {
		ev.Events |= unix.EPOLLIN
	}
	if out {
		ev.Events |= unix.EPOLLOUT
	}
	unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(&ev)),
		0, 0)
}

// PeerOf returns the Peer of an address in sixteen bytes, IPv4 mapped into IPv6, with the scope of a link-local one. six
// says that the socket is of IPv6.
func PeerOf(addr [16]byte, scope uint32, port uint16, six bool) (p Peer) {
	port = port>>8 | port<<8
	if six {
		p.sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: addr, Scope_id: scope}
		return p
	}
	v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&p.sa))
	*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: [4]byte(addr[12:])}
	return p
}

// Link is the interface of a link-local address; 0 for others.
func (l *Local) Link() uint32 { return l.link }

// LocalAt returns the Local of an address in sixteen bytes, and of its interface.
func LocalAt(addr [16]byte, link uint32) Local { return Local{addr: addr, link: link} }
