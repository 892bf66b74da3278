package probe

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// An icmpKind is a kind of socket for ICMP.
type icmpKind int

const (
	// A pingSocket needs net.ipv4.ping_group_range. The kernel gives it an id, and delivers only replies with that id,
	// without an IP header. Errors have a queue of their own.
	pingSocket icmpKind = iota
	// A rawSocket needs CAP_NET_RAW. It receives all ICMP of the network namespace, including replies to others, and
	// whole error messages. With IPv4 each message has an IP header.
	rawSocket
)

const (
	icmpBufferBytes = 4 << 20 // of the socket, if the kernel allows it: the default of 200 KiB holds only 270 echoes
	sendAttempts    = 4       // attempts to send an echo, before an error counts as one about this echo
	sendReceives    = 512     // messages to receive before an echo is sent: others may send without end

	optICMPFilter  = 1 // ICMP_FILTER of linux/icmp.h and ICMPV6_FILTER of linux/icmpv6.h
	levelRaw       = 255
	originICMP     = 2 // SO_EE_ORIGIN_ICMP of linux/errqueue.h
	originICMP6    = 3
	extendedErrLen = 16 // of struct sock_extended_err
)

// An icmpSocket sends the echoes of one family and receives the replies and the errors. Its methods may be called from
// any goroutine, but only one goroutine may call read. openICMP makes it. The caller closes it and reads until read
// returns.
//
// x/net/icmp packs and parses the messages. Its PacketConn is not used, since it hides the descriptor and with it the
// error queue of a ping socket.
type icmpSocket struct {
	echoTable

	// set once, then read-only
	v6   bool
	kind icmpKind
	file *os.File
	conn syscall.RawConn

	closing atomic.Bool // set by close; receive then stops

	readBuf, sendBuf icmpBuffers // for read and for send; file lets only one send at a time use the descriptor
}

// icmpBuffers are the buffers for one message.
type icmpBuffers struct {
	data    [2048]byte // more than any message about our echoes
	control [512]byte
}

// openICMP opens a socket of the first of kinds (nil = all) that the system allows.
func openICMP(v6 bool, kinds []icmpKind) (*icmpSocket, error) {
	if kinds == nil {
		kinds = []icmpKind{pingSocket, rawSocket}
	}
	var refused error
	for _, kind := range kinds {
		s, err := openICMPKind(v6, kind)
		switch {
		case err == nil:
			return s, nil
		case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
			refused = fmt.Errorf("%w: %w", errICMPPermission, err)
		case kind == pingSocket && errors.Is(err, syscall.EPROTONOSUPPORT): // the kernel has none
		default:
			return nil, err
		}
	}
	if refused == nil {
		refused = os.NewSyscallError("socket", syscall.EPROTONOSUPPORT)
	}
	return nil, refused
}

// openICMPKind opens a socket of one kind.
func openICMPKind(v6 bool, kind icmpKind) (*icmpSocket, error) {
	domain, protocol := syscall.AF_INET, syscall.IPPROTO_ICMP
	if v6 {
		domain, protocol = syscall.AF_INET6, syscall.IPPROTO_ICMPV6
	}
	typ := syscall.SOCK_DGRAM
	if kind == rawSocket {
		typ = syscall.SOCK_RAW
	}
	fd, err := syscall.Socket(domain, typ|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "icmp") // nonblocking, so the runtime's poller is used
	id, err := prepareICMP(fd, v6, kind)
	if err == nil {
		var conn syscall.RawConn
		if conn, err = file.SyscallConn(); err == nil {
			return &icmpSocket{echoTable: newEchoTable(id), v6: v6, kind: kind, file: file, conn: conn}, nil
		}
	}
	file.Close()
	return nil, err
}

