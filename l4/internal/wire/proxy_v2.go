package wire

import (
	"encoding/binary"
	"net/netip"
)

// proxySignature begins a PROXY protocol header of version 2 (proxy-protocol.txt, 2.2).
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// AppendProxyV2 appends the PROXY protocol header of a datagram that client sent to the address local. If the addresses
// are of two families, both are written as IPv6.
func AppendProxyV2(to []byte, client, local netip.AddrPort) []byte {
	const (
		version2Proxy = 0x21 // and the command PROXY
		udp4, udp6    = 0x12, 0x22
		ports         = 4
	)
	c, l := client.Addr().Unmap(), local.Addr().Unmap()
	to = append(to, proxySignature...)
	if c.Is4() && l.Is4() {
		to = append(to, version2Proxy, udp4)
		to = binary.BigEndian.AppendUint16(to, 4+4+ports)
		c4, l4 := c.As4(), l.As4()
		to = append(append(to, c4[:]...), l4[:]...)
	} else {
		to = append(to, version2Proxy, udp6)
		to = binary.BigEndian.AppendUint16(to, 16+16+ports)
		c6, l6 := c.As16(), l.As16()
		to = append(append(to, c6[:]...), l6[:]...)
	}
	to = binary.BigEndian.AppendUint16(to, client.Port())
	return binary.BigEndian.AppendUint16(to, local.Port())
}
