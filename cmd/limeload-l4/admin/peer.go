package admin

import (
	"fmt"
	"net"
	"syscall"
)

// peerFormat is the text of the remote address of a Unix socket: the user and the process.
const peerFormat = "uid %d pid %d"

// A peerListener reports as remote address of a Unix socket's connection which user and process connected. Such a
// socket has no address of its own, and the log shall say who made a change.
type peerListener struct{ net.Listener }

// Accept returns the next connection. If the kernel does not know who connected, it keeps its address.
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
	return peerConn{c, peerAddr(fmt.Sprintf(peerFormat, peer.Uid, peer.Pid))}, nil
}

type peerConn struct {
	net.Conn
	peer peerAddr
}

// RemoteAddr returns the user and the process that connected.
func (c peerConn) RemoteAddr() net.Addr { return c.peer }

// peerAddr is "uid 0 pid 4711".
type peerAddr string

// Network returns "unix".
func (a peerAddr) Network() string { return "unix" }

// String returns the address as it is logged.
func (a peerAddr) String() string { return string(a) }
