package main

import (
	"net/netip"
	"syscall"
	"unsafe"
)

// The system calls of the load generator and the backend. They are made with RawSyscall: none of them can block, and a
// process with one thread gains nothing from involving Go's scheduler in each. They use the standard syscall package,
// since golang.org/x/sys/unix is imported by l4/internal/sock alone.
const (
	// linux/in.h IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect, for the whole four-tuple
	ipBindAddressNoPort = 24
	prSetTimerSlack     = 29  // linux/prctl.h PR_SET_TIMERSLACK
	sysEpollPwait2      = 441 // asm-generic/unistd.h, the same number on amd64 and arm64; Linux 5.11
)

// readFD reads into b, which must not be empty.
func readFD(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// writeFD writes b, which must not be empty.
func writeFD(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		syscall.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// discardFD removes up to limit bytes from the receive queue without copying them (MSG_TRUNC, tcp(7)): the ends of a
// bulk transfer should cost as little as possible, since they share the CPUs with the measured balancer.
func discardFD(fd int, limit int64) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), 0, uintptr(limit), syscall.MSG_TRUNC, 0, 0)
	return int(n), errno
}

func closeFD(fd int) {
	syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0)
}

// acceptFD takes one connection from a listening socket, non-blocking.
func acceptFD(fd int) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), 0, 0,
		syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	return int(n), errno
}

// socketFD makes a non-blocking TCP socket over IPv4 with TCP_NODELAY.
func socketFD() (int, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_INET,
		syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	if err := setOption(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		closeFD(int(fd))
		return -1, err
	}
	return int(fd), nil
}

func setOption(fd, level, name int, value int32) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&value)), 4, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// bindSource sets the source address of a socket before it connects. connect chooses the port, which then only has to
// be free for that destination.
func bindSource(fd int, from netip.Addr) error {
	if err := setOption(fd, syscall.IPPROTO_IP, ipBindAddressNoPort, 1); err != nil {
		return err
	}
	sa := sockaddr(netip.AddrPortFrom(from, 0))
	_, _, errno := syscall.RawSyscall(syscall.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	if errno != 0 {
		return errno
	}
	return nil
}

// connectFD starts to connect. It reports whether the connection is established already, as may happen on loopback.
func connectFD(fd int, to netip.AddrPort) (bool, error) {
	sa := sockaddr(to)
	_, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	switch errno {
	case 0:
		return true, nil
	case syscall.EINPROGRESS:
		return false, nil
	}
	return false, errno
}

func sockaddr(a netip.AddrPort) syscall.RawSockaddrInet4 {
	port := a.Port()
	return syscall.RawSockaddrInet4{
		Family: syscall.AF_INET,
		Port:   *(*uint16)(unsafe.Pointer(&[2]byte{byte(port >> 8), byte(port)})), // network order, whatever ours is
		Addr:   a.Addr().As4(),
	}
}
