package admin

import (
	"fmt"
	"net"
	"syscall"
)

// A peerListener makes the remote address of a Unix socket's connections tell who connected: such a socket has no address of its
// own, and the log is to say who changed something.
type peerListener struct{ net.Listener }

// Accept returns the next connection. Where the kernel does not tell who that is, it has the address it had.
func (l peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	u, isUnix := c.(*net.UnixConn)
	if !isUnix {
		return c, nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return c, nil
	}
	var peer *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || failed != nil {
		return c, nil
	}
	return peerConn{c, peerAddr(fmt.Sprintf("uid %d pid %d", peer.Uid, peer.Pid))}, nil
}

type peerConn struct {
	net.Conn
	peer peerAddr
}

// RemoteAddr is the user and the process that connected.
func (c peerConn) RemoteAddr() net.Addr { return c.peer }

// peerAddr is "uid 0 pid 4711".
type peerAddr string

// Network is the kind of address.
func (a peerAddr) Network() string { return "unix" }

// String is the address as the log has it.
func (a peerAddr) String() string { return string(a) }
