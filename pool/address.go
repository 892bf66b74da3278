package pool

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxPathBytes is the longest path of a Unix socket: sun_path without its closing zero (unix(7)).
const MaxPathBytes = 107

// unixPrefix begins the text of an address that is a Unix socket.
const unixPrefix = "unix:"

// An Address is where a backend listens: an IP address and a port, or the path of a Unix socket. A backend's address may
// lack the port, which is 0 then: each client gets the port that it has connected to. An Address is a plain value and
// can be compared. The zero value is no address.
type Address struct {
	netip.AddrPort        // not valid for a Unix socket
	Path           string // of a Unix socket; "" for an IP address
}

// At returns the address of an IP address and a port.
func At(a netip.AddrPort) Address { return Address{AddrPort: a} }

// ParseAddress reads what String returns. It does not check whether the address can be connected to.
func ParseAddress(text string) (Address, error) {
	if p, is := strings.CutPrefix(text, unixPrefix); is {
		if why := CheckPath(p); why != "" {
			return Address{}, fmt.Errorf("address %q: %s", text, why)
		}
		return Address{Path: p}, nil
	}
	if host, bracketed := cutBrackets(text); bracketed || !strings.Contains(text, ":") {
		ip, err := netip.ParseAddr(host)
		if err == nil && ip.Is6() != bracketed {
			err = fmt.Errorf("address %q: an IPv6 address needs brackets, and no other", text)
		}
		if err != nil {
			return Address{}, err
		}
		return At(netip.AddrPortFrom(ip, 0)), nil
	}
	a, err := netip.ParseAddrPort(text)
	if err == nil && a.Port() == 0 {
		return Address{}, fmt.Errorf("address %q: the port is 0", text)
	}
	return At(a), err
}

// cutBrackets cuts the brackets off an IPv6 address without a port.
func cutBrackets(text string) (inside string, bracketed bool) {
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		return text[1 : len(text)-1], true
	}
	return text, false
}

// CheckPath says what is wrong with the path of a Unix socket; "" if nothing is.
func CheckPath(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return "the path does not begin with '/'"
	case len(p) > MaxPathBytes:
		return fmt.Sprintf("the path has %d bytes, and a Unix socket's has up to %d", len(p), MaxPathBytes)
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return "the path has characters that are not text"
	case path.Clean(p) != p:
		return fmt.Sprintf("the same path in short is %q", path.Clean(p))
	}
	return ""
}

// IsUnix reports whether the address is a Unix socket.
func (a Address) IsUnix() bool { return a.Path != "" }

// IsPortless reports whether the address is an IP address without a port.
func (a Address) IsPortless() bool { return a.AddrPort.IsValid() && a.Port() == 0 }

// WithPort returns the address, with this port if it is an IP address without one.
func (a Address) WithPort(port uint16) Address {
	if a.IsPortless() {
		a.AddrPort = netip.AddrPortFrom(a.Addr(), port)
	}
	return a
}

// IsValid reports whether this is an address at all.
func (a Address) IsValid() bool { return a.IsUnix() || a.AddrPort.IsValid() }

// AppendTo appends the text of the address to b.
func (a Address) AppendTo(b []byte) []byte {
	if a.IsUnix() {
		return append(append(b, unixPrefix...), a.Path...)
	}
	if a.IsPortless() {
		if a.Addr().Is4() {
			return a.Addr().AppendTo(b)
		}
		return append(a.Addr().AppendTo(append(b, '[')), ']')
	}
	return a.AddrPort.AppendTo(b)
}

// String returns the address as in the configuration: IP:PORT, unix:PATH, or without a port IPV4 or [IPV6].
func (a Address) String() string {
	switch {
	case a.IsUnix():
		return unixPrefix + a.Path
	case a.IsPortless():
		return string(a.AppendTo(nil))
	}
	return a.AddrPort.String()
}

// MarshalText implements encoding.TextMarshaler.
func (a Address) MarshalText() ([]byte, error) {
	if a.IsUnix() || a.IsPortless() {
		return a.AppendTo(nil), nil
	}
	return a.AddrPort.MarshalText()
}

// UnmarshalText implements encoding.TextUnmarshaler. An empty text is the zero value.
func (a *Address) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*a = Address{}
		return nil
	}
	*a, err = ParseAddress(string(text))
	return err
}

// Compare orders addresses: by IP address and port, Unix sockets first and by their paths.
func (a Address) Compare(b Address) int {
	return cmp.Or(a.AddrPort.Compare(b.AddrPort), strings.Compare(a.Path, b.Path))
}

// unmapped returns the address, an IPv4-mapped IPv6 address as IPv4.
func (a Address) unmapped() Address {
	if a.AddrPort.IsValid() {
		a.AddrPort = unmapped(a.AddrPort)
	}
	return a
}

// connectable reports whether the address can be connected to.
func (a Address) connectable() bool {
	if a.IsUnix() {
		return !a.AddrPort.IsValid() && CheckPath(a.Path) == ""
	}
	return a.AddrPort.IsValid() && isUnicast(a.Addr())
}
