package sock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// QueueFull is what ConnectUnix fails with when the other end does not accept as fast as clients come: its backlog is
// full. For TCP the kernel then answers nothing, and the connect times out. No system call made here returns this
// number; Text has its words.
const QueueFull = unix.EXFULL

// maxPath is the longest path of a socket: sun_path without its closing zero (unix(7)).
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// ConnectUnix makes a stream socket of the Unix domain and connects it, which takes no time. The Errno says why there
// is no connection; CauseOf returns its cause. It allocates nothing.
//
// Such a connection differs from TCP in a few ways that its user should know:
//   - It cannot be reset. Reset closes it, and the peer reads an end like any other. Only a close with bytes unread is
//     an error for the peer, ConnReset.
//   - The options of TCP fail. Sent says what the peer has not read yet.
//   - A read stops behind bytes that came with a descriptor (SCM_RIGHTS), which is dropped.
func ConnectUnix(path string) (int, Errno) {
	sa := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	if len(path) > maxPath {
		return -1, unix.ENAMETOOLONG
	}
	for i := range len(path) {
		sa.Path[i] = int8(path[i])
	}
	s, _, e := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if e != 0 {
		return -1, e
	}
	size := unsafe.Offsetof(sa.Path) + uintptr(len(path)) + 1
	_, _, e = unix.RawSyscall(unix.SYS_CONNECT, s, uintptr(unsafe.Pointer(&sa)), size)
	if e == 0 {
		return int(s), 0
	}
	Close(int(s))
	switch e {
	case Again:
		e = QueueFull
	case unix.EPERM: // a policy forbids it (BPF, a security module)
		e = unix.EACCES
	}
	return -1, e
}

// unsent returns what the peer of a connection of the Unix domain has not read yet.
func unsent(fd int) (SentState, Errno) {
	var n int32
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	return SentState{Outstanding: n > 0}, e
}
