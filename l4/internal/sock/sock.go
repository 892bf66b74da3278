// Package sock is the boundary to the kernel: the only importer of golang.org/x/sys/unix, so that the data plane above
// it reads as a protocol and not as a list of flags.
//
// It is for Linux alone, like the program. Its only state is that of a Poller, a Pipe, a DatagramReader and a
// DatagramWriter. Every descriptor that it returns is non-blocking and close-on-exec, and belongs to the caller. Calls
// on the data path return an Errno, since an error value would have to be allocated. Calls made once per listener or
// loop return errors that name the system call.
//
// Calls that cannot block go through RawSyscall and do not inform the Go scheduler, which alone was 10 to 20 % of the
// cost of relaying a request. Only Poller.Wait needs care because of this; see there.
package sock

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Errno is a system call's error number; zero is success.
type Errno = syscall.Errno

// Error numbers that the data plane distinguishes.
const (
	Again        = unix.EAGAIN        // nothing to read, or no room to write: wait for the next event
	InProgress   = unix.EINPROGRESS   // a connect is under way; an event reports its end
	ConnRefused  = unix.ECONNREFUSED  // the peer answered SYN with a reset
	ConnReset    = unix.ECONNRESET    // the peer reset an established connection
	BrokenPipe   = unix.EPIPE         // a write after a reported reset, or after our own half-close
	TimedOut     = unix.ETIMEDOUT     // keepalive, TCP_USER_TIMEOUT or the kernel's SYN retries gave up
	AddrNotAvail = unix.EADDRNOTAVAIL // this host has no address to reach the destination from

	NoProtocol = unix.EPROTONOSUPPORT // the destination cannot be reached by this protocol
	PortNeeded = unix.EDESTADDRREQ    // the destination has no port of its own, and the client has come to none
)

// OutOfDescriptors reports whether e means that this process or machine has no descriptor, no memory or no watch
// (epoll(7)) for another socket. The condition ends when sessions end; an immediate retry would only spin.
func OutOfDescriptors(e Errno) bool {
	return e == unix.EMFILE || e == unix.ENFILE || e == unix.ENOBUFS || e == unix.ENOMEM || e == unix.ENOSPC
}

// Read reads at most len(p) bytes from a stream socket. At the peer's FIN it returns 0 and no Errno. A count below
// len(p) means that there is nothing more to read, unless the stream contains urgent data (PollUrgent): recv(2) stops
// at its mark. p must not be empty.
func Read(fd int, p []byte) (int, Errno) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), 0, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// Peek reads from a stream socket, once, and leaves the bytes there. It returns no bytes at the peer's FIN, and Again
// when there is nothing.
func Peek(fd int, p []byte) (int, Errno) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), unix.MSG_PEEK, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// SetReadLowWater makes a Poller report a TCP connection as readable only when n bytes wait, or when no more can come:
// at the FIN, at an error, and when the receive buffer is full. The kernel's default is 1. Kernels before 4.18 report
// each segment all the same.
//
// When the receive buffer is nearly full of small segments, a Poller reports each one, and each change of the mark,
// too.
func SetReadLowWater(fd, n int) {
	v := int32(n)
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, unsafe.Pointer(&v), unsafe.Sizeof(v))
}

// ReadLowWater returns what SetReadLowWater has set; 0 if that cannot be found out.
func ReadLowWater(fd int) int {
	var v int32
	size := uint32(unsafe.Sizeof(v))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return 0
	}
	return int(v)
}

// AtEnd reports whether the peer's FIN is the next thing to read from a stream socket, because everything before it was
// read. It consumes nothing.
func AtEnd(fd int) bool {
	var b byte
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1, unix.MSG_PEEK, 0, 0)
		if e != unix.EINTR {
			return e == 0 && n == 0
		}
	}
}

// Unread returns how many bytes wait to be read from a stream socket. It also works after the peer reset the
// connection, when a read would return only the reset.
func Unread(fd int) int {
	var n int32
	unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCINQ, uintptr(unsafe.Pointer(&n)))
	return int(n)
}

// Unsent returns how many bytes written to a stream socket the peer has not acknowledged yet, or not read if it is a
// Unix socket.
func Unsent(fd int) int {
	var n int32
	unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	return int(n)
}

// Write writes as much of p to a stream socket as its send buffer takes. With more set, the kernel may hold back the
// last segment (MSG_MORE): set it only right before ShutdownWrite or Close, which send the segment together with the
// FIN. p must not be empty.
func Write(fd int, p []byte, more bool) (int, Errno) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), flags, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// Close closes a descriptor. Epoll forgets a connection by itself, since it has only one descriptor. A listening socket
// may have others, here or in the process it was inherited from, so remove it first (Poller.RemoveListener). An error
// of close(2) is ignored: the descriptor is closed in any case.
func Close(fd int) {
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

// Reset closes a connected socket with a RST. Unsent bytes are dropped, and the peer learns that the connection was
// cut.
func Reset(fd int) {
	linger := unix.Linger{Onoff: 1, Linger: 0}
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&linger), unsafe.Sizeof(linger))
	Close(fd)
}

// Vanish closes a connection so that its peer learns nothing of it, if there is a router between: the reset goes no
// further than one hop. Bytes that are not sent yet are lost.
func Vanish(fd int) {
	one := int32(1)
	setsockopt(fd, unix.IPPROTO_IP, unix.IP_TTL, unsafe.Pointer(&one), unsafe.Sizeof(one))
	setsockopt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unsafe.Pointer(&one), unsafe.Sizeof(one))
	Reset(fd)
}

// ShutdownWrite sends the FIN of a half-close, after everything written before it.
func ShutdownWrite(fd int) {
	unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

// setsockopt is the raw call. It cannot block, and most callers can do nothing about its failure.
func setsockopt(fd, level, name int, value unsafe.Pointer, size uintptr) Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(value), size,
		0)
	runtime.KeepAlive(value)
	return e
}

func setInt(fd, level, name, value int) error {
	v := int32(value)
	if e := setsockopt(fd, level, name, unsafe.Pointer(&v), unsafe.Sizeof(v)); e != 0 {
		return os.NewSyscallError("setsockopt", e)
	}
	return nil
}
