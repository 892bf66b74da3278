package wire

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// AppendProxyV2 appends the PROXY protocol header of a datagram that client sent to the address local. If the addresses
// are of two families, both are written as IPv6.
func AppendProxyV2(to []byte, client, local netip.AddrPort) []byte {
	return appendProxyV2(to, client, local, proxyUDP4, proxyUDP6, 0)
}

// AppendProxy appends the PROXY protocol header of a connection from client to the address local, in one version.
// Version 2 passes on the well-formed TLVs of the header that the connection itself has come with, but for those that
// concern that header alone. If the addresses are of two families, both are written as IPv6.
func AppendProxy(to []byte, version ProxyVersions, client, local netip.AddrPort, tlvs []byte) []byte {
	if version == ProxyV1 {
		return appendProxyV1(to, client, local)
	}
	size := 0
	for left := tlvs; len(left) > 0; {
		var first []byte
		if first, left, _ = firstTLV(left); first[0] != tlvCRC32C && first[0] != tlvNoop {
			size += len(first)
		}
	}
	to = appendProxyV2(to, client, local, proxyTCP4, proxyTCP6, size)
	for left := tlvs; len(left) > 0; {
		var first []byte
		if first, left, _ = firstTLV(left); first[0] != tlvCRC32C && first[0] != tlvNoop {
			to = append(to, first...)
		}
	}
	return to
}

// AppendProxyLocal appends the PROXY protocol header of a connection on nobody's behalf, in one version.
func AppendProxyLocal(to []byte, version ProxyVersions) []byte {
	if version == ProxyV1 {
		return append(to, proxyWord+"UNKNOWN\r\n"...)
	}
	return append(append(to, proxySignature...), proxyLocal, proxyUnspec, 0, 0)
}

func appendProxyV1(to []byte, client, local netip.AddrPort) []byte {
	c, l := client.Addr().Unmap().WithZone(""), local.Addr().Unmap().WithZone("")
	to = append(to, proxyWord...)
	if c.Is4() && l.Is4() {
		to = append(to, "TCP4 "...)
	} else {
		to = append(to, "TCP6 "...)
		c, l = netip.AddrFrom16(c.As16()), netip.AddrFrom16(l.As16())
	}
	to = append(c.AppendTo(to), ' ')
	to = append(l.AppendTo(to), ' ')
	to = append(strconv.AppendUint(to, uint64(client.Port()), 10), ' ')
	return append(strconv.AppendUint(to, uint64(local.Port()), 10), "\r\n"...)
}

// appendProxyV2 appends a header with one of two families, and room for more bytes behind the addresses.
func appendProxyV2(to []byte, client, local netip.AddrPort, family4, family6 byte, more int) []byte {
	c, l := client.Addr().Unmap(), local.Addr().Unmap()
	to = append(to, proxySignature...)
	if c.Is4() && l.Is4() {
		to = append(to, proxyProxy, family4)
		to = binary.BigEndian.AppendUint16(to, uint16(proxySize4+more))
		c4, l4 := c.As4(), l.As4()
		to = append(append(to, c4[:]...), l4[:]...)
	} else {
		to = append(to, proxyProxy, family6)
		to = binary.BigEndian.AppendUint16(to, uint16(proxySize6+more))
		c6, l6 := c.As16(), l.As16()
		to = append(append(to, c6[:]...), l6[:]...)
	}
	to = binary.BigEndian.AppendUint16(to, client.Port())
	return binary.BigEndian.AppendUint16(to, local.Port())
}
