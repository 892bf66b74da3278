package wire

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// The PROXY protocol is parsed here, and not by pires/go-proxyproto, since a loop peeks at bytes and must know whether
// more of them are to come: that library reads from a bufio.Reader, refuses a header that has not come in one piece,
// allocates about ten values for each, and does not verify CRC32C. Tests compare the two.

// ProxyVersions is a set of versions of the PROXY protocol. Its zero value is none.
type ProxyVersions uint8

// The versions.
const (
	ProxyV1 ProxyVersions = 1 << iota // text
	ProxyV2                           // binary
)

// proxySignature begins a PROXY protocol header of version 2 (proxy-protocol.txt, 2.2), and proxyWord one of version 1.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyWord      = "PROXY "
)

const (
	// maxProxyV1 is the longest header of version 1 (proxy-protocol.txt, 2.1).
	maxProxyV1 = 107

	// proxyV2Fixed is how long the part of a header of version 2 is that says how long the rest is.
	proxyV2Fixed = 16

	// maxProxyV2Rest bounds that rest, of which the protocol allows 64 KiB: it has room for a client's certificate, the
	// largest thing known in one, and is what nginx and go-proxyproto take, too.
	maxProxyV2Rest = 4096

	// MaxProxyHeader is the longest header that ParseProxy takes, in bytes.
	MaxProxyHeader = proxyV2Fixed + maxProxyV2Rest
)

// Commands and families of version 2 (proxy-protocol.txt, 2.2).
const (
	proxyLocal   = 0x20 // with the version
	proxyProxy   = 0x21
	proxyUnspec  = 0x00
	proxyTCP4    = 0x11
	proxyUDP4    = 0x12
	proxyTCP6    = 0x21
	proxyUDP6    = 0x22
	proxyUnix    = 0x31
	proxyUnixgrm = 0x32
)

// The sizes of addresses in version 2: both addresses, and their ports if they have any.
const (
	proxySize4    = 2*4 + 4
	proxySize6    = 2*16 + 4
	proxySizeUnix = 2 * 108
)

// The types of TLVs that concern one connection only (proxy-protocol.txt, 2.2.3 and 2.2.4).
const (
	tlvCRC32C = 0x03
	tlvNoop   = 0x04
)

// A ProxyHeader is what a PROXY protocol header says.
type ProxyHeader struct {
	Size   int            // of the header, in bytes
	Client netip.AddrPort // who the client is; invalid if the header leaves that to the connection's own address
	Local  netip.AddrPort // the address that the client has connected to; valid if Client is
	TLVs   []byte         // what else a header of version 2 says, well-formed: a part of the bytes that were parsed
}

// A ProxyResult is what ParseProxy has found.
type ProxyResult uint8

// The results.
const (
	ProxyWhole     ProxyResult = iota // a header
	ProxyPart                         // the beginning of what may become a header
	ProxyMalformed                    // what is no header, and becomes none
)

// ParseProxy parses the PROXY protocol header of one of these versions that a stream begins with. It allocates nothing
// for version 2. IPv4-mapped addresses are returned as IPv4.
//
// A header may leave the client to the connection's own address: LOCAL, UNKNOWN and families that are not of IP. One of
// a datagram's client (UDP over IPv4 or IPv6) names the client all the same.
func ParseProxy(p []byte, versions ProxyVersions) (ProxyHeader, ProxyResult) {
	if versions&ProxyV2 != 0 && begins(p, proxySignature) {
		return parseProxyV2(p)
	}
	if versions&ProxyV1 != 0 && begins(p, proxyWord) {
		return parseProxyV1(p)
	}
	return ProxyHeader{}, ProxyMalformed
}

// begins reports whether p begins with a word, or is the beginning of it.
func begins(p []byte, word string) bool {
	n := min(len(p), len(word))
	return string(p[:n]) == word[:n]
}

func parseProxyV1(p []byte) (ProxyHeader, ProxyResult) {
	malformed := func() (ProxyHeader, ProxyResult) { return ProxyHeader{}, ProxyMalformed }
	line := p[:min(len(p), maxProxyV1)]
	end := bytes.IndexAny(line, "\r\n")
	switch {
	case end < 0 && len(p) >= maxProxyV1-1: // at most one byte is left, and the end takes two
		return malformed()
	case end < 0:
		return ProxyHeader{}, ProxyPart
	case line[end] == '\n':
		return malformed()
	case end+1 == len(line) && len(p) < maxProxyV1:
		return ProxyHeader{}, ProxyPart
	case end+1 == len(line) || line[end+1] != '\n':
		return malformed()
	}
	h := ProxyHeader{Size: end + 2}
	family, rest, _ := bytes.Cut(line[len(proxyWord):end], []byte{' '})
	if string(family) == "UNKNOWN" { // what follows is to be ignored
		return h, ProxyWhole
	}
	if string(family) != "TCP4" && string(family) != "TCP6" {
		return malformed()
	}
	var fields [4][]byte // both addresses, then both ports
	for i := range fields {
		var more bool
		if fields[i], rest, more = bytes.Cut(rest, []byte{' '}); more != (i < len(fields)-1) {
			return malformed()
		}
	}
	client, ok := proxyAddrPort(fields[0], fields[2], string(family) == "TCP4")
	local, fine := proxyAddrPort(fields[1], fields[3], string(family) == "TCP4")
	if !ok || !fine {
		return malformed()
	}
	h.Client, h.Local = client, local
	return h, ProxyWhole
}

