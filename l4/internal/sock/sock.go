// Package sock is the boundary to the kernel: the only importer of golang.org/x/sys/unix, so that the data
// plane above it reads as a protocol and not as a list of flags.
//
// It is for Linux alone, like the program. It keeps no state of its own but a Poller's and a Pipe's. Every descriptor
// it returns is non-blocking and close-on-exec and belongs to the caller. Calls on the data path return an Errno and
// never an error value that would have to be allocated; calls made once per listener or loop return errors that name
// the system call.
//
// Calls that cannot block go through RawSyscall: the Go scheduler is not told, which alone was 10 to 20 % of
// the cost of relaying a request. Poller.Wait is the one place where that needs care; see there.
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

// The error numbers the data plane tells apart.
const (
	Again        = unix.EAGAIN        // nothing to read, or no room to write: wait for the next event
	InProgress   = unix.EINPROGRESS   // a connect goes on; its end is an event
	ConnRefused  = unix.ECONNREFUSED  // the peer answered SYN with a reset
	ConnReset    = unix.ECONNRESET    // the peer reset an established connection
	BrokenPipe   = unix.EPIPE         // written after a reset was reported, or after our own half-close
	TimedOut     = unix.ETIMEDOUT     // keepalive, TCP_USER_TIMEOUT or the kernel's SYN retries gave up
	AddrNotAvail = unix.EADDRNOTAVAIL // this host has no address to reach the destination from
)

// OutOfDescriptors reports whether e says that this process or machine has no descriptor, no memory or no watch (epoll(7)) for
// another socket: a condition that passes when sessions end, and that retrying at once would only spin on.
func OutOfDescriptors(e Errno) bool {
	return e == unix.EMFILE || e == unix.ENFILE || e == unix.ENOBUFS || e == unix.ENOMEM || e == unix.ENOSPC
}

// Read reads what has arrived on a stream socket, at most len(p) bytes. It returns 0 and no Errno at the
// peer's FIN. A count below len(p) means that nothing more was there, unless urgent data stands in the stream
// (PollUrgent): recv(2) stops at its mark. p must not be empty.
func Read(fd int, p []byte) (int, Errno) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// AtEnd reports whether the peer's FIN is the next thing to read from a stream socket: all it sent before was read, and
// nothing is taken off the queue here.
func AtEnd(fd int) bool {
	var b byte
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1, unix.MSG_PEEK, 0, 0)
		if e != unix.EINTR {
			return e == 0 && n == 0
		}
	}
}

// Unread is how many bytes wait to be read from a stream socket, also of one whose peer has reset it, where reading
// tells of that alone.
func Unread(fd int) int {
	var n int32
	unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCINQ, uintptr(unsafe.Pointer(&n)))
	return int(n)
}

// Write writes as much of p to a stream socket as its send buffer takes. With more set, the kernel may hold
// back the last segment for what follows (MSG_MORE): only right before ShutdownWrite or Close, which send it
// together with the FIN. p must not be empty.
func Write(fd int, p []byte, more bool) (int, Errno) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		if e == 0 {
			return int(n), 0
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// Close closes a descriptor. Epoll forgets a connection by itself, as there is one descriptor for it; a listening socket may have
// others, here or in the process it was inherited from, and is taken out beforehand (Poller.RemoveListener).
// An error of close(2) is of no use: the descriptor is gone in any case.
func Close(fd int) {
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

// Reset closes a connected socket with a RST: what is still unsent is dropped, and the peer learns that the
// connection was cut and did not merely end.
func Reset(fd int) {
	linger := unix.Linger{Onoff: 1, Linger: 0}
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&linger), unsafe.Sizeof(linger))
	Close(fd)
}

// ShutdownWrite sends the FIN of a half-close, after everything written before it.
func ShutdownWrite(fd int) {
	unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

// setsockopt is the raw call: it cannot block, and most of its callers can do nothing about its failure.
func setsockopt(fd, level, name int, value unsafe.Pointer, size uintptr) Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(value), size, 0)
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
