package discovery

import (
	"strconv"

	"github.com/miekg/dns"
)

// A Family says which addresses of a host are used. The zero value is AnyFamily.
type Family uint8

// The families. With AnyFamily, a host with addresses of both families is two backends, since the DNS does not say that
// two addresses belong to one host.
const (
	AnyFamily Family = iota
	IPv4
	IPv6
)

// String returns the family as in the configuration.
func (f Family) String() string {
	switch f {
	case AnyFamily:
		return "any"
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return "family(" + strconv.Itoa(int(f)) + ")"
}

// types returns the record types that are asked for, as LookupError.Type has them.
func (f Family) types() string {
	switch f {
	case IPv4:
		return "A"
	case IPv6:
		return "AAAA"
	}
	return "A/AAAA"
}

// questions returns the record types that are asked for, as the library has them.
func (f Family) questions() []uint16 {
	switch f {
	case IPv4:
		return []uint16{dns.TypeA}
	case IPv6:
		return []uint16{dns.TypeAAAA}
	}
	return []uint16{dns.TypeA, dns.TypeAAAA}
}