// proxyAddrPort parses an address and a port of version 1.
func proxyAddrPort(addr, port []byte, v4 bool) (netip.AddrPort, bool) {
	ip, err := netip.ParseAddr(string(addr))
	if err != nil || ip.Is4() != v4 || ip.Zone() != "" {
		return netip.AddrPort{}, false
	}
	if len(port) == 0 || len(port) > 5 || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, false
	}
	n := 0
	for _, c := range port {
		if c < '0' || c > '9' {
			return netip.AddrPort{}, false
		}
		n = 10*n + int(c-'0')
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), n <= 0xffff
}

func parseProxyV2(p []byte) (ProxyHeader, ProxyResult) {
	if len(p) < proxyV2Fixed {
		return ProxyHeader{}, ProxyPart
	}
	command, family := p[12], p[13]
	size := proxyV2Fixed + int(binary.BigEndian.Uint16(p[14:]))
	addresses, known := proxyAddresses(family)
	switch {
	case command != proxyLocal && command != proxyProxy,
		!known,
		size > MaxProxyHeader,
		command == proxyProxy && size < proxyV2Fixed+addresses:
		return ProxyHeader{}, ProxyMalformed
	case len(p) < size:
		return ProxyHeader{}, ProxyPart
	}
	h := ProxyHeader{Size: size}
	if command == proxyLocal || family == proxyUnspec {
		// Whatever follows is to be ignored. Only if it has a checksum, that holds.
		if rest := p[proxyV2Fixed:size]; len(rest) >= addresses && wellFormed(rest[addresses:]) {
			return h, checkedProxy(p[:size], rest[addresses:])
		}
		return h, ProxyWhole
	}
	at := p[proxyV2Fixed:]
	switch family {
	case proxyTCP4, proxyUDP4:
		ports := at[8:]
		h.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte(at)), binary.BigEndian.Uint16(ports))
		h.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(at[4:])), binary.BigEndian.Uint16(ports[2:]))
	case proxyTCP6, proxyUDP6:
		ports := at[32:]
		h.Client = netip.AddrPortFrom(netip.AddrFrom16([16]byte(at)).Unmap(), binary.BigEndian.Uint16(ports))
		h.Local = netip.AddrPortFrom(netip.AddrFrom16([16]byte(at[16:])).Unmap(), binary.BigEndian.Uint16(ports[2:]))
	}
	h.TLVs = p[proxyV2Fixed+addresses : size]
	if !wellFormed(h.TLVs) {
		return ProxyHeader{}, ProxyMalformed
	}
	return h, checkedProxy(p[:size], h.TLVs)
}

// proxyAddresses returns how many bytes the addresses of a family take; false if there is no such family.
func proxyAddresses(family byte) (size int, known bool) {
	switch family {
	case proxyUnspec:
		return 0, true
	case proxyTCP4, proxyUDP4:
		return proxySize4, true
	case proxyTCP6, proxyUDP6:
		return proxySize6, true
	case proxyUnix, proxyUnixgrm:
		return proxySizeUnix, true
	}
	return 0, false
}

// firstTLV returns the first TLV of some, whole, and the others behind it; false if it is not well-formed.
func firstTLV(tlvs []byte) (first, others []byte, ok bool) {
	const head = 3 // the type, and the length of the value
	if len(tlvs) < head {
		return nil, nil, false
	}
	size := head + int(binary.BigEndian.Uint16(tlvs[1:]))
	if len(tlvs) < size {
		return nil, nil, false
	}
	return tlvs[:size], tlvs[size:], true
}

// wellFormed reports whether TLVs have the lengths that they say.
func wellFormed(tlvs []byte) bool {
	ok := true
	for ok && len(tlvs) > 0 {
		_, tlvs, ok = firstTLV(tlvs)
	}
	return ok
}

// noSum stands for a checksum while it is computed. It is never written to.
var noSum [4]byte

// checkedProxy returns whether the checksum among a header's well-formed TLVs is right, if there is one: the CRC32C of
// the header with the checksum itself as zero (proxy-protocol.txt, 2.2.3).
func checkedProxy(header, tlvs []byte) ProxyResult {
	const head, sum = 3, len(noSum)
	for len(tlvs) > 0 {
		first, others, _ := firstTLV(tlvs)
		if first[0] == tlvCRC32C {
			if len(first) != head+sum {
				return ProxyMalformed
			}
			at := len(header) - len(tlvs) + head
			table := crc32.MakeTable(crc32.Castagnoli)
			found := crc32.Update(0, table, header[:at])
			found = crc32.Update(found, table, noSum[:])
			found = crc32.Update(found, table, header[at+sum:])
			if found != binary.BigEndian.Uint32(header[at:]) {
				return ProxyMalformed
			}
		}
		tlvs = others
	}
	return ProxyWhole
}
