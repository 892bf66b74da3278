package conf

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const portNeeds = "allowed is 1 to 65535"

// An addressUse is the use of an address, which decides what is allowed.
type addressUse int

const (
	forListener   addressUse = iota
	forBackend               // of the configuration: Resolve turns a name into an address; the port may be missing
	forDiscovered            // a backend of a discovery file, in which names are not resolved; as forBackend otherwise
	forCheck                 // where a backend is checked, in any list of backends
	forResolver              // a DNS server, which cannot resolve its own name
	forAdmin                 // the control API, which listens before any name can be resolved
	forMetrics               // the metrics, likewise; the host may be missing
)

// isLiteral reports whether the host must be an IP address.
func (u addressUse) isLiteral() bool {
	return u == forDiscovered || u == forCheck || u == forResolver || u == forAdmin || u == forMetrics
}

// listens reports whether this process listens at the address, and does not connect to it.
func (u addressUse) listens() bool { return u == forListener || u == forAdmin || u == forMetrics }

func (u addressUse) needs() string {
	switch u {
	case forListener:
		return `needs "HOST:PORT", "[IPV6]:PORT", ":PORT" for all addresses, or "unix:PATH"`
	case forDiscovered:
		return `needs "IP:PORT", "[IPV6]:PORT", "IP" for each client's port, or "unix:PATH": it is discovery of type "dns" that resolves names`
	case forCheck:
		return `needs "IP:PORT" or "[IPV6]:PORT", or "" for the backend's own`
	case forResolver:
		return `needs "IP:PORT" or "[IPV6]:PORT" of a DNS server`
	case forAdmin:
		return `needs "unix:PATH", "IP:PORT", "[IPV6]:PORT", or "" for none`
	case forMetrics:
		return `needs "IP:PORT", "[IPV6]:PORT", ":PORT" for all addresses, "unix:PATH", or "" for none`
	}
	return `needs "HOST:PORT", "[IPV6]:PORT", "HOST" for each client's port, or "unix:PATH"`
}

// An address is the parsed text of an address.
type address struct {
	host string     // as written, but in lower case; "" is all addresses
	ip   netip.Addr // not valid if host is a name or ""
	port uint16     // 0 for a backend's that has none
	path string     // of a Unix socket; "" for other addresses
}

// String returns the canonical text: the same for all texts of one address.
func (e address) String() string {
	if e.path != "" {
		return unixPrefix + e.path
	}
	host := e.host
	if e.ip.IsValid() {
		host = e.ip.String()
	}
	if e.port == 0 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(e.port)))
}

// splitAddress parses the text of an address; needs says what the key allows. The error has neither place nor Found.
func splitAddress(s, needs string) (address, *Error) {
	if p, is := strings.CutPrefix(s, unixPrefix); is {
		return splitUnix(p, needs)
	}
	colon := strings.LastIndexByte(s, ':')
	host := s[:max(colon, 0)]
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") && len(host) > 2
	whole := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		whole = s[1 : len(s)-1]
	}
	ip, err := netip.ParseAddr(whole)
	switch {
	case s == "":
		return address{}, &Error{Allowed: needs}
	case err == nil && ip.Is6(): // its last colon is part of the IPv6 address
		return address{}, &Error{Message: "the port is missing", Allowed: needs}
	case colon < 0:
		return address{}, &Error{Message: "the port is missing", Allowed: needs}
	case !bracketed && strings.ContainsAny(host, ":[]"):
		return address{}, &Error{Allowed: needs}
	}
	port, err := strconv.ParseUint(s[colon+1:], 10, 16)
	if err != nil || port == 0 {
		return address{}, &Error{Message: "the port is " + quote(s[colon+1:]), Allowed: portNeeds}
	}
	e := address{host: strings.ToLower(host), port: uint16(port)}
	if bracketed {
		host = host[1 : len(host)-1]
	}
	if e.ip, err = netip.ParseAddr(host); err == nil {
		e.ip = e.ip.Unmap()
		return e, nil
	}
	if host != "" && (bracketed || !validHost(host)) {
		return address{}, &Error{Message: quote(host) + " is neither an IP address nor a host name", Allowed: needs}
	}
	return e, nil
}

// checkIP says what is wrong with an address to bind to or, for a backend, to connect to; "" if nothing is.
func checkIP(ip netip.Addr, backend bool) string {
	switch {
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "a multicast or broadcast address is of no use here"
	case ip.IsUnspecified() && backend:
		return "this address can be listened on but not connected to"
	case ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "":
		return "a link-local address needs its interface, as in fe80::1%eth0"
	case ip.Zone() != "" && !ip.IsLinkLocalUnicast():
		return "only a link-local address has a zone"
	case ip.Zone() != "" && !validZone(ip.Zone()):
		return "the zone " + quote(ip.Zone()) + " is not the name of an interface"
	}
	return ""
}

// maxZoneBytes is the longest name of an interface: IFNAMSIZ without the closing zero (netdevice(7)).
const maxZoneBytes = 15

// validZone reports whether a zone could be the name or number of an interface, and has no characters that would garble
// a log, a terminal or the address. netip accepts any text as a zone.
func validZone(zone string) bool {
	if zone == "" || len(zone) > maxZoneBytes || zone == "." || zone == ".." {
		return false
	}
	return !strings.ContainsFunc(zone, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune("/:%[]\"'`\\", c)
	})
}

// validHost reports whether a name could be in the DNS or in a hosts file (RFC 1123, 2.1, and the underscore of service
// names). A name that ends in a number is a mistyped address.
func validHost(host string) bool {
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || !bare(l) {
			return false
		}
	}
	last := labels[len(labels)-1]
	return len(host) <= 253 && strings.Trim(last, "0123456789") != ""
}
