package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

const anyProxy = ProxyV1 | ProxyV2

// proxyV2 returns a header of version 2 whose length is that of the rest.
func proxyV2(command, family byte, rest string) string {
	head := []byte(proxySignature + string([]byte{command, family}))
	return string(binary.BigEndian.AppendUint16(head, uint16(len(rest)))) + rest
}

func tlv(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

// summed fills in the checksum of a header in which it is zero.
func summed(header string) string {
	at := strings.Index(header, tlv(tlvCRC32C, "\x00\x00\x00\x00")) + 3
	sum := crc32.Checksum([]byte(header), crc32.MakeTable(crc32.Castagnoli))
	return header[:at] + string(binary.BigEndian.AppendUint32(nil, sum)) + header[at+4:]
}

const (
	rest4 = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x01\x02\x00\x35" // 192.0.2.1:258 to 198.51.100.2:53
	rest6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xff\xff\x00\x01"
	mapped6 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x02\x01\x02\x00\x35"
	noCRC = "\x03\x00\x04\x00\x00\x00\x00"
)

// goodProxies are headers, and whom they name.
var goodProxies = []struct{ name, header, client, local, tlvs string }{
	{"v1", "PROXY TCP4 192.0.2.1 198.51.100.2 258 53\r\n", "192.0.2.1:258", "198.51.100.2:53", ""},
	{"v1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 65535 1\r\n", "[2001:db8::1]:65535", "[2001:db8::2]:1", ""},
	{"v1, IPv4-mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 258 53\r\n", "192.0.2.1:258",
		"198.51.100.2:53", ""},
	{"v1, port 0", "PROXY TCP4 192.0.2.1 198.51.100.2 0 53\r\n", "192.0.2.1:0", "198.51.100.2:53", ""},
	{"v1, the longest with addresses", "PROXY TCP6 " + strings.Repeat("ffff:", 7) + "ffff " + strings.Repeat("ffff:", 7) +
		"fff0 65535 65535\r\n", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
		"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0]:65535", ""},
	{"v1, unknown", "PROXY UNKNOWN\r\n", "", "", ""},
	{"v1, unknown, the longest", "PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n", "", "", ""},
	{"v2", proxyV2(0x21, 0x11, rest4), "192.0.2.1:258", "198.51.100.2:53", ""},
	{"v2, a datagram's client", proxyV2(0x21, 0x12, rest4), "192.0.2.1:258", "198.51.100.2:53", ""},
	{"v2, IPv6", proxyV2(0x21, 0x21, rest6), "[2001:db8::1]:65535", "[2001:db8::2]:1", ""},
	{"v2, IPv4-mapped", proxyV2(0x21, 0x21, mapped6), "192.0.2.1:258", "198.51.100.2:53", ""},
	{"v2, unix", proxyV2(0x21, 0x31, strings.Repeat("\x00", 216)+tlv(1, "h2")), "", "", tlv(1, "h2")},
	{"v2, unspec", proxyV2(0x21, 0x00, ""), "", "", ""},
	{"v2, unspec with something", proxyV2(0x21, 0x00, "something"), "", "", ""},
	{"v2, local", proxyV2(0x20, 0x00, ""), "", "", ""},
	{"v2, local without its addresses", proxyV2(0x20, 0x11, ""), "", "", ""},
	{"v2, local with addresses", proxyV2(0x20, 0x11, rest4+noCRC[:2]), "", "", ""},
	{"v2, an unknown TLV", proxyV2(0x21, 0x11, rest4+tlv(0xea, "vpce")+tlv(0xff, "")), "192.0.2.1:258",
		"198.51.100.2:53", tlv(0xea, "vpce") + tlv(0xff, "")},
	{"v2, CRC32C", summed(proxyV2(0x21, 0x11, rest4+tlv(1, "h2")+noCRC+tlv(4, "xx"))), "192.0.2.1:258",
		"198.51.100.2:53", ""},
	{"v2, local with CRC32C", summed(proxyV2(0x20, 0x00, noCRC)), "", "", ""},
	{"v2, as long as may be", proxyV2(0x21, 0x11, rest4+tlv(0x20, strings.Repeat("c", maxProxyV2Rest-12-3))),
		"192.0.2.1:258", "198.51.100.2:53", tlv(0x20, strings.Repeat("c", maxProxyV2Rest-12-3))},
}

// TestParseProxy holds what headers say, that what follows them is none of theirs, and that each beginning of one is
// known to be one.
func TestParseProxy(t *testing.T) {
	for _, tc := range goodProxies {
		t.Run(tc.name, func(t *testing.T) {
			h, result := ParseProxy([]byte(tc.header+"payload"), anyProxy)
			if result != ProxyWhole || h.Size != len(tc.header) {
				t.Fatalf("result %d, %d bytes; want a header of %d", result, h.Size, len(tc.header))
			}
			if got := addrText(h.Client) + " " + addrText(h.Local); got != tc.client+" "+tc.local {
				t.Errorf("from %s; want %s %s", got, tc.client, tc.local)
			}
			if tc.tlvs != "" && string(h.TLVs) != tc.tlvs {
				t.Errorf("TLVs %q; want %q", h.TLVs, tc.tlvs)
			}
			for n := range len(tc.header) {
				if _, result := ParseProxy([]byte(tc.header[:n]), anyProxy); result != ProxyPart {
					t.Fatalf("%d of its bytes: result %d", n, result)
				}
			}
			version, other := ProxyV1, ProxyV2
			if tc.header[0] != 'P' {
				version, other = other, version
			}
			if _, result := ParseProxy([]byte(tc.header), version); result != ProxyWhole {
				t.Errorf("its own version alone: result %d", result)
			}
			if _, result := ParseProxy([]byte(tc.header[:1]), other); result != ProxyMalformed {
				t.Errorf("the other version alone: result %d", result)
			}
		})
	}
}

func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// TestParseProxyRefuses holds what is no header, and that this is known before more has come than must.
func TestParseProxyRefuses(t *testing.T) {
	line := func(s string) string { return "PROXY " + s + "\r\n" }
	for name, p := range map[string]string{
		"something else":            "GET / HTTP/1.1\r\n",
		"lower case":                "proxy TCP4",
		"another word":              "PROXYX",
		"TLS":                       "\x16\x03\x01",
		"half a signature":          "\r\n\r\nGET",
		"only LF":                   "PROXY TCP4 192.0.2.1 198.51.100.2 258 53\n",
		"CR alone":                  "PROXY TCP4 192.0.2.1\r198",
		"no family":                 line(""),
		"another family":            line("TCP5 192.0.2.1 198.51.100.2 258 53"),
		"UDP":                       line("UDP4 192.0.2.1 198.51.100.2 258 53"),
		"IPv6 as TCP4":              line("TCP4 2001:db8::1 2001:db8::2 258 53"),
		"IPv4 as TCP6":              line("TCP6 192.0.2.1 198.51.100.2 258 53"),
		"a zone":                    line("TCP6 fe80::1%eth0 fe80::2 258 53"),
		"leading zeros":             line("TCP4 192.0.02.1 198.51.100.2 258 53"),
		"no address":                line("TCP4  198.51.100.2 258 53"),
		"a host name":               line("TCP4 localhost 198.51.100.2 258 53"),
		"two spaces":                line("TCP4 192.0.2.1  198.51.100.2 258 53"),
		"one port":                  line("TCP4 192.0.2.1 198.51.100.2 258"),
		"something behind":          line("TCP4 192.0.2.1 198.51.100.2 258 53 "),
		"a port with a zero":        line("TCP4 192.0.2.1 198.51.100.2 0258 53"),
		"a port with a sign":        line("TCP4 192.0.2.1 198.51.100.2 +258 53"),
		"a negative port":           line("TCP4 192.0.2.1 198.51.100.2 -1 53"),
		"a large port":              line("TCP4 192.0.2.1 198.51.100.2 65536 53"),
		"a very large port":         line("TCP4 192.0.2.1 198.51.100.2 4294967554 53"),
		"a NUL":                     line("TCP4 192.0.2.1\x00 198.51.100.2 258 53"),
		"106 bytes without an end":  "PROXY UNKNOWN " + strings.Repeat("x", 92),
		"108 bytes":                 "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n",
		"a line without an end":     "PROXY " + strings.Repeat("x", 1<<20),
		"version 1 in binary":       proxySignature + "\x11\x11\x00\x0c" + rest4,
		"version 3":                 proxySignature + "\x31\x11\x00\x0c" + rest4,
		"another command":           proxySignature + "\x22\x11\x00\x0c" + rest4,
		"another binary family":     proxySignature + "\x21\x41\x00\x0c" + rest4,
		"another transport":         proxySignature + "\x21\x13\x00\x0c" + rest4,
		"LOCAL of another family":   proxySignature + "\x20\x44\x00\x00",
		"too short for IPv4":        proxySignature + "\x21\x11\x00\x0b" + rest4,
		"too short for IPv6":        proxySignature + "\x21\x21\x00\x0c" + rest4,
		"too short for UNIX":        proxySignature + "\x21\x31\x00\xd7",
		"longer than may be":        proxySignature + "\x21\x11\x10\x01",
		"as long as can be":         proxySignature + "\x21\x11\xff\xff",
		"LOCAL, as long as can be":  proxySignature + "\x20\x00\xff\xff",
		"half a TLV":                proxyV2(0x21, 0x11, rest4+"\x01\x00"),
		"a TLV beyond the end":      proxyV2(0x21, 0x11, rest4+"\x01\x00\x03h2"),
		"a wrong checksum":          proxyV2(0x21, 0x11, rest4+noCRC),
		"a short checksum":          proxyV2(0x21, 0x11, rest4+tlv(tlvCRC32C, "\x00\x00\x00")),
		"a wrong checksum of LOCAL": proxyV2(0x20, 0x00, noCRC),
		"a wrong one of UNIX":       proxyV2(0x21, 0x31, strings.Repeat("\x00", 216)+noCRC),
		"one changed byte": strings.Replace(summed(proxyV2(0x21, 0x11, rest4+noCRC)), "\xc0\x00\x02\x01",
			"\xc0\x00\x02\x02", 1),
	} {
		if h, result := ParseProxy([]byte(p), anyProxy); result != ProxyMalformed {
			t.Errorf("%s: result %d, %+v", name, result, h)
		}
	}
	if _, result := ParseProxy(nil, 0); result != ProxyMalformed {
		t.Errorf("no version: result %d", result)
	}
}

// TestParseProxyAllocates bounds what a header costs.
func TestParseProxyAllocates(t *testing.T) {
	for _, tc := range goodProxies {
		most := 0.0
		if tc.client != "" && tc.header[0] == 'P' {
			most = 2 // the texts of both addresses
		}
		p := []byte(tc.header)
		if n := testing.AllocsPerRun(100, func() { ParseProxy(p, anyProxy) }); n > most {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
}

// TestAppendProxy holds that what is written is what ParseProxy and go-proxyproto read.
func TestAppendProxy(t *testing.T) {
	tlvs := tlv(1, "h2") + tlv(tlvNoop, "pad") + tlv(0xea, "vpce") + tlv(tlvCRC32C, "abcd")
	for _, tc := range []struct{ client, local, asClient, asLocal string }{
		{"192.0.2.1:258", "198.51.100.2:53", "192.0.2.1:258", "198.51.100.2:53"},
		{"[2001:db8::1]:65535", "[2001:db8::2]:1", "[2001:db8::1]:65535", "[2001:db8::2]:1"},
		{"192.0.2.1:258", "[2001:db8::2]:1", "192.0.2.1:258", "[2001:db8::2]:1"},
		{"[2001:db8::1]:0", "198.51.100.2:53", "[2001:db8::1]:0", "198.51.100.2:53"},
		{"[fe80::1%eth0]:7", "[fe80::2%eth0]:8", "[fe80::1]:7", "[fe80::2]:8"},
	} {
		client, local := netip.MustParseAddrPort(tc.client), netip.MustParseAddrPort(tc.local)
		for _, version := range []ProxyVersions{ProxyV1, ProxyV2} {
			p := AppendProxy([]byte("before"), version, client, local, []byte(tlvs))
			if string(p[:6]) != "before" {
				t.Fatalf("%q", p)
			}
			p = p[6:]
			h, result := ParseProxy(p, version)
			if result != ProxyWhole || h.Size != len(p) || h.Client.String() != tc.asClient || h.Local.String() != tc.asLocal {
				t.Errorf("%s to %s: result %d, %+v of %q", tc.client, tc.local, result, h, p)
			}
			if want := tlv(1, "h2") + tlv(0xea, "vpce"); version == ProxyV2 && string(h.TLVs) != want {
				t.Errorf("TLVs %q; want %q", h.TLVs, want)
			}
			theirs, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(p)))
			if err != nil || theirAddr(theirs.SourceAddr).String() != tc.asClient {
				t.Errorf("%s to %s: go-proxyproto: %+v, %v", tc.client, tc.local, theirs, err)
			}
		}
	}
	for _, version := range []ProxyVersions{ProxyV1, ProxyV2} {
		p := AppendProxyLocal(nil, version)
		h, result := ParseProxy(p, version)
		if result != ProxyWhole || h.Size != len(p) || h.Client.IsValid() {
			t.Errorf("%q: result %d, %+v", p, result, h)
		}
		theirs, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(p)))
		if err != nil || !theirs.Command.IsLocal() {
			t.Errorf("%q: go-proxyproto: %+v, %v", p, theirs, err)
		}
	}
}

