package healthcheck

import (
	"encoding/binary"
	"net/netip"
	"syscall"
)

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const (
	icmp4EchoReply    = 0
	icmp4Unreachable  = 3
	icmp4EchoRequest  = 8
	icmp4TimeExceeded = 11

	icmp6Unreachable  = 1
	icmp6TimeExceeded = 3
	icmp6EchoRequest  = 128
	icmp6EchoReply    = 129
)

const (
	icmpHeaderBytes = 8
	ip4HeaderBytes  = 20 // at least
	ip6HeaderBytes  = 40
	tokenBytes      = 16
)

// An echoToken is what an echo carries so that only who has seen it can answer it.
type echoToken [tokenBytes]byte

// An echoMessage is what one echo, or what is left of it in an ICMP error, says. Its zero value says nothing.
type echoMessage struct {
	id, seq uint16
	token   echoToken
	whole   bool // the token was there: of the echo in an error, routers need not send back more than 8 bytes
}

// An icmpError says that an echo did not arrive. Its zero value is of no use.
type icmpError struct {
	echo      echoMessage
	to        netip.Addr // where the echo was sent
	typ, code byte
}

// appendEcho appends the request of an echo to b. It is written here and not by x/net/icmp, whose sockets
// hide the descriptor that the queue of errors is read from, and whose messages allocate.
func appendEcho(b []byte, v6 bool, m echoMessage) []byte {
	start := len(b)
	typ := byte(icmp4EchoRequest)
	if v6 {
		typ = icmp6EchoRequest
	}
	b = append(b, typ, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.id)
	b = binary.BigEndian.AppendUint16(b, m.seq)
	b = append(b, m.token[:]...)
	if !v6 { // for ICMPv6 the kernel does it, which knows the addresses
		binary.BigEndian.PutUint16(b[start+2:], internetChecksum(b[start:]))
	}
	return b
}

// internetChecksum returns the checksum of RFC 1071; it is 0 for what has its own checksum in it.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// parseEcho reads an echo of the type given.
func parseEcho(b []byte, typ byte) (echoMessage, bool) {
	if len(b) < icmpHeaderBytes || b[0] != typ || b[1] != 0 {
		return echoMessage{}, false
	}
	m := echoMessage{id: binary.BigEndian.Uint16(b[4:]), seq: binary.BigEndian.Uint16(b[6:])}
	m.whole = copy(m.token[:], b[icmpHeaderBytes:]) == tokenBytes
	return m, true
}

// parseEchoReply reads a reply to one of our echoes: one with a token and nothing after it.
func parseEchoReply(b []byte, v6 bool) (echoMessage, bool) {
	typ := byte(icmp4EchoReply)
	if v6 {
		typ = icmp6EchoReply
	}
	m, ok := parseEcho(b, typ)
	return m, ok && len(b) == icmpHeaderBytes+tokenBytes
}

// parseICMPError reads an error that has one of our echoes in it.
func parseICMPError(b []byte, v6 bool) (icmpError, bool) {
	if len(b) < icmpHeaderBytes || icmpWords(v6, b[0], b[1]) == "" {
		return icmpError{}, false
	}
	m := icmpError{typ: b[0], code: b[1]}
	packet := b[icmpHeaderBytes:]
	request := byte(icmp4EchoRequest)
	var ok bool
	if v6 {
		// We send no extension headers.
		if len(packet) < ip6HeaderBytes || packet[0]>>4 != 6 || packet[6] != syscall.IPPROTO_ICMPV6 {
			return icmpError{}, false
		}
		m.to = netip.AddrFrom16([16]byte(packet[24:40]))
		packet, request = packet[ip6HeaderBytes:], icmp6EchoRequest
	} else {
		if m.to, packet, ok = parseIPv4(packet); !ok {
			return icmpError{}, false
		}
	}
	m.echo, ok = parseEcho(packet, request)
	return m, ok
}

// parseIPv4 returns the destination of a packet with ICMP in it, and its content.
func parseIPv4(b []byte) (to netip.Addr, content []byte, ok bool) {
	if len(b) < ip4HeaderBytes || b[0]>>4 != 4 || b[9] != syscall.IPPROTO_ICMP {
		return netip.Addr{}, nil, false
	}
	header := int(b[0]&0xf) * 4
	if header < ip4HeaderBytes || len(b) < header {
		return netip.Addr{}, nil, false
	}
	return netip.AddrFrom4([4]byte(b[16:20])), b[header:], true
}

// icmpWords returns what an ICMP error means, or "" when it is none that ends a check: that a packet is too big is not the
// target's fault.
func icmpWords(v6 bool, typ, code byte) string {
	if v6 {
		switch {
		case typ == icmp6TimeExceeded && code == 0:
			return wayTooLong
		case typ != icmp6Unreachable:
			return ""
		case code == 0, code == 6: // no route; a route that rejects
			return networkUnreachable
		case code == 1, code == 5: // by a firewall; for the source address
			return prohibited
		case code == 4:
			return portUnreachable
		}
		return hostUnreachable
	}
	switch {
	case typ == icmp4TimeExceeded && code == 0:
		return wayTooLong
	case typ != icmp4Unreachable, code == 4: // fragmentation needed
		return ""
	case code == 0, code == 5, code == 6, code == 11:
		return networkUnreachable
	case code == 2:
		return protocolUnreachable
	case code == 3:
		return portUnreachable
	case code == 9, code == 10, code == 13: // RFC 1812, 5.2.7.1
		return prohibited
	}
	return hostUnreachable
}
