package sock

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Cause is whose doing it is that a connect failed, or that something could not be sent. The zero value is Unclear.
type Cause uint8

// The causes.
const (
	Unclear     Cause = iota // none that is known: it is held against nobody
	OurWant                  // this process or host lacks something, which passes: it says nothing of the other end
	OtherEnd                 // the other end has refused, or cut the connection before this process had looked
	OtherSilent              // the other end has not answered
	NoWay                    // this host has no way to the other end, or may not use it
)

// CauseOf says whose doing an error is of Connect, ConnectDatagram or ConnectError, or of a call on their sockets: send(2), socket(2),
// epoll_ctl(2). What it does not list is a mistake of this program's, or new to it.
func CauseOf(e Errno) Cause {
	switch e {
	case unix.EMFILE, unix.ENFILE, // no descriptor
		unix.ENOMEM,
		unix.ENOBUFS,    // no memory; of a UDP socket with IP_RECVERR also: the queue of the device is full
		unix.ENOSPC,     // no watch of epoll is left (fs.epoll.max_user_watches)
		NoPort,          // of UDP the word of the kernel, of TCP that of Connect
		unix.EADDRINUSE, // two sockets drew the same port at once
		unix.EINTR,
		unix.EPERM: // of send: a firewall of ours, and also that the table of tracked connections is full
		return OurWant
	case unix.ECONNREFUSED,
		unix.ECONNRESET, unix.EPIPE, unix.ECONNABORTED: // accepted, and cut
		return OtherEnd
	case unix.ETIMEDOUT:
		return OtherSilent
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EHOSTDOWN, // no route, nobody has the address, or a router says so
		unix.ENETDOWN, unix.ENONET,
		unix.EACCES,             // a route or a policy prohibits it; a broadcast address; by ICMPv6, a firewall on the way
		unix.EINVAL,             // a route into a black hole; a link-local address without a link
		unix.ENODEV, unix.ENXIO, // the link of a link-local address is not there
		AddrNotAvail, // no address to send from: the host has none of that family, or has it disabled
		// The kernel does not have the family, or the unit forbids it (RestrictAddressFamilies=).
		unix.EAFNOSUPPORT, unix.EPFNOSUPPORT, unix.EPROTONOSUPPORT,
		unix.ENOPROTOOPT, unix.EPROTO: // by ICMP: the protocol is not spoken there
		return NoWay
	}
	return Unclear
}

// whyNot returns the error of connect(2) as Connect and ConnectDatagram give it.
func whyNot(e Errno, addr netip.AddrPort, stream bool) Errno {
	switch {
	case e == unix.EPERM: // nothing was sent, so it is a policy (BPF) and not a firewall
		return unix.EACCES
	case e == AddrNotAvail && stream:
		return whyNoAddress(addr)
	}
	return e
}

// whyNoAddress says what EADDRNOTAVAIL of a TCP connect means, which stands for two things: NoPort, or AddrNotAvail.
// For UDP the kernel has two words, and so it is asked there. It costs a few system calls, in a case in which the
// kernel has just searched all ports in vain.
func whyNoAddress(addr netip.AddrPort) Errno {
	fd, e := ConnectDatagram(addr)
	if e != 0 {
		return e
	}
	Close(fd)
	return NoPort
}
