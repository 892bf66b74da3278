package sock

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Cause says which side is responsible for a failed connect or send. The zero value is Unclear.
type Cause uint8

// The causes.
const (
	Unclear     Cause = iota // not known: nobody is blamed
	OurWant                  // this process or host lacks something for now: it says nothing about the other end
	OtherEnd                 // the other end refused, or cut the connection before this process used it
	OtherSilent              // the other end did not answer
	NoWay                    // this host has no route to the other end, or may not use it
)

// CauseOf returns the cause of an error of Connect, ConnectUnix, ConnectDatagram or ConnectError, or of a call on
// their sockets: send(2), socket(2), epoll_ctl(2). An error that it does not list is a bug in this program, or new to it.
func CauseOf(e Errno) Cause {
	switch e {
	case unix.EMFILE, unix.ENFILE, // no descriptor
		unix.ENOMEM,
		unix.ENOBUFS,    // no memory; on a UDP socket with IP_RECVERR also: the device's queue is full
		unix.ENOSPC,     // no epoll watch is left (fs.epoll.max_user_watches)
		NoPort,          // for UDP the kernel returns it, for TCP Connect does
		NoSource,        // the configured source address is not there at present
		unix.EADDRINUSE, // two sockets drew the same port at once
		unix.EINTR,
		unix.EPERM: // from send: this host's firewall, or its table of tracked connections is full
		return OurWant
	case unix.ECONNREFUSED,
		unix.ENOENT, unix.EPROTOTYPE, QueueFull, // of a Unix socket: not there, not of streams, or too busy
		unix.ECONNRESET, unix.EPIPE, unix.ECONNABORTED: // accepted, and cut
		return OtherEnd
	case unix.ETIMEDOUT:
		return OtherSilent
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EHOSTDOWN, // no route, no such neighbour, or a router says so
		unix.ENETDOWN, unix.ENONET,
		unix.EACCES,                                 // a route or a policy prohibits it; a broadcast address; ICMPv6 from a firewall
		unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG, // the path of a Unix socket leads nowhere
		unix.EINVAL,             // a route into a black hole; a link-local address without a link
		unix.ENODEV, unix.ENXIO, // the link of a link-local address does not exist
		AddrNotAvail, // no source address: the host has none of that family, or the family is disabled
		// The kernel lacks the address family, or the unit forbids it (RestrictAddressFamilies=).
		unix.EAFNOSUPPORT, unix.EPFNOSUPPORT, unix.EPROTONOSUPPORT,
		unix.ENOPROTOOPT, unix.EPROTO: // from ICMP: the other end does not support the protocol
		return NoWay
	}
	return Unclear
}

// whyNot translates an error of connect(2) into the one that Connect and ConnectDatagram return.
func whyNot(e Errno, addr netip.AddrPort, stream bool) Errno {
	switch {
	case e == unix.EPERM: // nothing was sent yet, so a policy (BPF) forbids it and not a firewall
		return unix.EACCES
	case e == AddrNotAvail && stream:
		return whyNoAddress(addr)
	}
	return e
}

// whyNoAddress returns what EADDRNOTAVAIL of a TCP connect means, which is ambiguous: NoPort or AddrNotAvail. For UDP
// the kernel has two different errors, so this function tries UDP. That costs a few system calls, but only after the
// kernel has searched all ports in vain.
func whyNoAddress(addr netip.AddrPort) Errno {
	fd, e := ConnectDatagram(addr)
	if e != 0 {
		return e
	}
	Close(fd)
	return NoPort
}
