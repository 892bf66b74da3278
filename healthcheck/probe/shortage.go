package probe

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// This file knows which errors mean that this machine is short of something. A check that ends with such an error is
// inconclusive: a fault of this machine says nothing about a target.

// shortages are the errors that always mean a shortage, whatever system call returns them.
var shortages = []syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, // descriptors
	syscall.ENOMEM, syscall.ENOBUFS, // memory
	syscall.EAGAIN, // UDP ports (connect binds a port), processes (fork)
	syscall.ENOSPC, // watches of epoll (epoll_ctl(2)), or a disk
}

// shortage puts into words an error that means a shortage of this machine. It returns nil for other errors.
//
// EADDRNOTAVAIL has two meanings. From a TCP connect it usually means that no local port is free. It may also mean that
// no local address can reach the target, for example over IPv6 if IPv6 is disabled. Sessions would fail in the same
// way, so then the target is unhealthy.
func shortage(err error) *checkError {
	for _, short := range shortages {
		if errors.Is(err, short) {
			return cannotCheckf("%s", short.Error()).because(err)
		}
	}
	if errors.Is(err, syscall.EADDRNOTAVAIL) && lacksPort(err) {
		return cannotCheckf("no local port is free").because(err)
	}
	return nil
}

// lacksPort reports whether an EADDRNOTAVAIL means that no port is free. It finds out whether a local address can reach
// the target by connecting a UDP socket, which sends no packet and uses other ports.
func lacksPort(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok {
		return false // ICMP has no ports
	}
	to, ok := op.Addr.(*net.TCPAddr)
	if !ok {
		return op.Addr == nil // for UDP, the error would be EAGAIN
	}
	return reachable(to.AddrPort())
}

// reachable reports whether this machine has an address from which it can reach to. It is true if that cannot be found
// out.
func reachable(to netip.AddrPort) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT)
}