// prepareICMP sets the options of a new socket and returns the id of its echoes.
func prepareICMP(fd int, v6 bool, kind icmpKind) (id uint16, err error) {
	for force, ask := range map[int]int{
		syscall.SO_RCVBUFFORCE: syscall.SO_RCVBUF, syscall.SO_SNDBUFFORCE: syscall.SO_SNDBUF,
	} {
		if syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, force, icmpBufferBytes) != nil { // it needs CAP_NET_ADMIN
			// The kernel reduces this to what it allows. With an error, the default will do.
			_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, ask, icmpBufferBytes)
		}
	}
	if kind == rawSocket {
		var random [2]byte
		rand.Read(random[:]) // never fails
		return binary.BigEndian.Uint16(random[:]), os.NewSyscallError("setsockopt", filterICMP(fd, v6))
	}
	var unbound syscall.Sockaddr = &syscall.SockaddrInet4{}
	level, option := syscall.IPPROTO_IP, syscall.IP_RECVERR
	if v6 {
		unbound, level, option = &syscall.SockaddrInet6{}, syscall.IPPROTO_IPV6, syscall.IPV6_RECVERR
	}
	if err := syscall.SetsockoptInt(fd, level, option, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, unbound); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	name, err := syscall.Getsockname(fd)
	switch a := name.(type) { // the id is in the place of the port
	case *syscall.SockaddrInet4:
		return uint16(a.Port), nil
	case *syscall.SockaddrInet6:
		return uint16(a.Port), nil
	}
	return 0, os.NewSyscallError("getsockname", err)
}

// filterICMP makes a raw socket receive only replies, and the errors that fail a check.
func filterICMP(fd int, v6 bool) error {
	if v6 {
		var block syscall.ICMPv6Filter
		for i := range block.Data {
			block.Data[i] = math.MaxUint32
		}
		for _, typ := range []ipv6.ICMPType{
			ipv6.ICMPTypeEchoReply, ipv6.ICMPTypeDestinationUnreachable, ipv6.ICMPTypeTimeExceeded,
		} {
			block.Data[typ/32] &^= 1 << (typ % 32)
		}
		return syscall.SetsockoptICMPv6Filter(fd, syscall.IPPROTO_ICMPV6, optICMPFilter, &block)
	}
	const pass = 1<<ipv4.ICMPTypeEchoReply | 1<<ipv4.ICMPTypeDestinationUnreachable | 1<<ipv4.ICMPTypeTimeExceeded
	return syscall.SetsockoptInt(fd, levelRaw, optICMPFilter, ^pass)
}

// begin returns an echo that waits for its reply. It has yet to be sent.
func (s *icmpSocket) begin(to netip.Addr, via syscall.Sockaddr) (*echo, error) {
	e := &echo{to: to, via: via, done: make(chan echoOutcome, 1)}
	rand.Read(e.token[:])
	if err := s.add(e); err != nil {
		return nil, err
	}
	var err error
	if e.packet, err = marshalEcho(s.v6, echoMessage{id: s.id, seq: e.seq, token: e.token}); err != nil {
		s.forget(e)
		return nil, err
	}
	return e, nil
}

// send sends e without waiting: EAGAIN means that the buffer has no room.
//
// It first receives all messages. Otherwise a burst of checks would fill the receive buffer before the reader gets its
// turn, and sendto on a ping socket would return the pending error of another echo.
func (s *icmpSocket) send(e *echo) error {
	var sent, broken error
	err := s.conn.Write(func(fd uintptr) bool {
		for range sendAttempts {
			if broken = s.receive(int(fd), &s.sendBuf, sendReceives); broken != nil {
				return true
			}
			sent = syscall.Sendto(int(fd), e.packet, syscall.MSG_DONTWAIT, e.via)
			if sent == nil || !pendingICMP(sent) && !errors.Is(sent, syscall.EINTR) {
				return true
			}
		}
		return true // after so many errors the last one is about e: there is no route
	})
	if broken != nil {
		s.close() // before fail: a check that gets its outcome may open the next socket
		s.fail(broken)
	}
	if broken != nil || err != nil { // err means that the file is closed; package poll has no exported error for that
		return os.ErrClosed
	}
	return os.NewSyscallError("sendto", sent)
}

// read delivers messages until the socket is closed or breaks. Then it closes the socket and returns why.
func (s *icmpSocket) read() error {
	var broken error
	_ = s.conn.Read(func(fd uintptr) bool {
		broken = s.receive(int(fd), &s.readBuf, math.MaxInt)
		return broken != nil // false: wait for more
	})
	s.close()
	if broken == nil {
		return os.ErrClosed
	}
	return broken
}

// close makes read and send end. It may be called more than once.
func (s *icmpSocket) close() {
	s.closing.Store(true)
	_ = s.file.Close() // it waits until nobody uses the descriptor
}

