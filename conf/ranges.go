package conf

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A listener's address may have a range of ports, "HOST:FIRST-LAST": the listener then has each of them.

// splitListenerAddress parses the text of a listener's address, and returns the last port of its range, or its port if
// it has none. needs says what the key allows. The error has neither place nor Found.
func splitListenerAddress(s, needs string) (first address, last uint16, e *Error) {
	text, lastText, isRange := cutRange(s)
	if first, e = splitAddress(text, needs); e != nil || !isRange {
		return first, first.port, e
	}
	n, err := strconv.ParseUint(lastText, 10, 16)
	switch {
	case err != nil || n == 0:
		return first, 0, &Error{Message: "the last port is " + quote(lastText), Allowed: portNeeds}
	case uint16(n) < first.port:
		return first, 0, &Error{Message: fmt.Sprintf("the range ends before it begins, at %d", first.port),
			Allowed: `needs "FIRST-LAST"`}
	}
	return first, uint16(n), nil
}

// cutRange cuts the end of a range off an address, as in ":30000" and "30100".
func cutRange(s string) (first, last string, isRange bool) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.HasPrefix(s, unixPrefix) {
		return s, "", false
	}
	port, last, isRange := strings.Cut(s[colon+1:], "-")
	if !isRange || port == "" || strings.Trim(port, "0123456789") != "" {
		return s, "", false
	}
	return s[:colon+1] + port, last, true
}

// validListenerAddress reads the text of a listener's address at path, and reports its mistakes.
func validListenerAddress(r *report, path, s string) (first address, last uint16, ok bool) {
	first, last, e := readListenerAddress(s)
	if e != nil {
		e.Found, e.Nearest = quote(s), meantAddress(s, forListener)
		r.add(path, *e)
	}
	return first, last, e == nil
}

// readListenerAddress reads the text of a listener's address. The error has neither place nor Found.
func readListenerAddress(s string) (first address, last uint16, e *Error) {
	first, last, e = splitListenerAddress(s, forListener.needs())
	if e == nil && first.ip.IsValid() {
		if wrong := checkIP(first.ip, false); wrong != "" {
			e = &Error{Message: wrong}
		}
	}
	return first, last, e
}

// resolvedListener returns a listener's address as in the file, followed by the resolved address if it has a resolved
// host name.
func resolvedListener(text string, addr netip.AddrPort) string {
	host, _, isRange := cutRange(text)
	if !isRange {
		return ResolvedText(text, addr)
	}
	name, _, err := net.SplitHostPort(host)
	if _, literal := netip.ParseAddr(name); err != nil || name == "" || literal == nil || !addr.IsValid() {
		return text
	}
	return fmt.Sprintf("%s (%s)", text, addr.Addr())
}

// spreadRanges gives the other ports of each range the address that its first one has.
func (l *Listener) spreadRanges() {
	var first *Bind
	for i := range l.Binds {
		b := &l.Binds[i]
		if first == nil || first.Element != b.Element {
			first = b
		}
		if first.Addr.IsValid() {
			b.Addr = netip.AddrPortFrom(first.Addr.Addr(), b.Port)
		}
	}
}
