package probe

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const tokenBytes = 16

// An echoToken is a random value in an echo. Without having seen the echo, nobody can make a reply to it.
type echoToken [tokenBytes]byte

// An echoMessage is the content of an echo, or the part of it that an ICMP error quotes. It is a plain value.
type echoMessage struct {
	id, seq uint16
	token   echoToken
	whole   bool // the token is complete: an error may quote just the first 8 bytes of an echo
}

// An icmpError is a message that says why an echo did not arrive. It is a plain value.
type icmpError struct {
	echo echoMessage
	to   netip.Addr // where the echo was sent
	typ  icmp.Type
	code int
}

// icmpProtocol returns the number of ICMP in the header of an IP packet.
func icmpProtocol(v6 bool) int {
	if v6 {
		return syscall.IPPROTO_ICMPV6
	}
	return syscall.IPPROTO_ICMP
}

// echoTypes returns the types of an echo and of the reply to it.
func echoTypes(v6 bool) (request, reply icmp.Type) {
	if v6 {
		return ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	return ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
}

// marshalEcho returns the packet of an echo. For ICMPv6 the kernel adds the checksum, which covers the addresses.
func marshalEcho(v6 bool, m echoMessage) ([]byte, error) {
	request, _ := echoTypes(v6)
	body := &icmp.Echo{ID: int(m.id), Seq: int(m.seq), Data: m.token[:]}
	return (&icmp.Message{Type: request, Body: body}).Marshal(nil)
}

// internetChecksum returns the checksum of RFC 1071; it is 0 for a message that includes its own checksum.
// It is written by hand because x/net/icmp computes checksums but does not check them.
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

// parseEcho reads an echo, or a reply to one, of the given type. extra is the number of bytes after the token.
func parseEcho(b []byte, typ icmp.Type) (m echoMessage, extra int, ok bool) {
	parsed, err := icmp.ParseMessage(typ.Protocol(), b)
	if err != nil || parsed.Type != typ || parsed.Code != 0 {
		return echoMessage{}, 0, false
	}
	body, ok := parsed.Body.(*icmp.Echo)
	if !ok {
		return echoMessage{}, 0, false
	}
	m = echoMessage{id: uint16(body.ID), seq: uint16(body.Seq)}
	m.whole = copy(m.token[:], body.Data) == tokenBytes
	return m, len(body.Data) - tokenBytes, true
}

// parseEchoReply reads a reply to one of our echoes: one with a token and nothing after it.
func parseEchoReply(b []byte, v6 bool) (echoMessage, bool) {
	_, reply := echoTypes(v6)
	m, extra, ok := parseEcho(b, reply)
	return m, ok && extra == 0
}

// parseICMPError reads an ICMP error that quotes one of our echoes.
func parseICMPError(b []byte, v6 bool) (icmpError, bool) {
	parsed, err := icmp.ParseMessage(icmpProtocol(v6), b)
	if err != nil || icmpWords(parsed.Type, parsed.Code) == "" {
		return icmpError{}, false
	}
	m := icmpError{typ: parsed.Type, code: parsed.Code}
	var packet []byte
	switch body := parsed.Body.(type) {
	case *icmp.DstUnreach:
		packet = body.Data
	case *icmp.TimeExceeded:
		packet = body.Data
	}
	var ok bool
	if v6 {
		m.to, packet, ok = parseIPv6(packet)
	} else {
		m.to, packet, ok = parseIPv4(packet)
	}
	if !ok {
		return icmpError{}, false
	}
	request, _ := echoTypes(v6)
	m.echo, _, ok = parseEcho(packet, request)
	return m, ok
}

// parseIPv4 returns the destination of an IPv4 packet that carries ICMP, and its content.
func parseIPv4(b []byte) (to netip.Addr, content []byte, ok bool) {
	h, err := ipv4.ParseHeader(b)
	if err != nil || h.Version != ipv4.Version || h.Protocol != syscall.IPPROTO_ICMP {
		return netip.Addr{}, nil, false
	}
	to, ok = netip.AddrFromSlice(h.Dst.To4())
	return to, b[h.Len:], ok
}

// parseIPv6 returns the destination of an IPv6 packet that carries ICMP, and its content. We send no extension headers.
func parseIPv6(b []byte) (to netip.Addr, content []byte, ok bool) {
	h, err := ipv6.ParseHeader(b)
	if err != nil || h.Version != ipv6.Version || h.NextHeader != syscall.IPPROTO_ICMPV6 {
		return netip.Addr{}, nil, false
	}
	to, ok = netip.AddrFromSlice(h.Dst)
	return to, b[ipv6.HeaderLen:], ok
}

// icmpType returns a type of ICMP or ICMPv6 from its number.
func icmpType(v6 bool, number byte) icmp.Type {
	if v6 {
		return ipv6.ICMPType(number)
	}
	return ipv4.ICMPType(number)
}

// icmpWords returns what an ICMP error means, or "" for a message that does not fail a check: a packet that is too big
// is not the target's fault. x/net/icmp has no names for the codes.
func icmpWords(typ icmp.Type, code int) string {
	switch typ {
	case ipv4.ICMPTypeTimeExceeded, ipv6.ICMPTypeTimeExceeded:
		if code == 0 {
			return wayTooLong
		}
		return ""
	case ipv6.ICMPTypeDestinationUnreachable: // RFC 4443, 3.1
		switch code {
		case 0, 6: // no route; a route that rejects
			return networkUnreachable
		case 1, 5: // by a firewall; for the source address
			return prohibited
		case 4:
			return portUnreachable
		}
		return hostUnreachable
	case ipv4.ICMPTypeDestinationUnreachable: // RFC 792 and RFC 1812, 5.2.7.1
		switch code {
		case 0, 5, 6, 11:
			return networkUnreachable
		case 2:
			return protocolUnreachable
		case 3:
			return portUnreachable
		case 4: // fragmentation needed
			return ""
		case 9, 10, 13:
			return prohibited
		}
		return hostUnreachable
	}
	return ""
}
