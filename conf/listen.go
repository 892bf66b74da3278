package conf

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
)

// Addresses are where a listener listens. In a file they are a list of texts, or one text.
type Addresses []string

// isAddresses reports whether a type is Addresses: the one list that may be written as a single text.
func isAddresses(t reflect.Type) bool { return t == reflect.TypeFor[Addresses]() }

// A Bind is one address and port of a listener, or a Unix socket. Its zero value is of no use.
type Bind struct {
	Element int    // of Listener.Address; that of a range has a Bind for each port
	Port    uint16 // of Addr
	// Addr is an IP address and port. Parse fills it for a literal address and Resolve for a host name; until then it
	// is not valid. An IPv4-mapped address is stored as IPv4.
	Addr netip.AddrPort
	// DualStack says that Addr is [::] and accepts IPv4 clients too, since the text is ":port". Any other IPv6 address,
	// including "[::]:port", is for IPv6 only.
	DualStack bool

	Path string // of the Unix socket; "" for other addresses. Addr is not valid then
}

// maxBinds bounds the binds of a listener. Each has a socket for each loop.
const maxBinds = 1024

// AddressPath returns the path of an element of Address; that of the key itself if there is only one.
func (l *Listener) AddressPath(elem int) string {
	path := Path("listener", l.Name, "address")
	if len(l.Address) == 1 {
		return path
	}
	return element(path, elem)
}

// AddressText returns the addresses as in the file, each followed by the resolved address if it has a resolved host
// name.
func (l *Listener) AddressText() string {
	texts := make([]string, len(l.Address))
	for i, text := range l.Address {
		texts[i] = text
		if b := l.firstBind(i); b != nil {
			texts[i] = resolvedListener(text, b.Addr)
		}
	}
	return strings.Join(texts, ", ")
}

// firstBind returns the first Bind of an element of Address; nil if it has none, since it is a mistake.
func (l *Listener) firstBind(elem int) *Bind {
	for i := range l.Binds {
		if l.Binds[i].Element == elem {
			return &l.Binds[i]
		}
	}
	return nil
}

// speaks reports whether the listener has clients of a protocol, "tcp" or "udp".
func (l *Listener) speaks(protocol string) bool { return decides(l.Protocol, []string{protocol}) }

// Protocols returns the protocols of the listener's clients, "tcp" before "udp".
func (l *Listener) Protocols() []string { return strings.Split(l.Protocol, "+") }

// validateAddresses checks where a listener listens, and fills Binds.
func validateAddresses(r *report, l *Listener) {
	defer validateUnixListener(r, l)
	for i, text := range l.Address {
		path := l.AddressPath(i)
		end, last, ok := validListenerAddress(r, path, text)
		if !ok {
			continue
		}
		if n := int(last-end.port) + 1; len(l.Binds)+n > maxBinds {
			r.add(path, Error{
				Found:   quote(text),
				Message: fmt.Sprintf("with it the listener has %d addresses and ports", len(l.Binds)+n),
				Allowed: fmt.Sprintf("allowed is %d", maxBinds),
			})
			return
		}
		b := Bind{Element: i}
		switch { // a host name has no address yet
		case end.path != "":
			b.Path = end.path
		case end.host == "":
			b.Addr, b.DualStack = netip.AddrPortFrom(netip.IPv6Unspecified(), 0), true
		case end.ip.IsValid():
			b.Addr = netip.AddrPortFrom(end.ip, 0)
		}
		for port := int(end.port); port <= int(last); port++ {
			b.setPort(uint16(port))
			l.Binds = append(l.Binds, b)
		}
	}
}

// setPort gives the bind a port.
func (b *Bind) setPort(port uint16) {
	b.Port = port
	if b.Addr.IsValid() {
		b.Addr = netip.AddrPortFrom(b.Addr.Addr(), port)
	}
}

// checkListenerConflicts reports addresses that two listeners would have, or one listener twice. A wildcard and a
// single address do not conflict: the kernel prefers the single address.
func checkListenerConflicts(r *report, listeners []Listener) {
	type claimant struct {
		listener *Listener
		element  int
	}
	taken := map[string]claimant{}
	for i := range listeners {
		l := &listeners[i]
		reported := -1 // the element that was reported last
		for k := range l.Binds {
			b := &l.Binds[k]
			for _, claim := range l.claims(b) {
				first, conflict := taken[claim]
				if !conflict {
					taken[claim] = claimant{l, b.Element}
					continue
				}
				if reported == b.Element || first == (claimant{l, b.Element}) {
					continue
				}
				reported = b.Element
				path := first.listener.AddressPath(first.element)
				r.add(l.AddressPath(b.Element), Error{
					Found: quote(l.Address[b.Element]),
					Message: fmt.Sprintf("%s %s, %s, has this address already",
						path, r.where(path), quote(first.listener.Address[first.element])),
				})
			}
		}
	}
}

// claims returns what no other bind may have: its address, or both wildcards if it is dual-stack, for each of the
// listener's protocols. A host name claims its text until it is resolved.
func (l *Listener) claims(b *Bind) []string {
	var claims []string
	for _, protocol := range l.Protocols() {
		switch {
		case b.Path != "":
			claims = append(claims, protocol+" "+unixPrefix+b.Path)
		case b.DualStack:
			v4 := netip.AddrPortFrom(netip.IPv4Unspecified(), b.Port)
			claims = append(claims, protocol+" "+b.Addr.String(), protocol+" "+v4.String())
		case b.Addr.IsValid():
			claims = append(claims, protocol+" "+b.Addr.String())
		default:
			if end, _, e := splitListenerAddress(l.Address[b.Element], ""); e == nil {
				end.port = b.Port
				claims = append(claims, protocol+" "+end.String())
			}
		}
	}
	return claims
}
