package probe

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// This file knows which errors say that this machine is short of something. A check that ends with one is inconclusive: what is
// wrong here is no evidence against a target.

// shortages are the errors that can mean nothing else, whatever was tried.
var shortages = []syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, // descriptors
	syscall.ENOMEM, syscall.ENOBUFS, // memory
	syscall.EAGAIN, // ports of UDP (the bind that goes with a connect), processes (fork)
	syscall.ENOSPC, // watches of epoll (epoll_ctl(2)), or a disk
}

// shortage puts an error that is due to this machine into words, or returns nil.
//
// EADDRNOTAVAIL has two meanings. Of a TCP connect it says as a rule that no local port is free. But it also says that no
// local address can reach the target: for IPv6 where IPv6 is disabled, say. Clients meet the same then, so that is evidence.
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

// lacksPort reports whether an EADDRNOTAVAIL is for want of a port: then there is an address to reach the target from, which
// the kernel says of a UDP socket too (whose ports are others) without a packet being sent.
func lacksPort(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok {
		return false // of ICMP, which has no ports
	}
	to, ok := op.Addr.(*net.TCPAddr)
	if !ok {
		return op.Addr == nil // of UDP: a want of ports is EAGAIN
	}
	return reachable(to.AddrPort())
}

// reachable reports whether there is an address of this machine to reach another one from, as far as can be told.
func reachable(to netip.AddrPort) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT)
}