// theirAddr converts an address of go-proxyproto; it is invalid if that is not of IP.
func theirAddr(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		at = a.AddrPort()
	case *net.UDPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// FuzzParseProxy holds that any bytes can be parsed, that a header stays one whatever follows, that all its beginnings
// are parts of one, and that go-proxyproto reads the same from it. That library is stricter with what is not to be
// looked at, laxer with TLVs, and knows no checksum.
func FuzzParseProxy(f *testing.F) {
	for _, tc := range goodProxies {
		f.Add([]byte(tc.header))
	}
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.2 258 53\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, result := ParseProxy(p, anyProxy)
		if result != ProxyWhole {
			return
		}
		if h.Size > len(p) || h.Size > MaxProxyHeader || h.Client.IsValid() != h.Local.IsValid() || !wellFormed(h.TLVs) {
			t.Fatalf("%+v of %d bytes", h, len(p))
		}
		for _, n := range []int{h.Size - 1, h.Size / 2, 17, 5} {
			if _, result := ParseProxy(p[:min(n, h.Size-1)], anyProxy); result != ProxyPart {
				t.Fatalf("%d of its %d bytes: result %d", n, h.Size, result)
			}
		}
		again, result := ParseProxy(append(bytes.Clone(p[:h.Size]), "\r\nmore"...), anyProxy)
		if result != ProxyWhole || again.Client != h.Client || again.Size != h.Size || !bytes.Equal(again.TLVs, h.TLVs) {
			t.Fatalf("%+v, and with something behind it result %d, %+v", h, result, again)
		}
		theirs, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(p), 1<<16))
		if h.Client.IsValid() && (err != nil || theirAddr(theirs.SourceAddr) != h.Client ||
			theirAddr(theirs.DestinationAddr) != h.Local) {
			t.Fatalf("%+v; go-proxyproto: %+v, %v", h, theirs, err)
		}
	})
}