// receive delivers up to most messages that have arrived. An error means that the socket is broken.
func (s *icmpSocket) receive(fd int, buf *icmpBuffers, most int) error {
	for range most {
		if s.closing.Load() {
			return os.ErrClosed
		}
		if s.kind == pingSocket {
			s.receiveErrors(fd, buf)
		}
		n, from, err := syscall.Recvfrom(fd, buf.data[:], syscall.MSG_DONTWAIT)
		switch {
		case err == nil:
			s.deliver(sockaddrAddr(from), buf.data[:n])
		case errors.Is(err, syscall.EINTR), pendingICMP(err): // a pending error is in the error queue, too
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ENOBUFS):
			return nil
		default:
			return os.NewSyscallError("recvfrom", err)
		}
	}
	return nil
}

// pendingICMP reports whether err may come from an ICMP error that the socket received, or from a missing route.
func pendingICMP(err error) bool {
	var errno syscall.Errno
	errors.As(err, &errno)
	switch errno {
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ECONNREFUSED, syscall.EACCES, syscall.EPROTO,
		syscall.ENOPROTOOPT, syscall.EMSGSIZE, syscall.EOPNOTSUPP, syscall.EHOSTDOWN, syscall.ENONET:
		return true
	}
	return false
}

// deliver handles a message that came from an address.
func (s *icmpSocket) deliver(from netip.Addr, b []byte) {
	if s.kind == rawSocket && !s.v6 {
		var ok bool
		// The kernel does not check the checksum for a raw IPv4 socket.
		if _, b, ok = parseIPv4(b); !ok || internetChecksum(b) != 0 {
			return
		}
	}
	if m, ok := parseEchoReply(b, s.v6); ok {
		s.settle(from, m, nil)
	} else if m, ok := parseICMPError(b, s.v6); ok {
		s.settle(m.to, m.echo, unhealthyf("%s", icmpWords(m.typ, m.code)).because(icmpErrno(m.typ)))
	}
}

// receiveErrors delivers the errors in the error queue of a ping socket. Each has the echo, the address that the echo
// was sent to, and a control message that describes the error.
func (s *icmpSocket) receiveErrors(fd int, buf *icmpBuffers) {
	for {
		const flags = syscall.MSG_ERRQUEUE | syscall.MSG_DONTWAIT
		n, controlled, _, to, err := syscall.Recvmsg(fd, buf.data[:], buf.control[:], flags)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		request, _ := echoTypes(s.v6)
		m, _, ok := parseEcho(buf.data[:n], request)
		number, code, isICMP := extendedError(buf.control[:controlled])
		typ := icmpType(s.v6, number)
		if words := icmpWords(typ, int(code)); ok && isICMP && words != "" {
			s.settle(sockaddrAddr(to), m, unhealthyf("%s", words).because(icmpErrno(typ)))
		}
	}
}

// extendedError returns the type and code of the ICMP error that a control message describes.
func extendedError(control []byte) (typ, code byte, isICMP bool) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return 0, 0, false
	}
	for _, m := range messages {
		v4 := m.Header.Level == syscall.IPPROTO_IP && m.Header.Type == syscall.IP_RECVERR
		v6 := m.Header.Level == syscall.IPPROTO_IPV6 && m.Header.Type == syscall.IPV6_RECVERR
		if !v4 && !v6 || len(m.Data) < extendedErrLen {
			continue
		}
		if origin := m.Data[4]; origin == originICMP || origin == originICMP6 {
			return m.Data[5], m.Data[6], true
		}
	}
	return 0, 0, false
}

// icmpErrno returns the cause that the error of a check wraps. For most codes the kernel uses the same one.
func icmpErrno(typ icmp.Type) error {
	if typ == ipv4.ICMPTypeDestinationUnreachable || typ == ipv6.ICMPTypeDestinationUnreachable {
		return syscall.EHOSTUNREACH
	}
	return syscall.ETIME
}

// sockaddrAddr returns the address of a, without a zone.
func sockaddrAddr(a syscall.Sockaddr) netip.Addr {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *syscall.SockaddrInet6:
		return netip.AddrFrom16(a.Addr)
	}
	return netip.Addr{}
}
