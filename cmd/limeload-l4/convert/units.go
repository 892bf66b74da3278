package convert

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// longest bounds times; the longest that any key of limeload-l4 allows.
const longest = 720 * time.Hour

// timeText returns a duration as the configuration has it, between the bounds of a key; "" for none.
func timeText(d, least, most time.Duration) string {
	d = min(max(d, least), most)
	switch {
	case d == 0:
		return `"0s"`
	case d%time.Hour == 0:
		return quote(strconv.FormatInt(int64(d/time.Hour), 10) + "h")
	case d%time.Minute == 0:
		return quote(strconv.FormatInt(int64(d/time.Minute), 10) + "m")
	}
	return quote(d.String())
}

// parseUnits reads a number with an optional unit, as HAProxy and nginx write times: "30", "5s", "1h30m".
func parseUnits(s string, units map[string]time.Duration, bare time.Duration) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	var sum time.Duration
	for s != "" {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		n, err := strconv.ParseInt(s[:digits], 10, 64)
		if err != nil {
			return 0, false
		}
		s = s[digits:]
		letters := len(s) - len(strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyzM"))
		unit := bare
		if letters > 0 {
			known := false
			if unit, known = units[s[:letters]]; !known {
				return 0, false
			}
		}
		s = strings.TrimLeft(s[letters:], " ")
		if n > int64(longest/unit) {
			return longest, true
		}
		sum = min(sum+time.Duration(n)*unit, longest)
	}
	return sum, true
}

// parseNumber reads a whole number from low to high.
func parseNumber(s string, low, high int) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= low && n <= high && strings.Trim(s, "0123456789") == ""
}

// isPort reports whether s is a port, or with ranges a range of ports.
func isPort(s string, ranges bool) bool {
	first, last, isRange := strings.Cut(s, "-")
	a, ok := parseNumber(first, 1, 65535)
	if !isRange {
		return ok
	}
	b, okLast := parseNumber(last, 1, 65535)
	return ranges && ok && okLast && a <= b
}

// hostPort joins a host, which may be an IPv6 address without brackets, and a port, which may be "".
func hostPort(host, port string) string {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		host = "[" + host + "]"
	}
	if port == "" {
		return host
	}
	return host + ":" + port
}

// isPrefix reports whether s is an address or a prefix, and returns it without bits behind the prefix.
func isPrefix(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), true
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return netip.PrefixFrom(ip, ip.BitLen()), true
	}
	return netip.Prefix{}, false
}

// prefixText writes a prefix as people do: an address alone without its length.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// everybody is the prefixes that contain every client.
func everybody() []string { return []string{"0.0.0.0/0", "::/0"} }
