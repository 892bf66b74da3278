package pool

import "strings"

// maxZoneBytes is the longest name of an interface: IFNAMSIZ without the closing zero (netdevice(7)).
const maxZoneBytes = 15

// ValidZone reports whether an IPv6 address may have that zone: it could be the name or number of an interface, and has
// no characters that would garble a log, a terminal or the address. netip accepts any text as a zone.
func ValidZone(zone string) bool {
	const disturbing = "/:%[]\"'`\\"
	if zone == "" || len(zone) > maxZoneBytes || zone == "." || zone == ".." {
		return false
	}
	return !strings.ContainsFunc(zone, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(disturbing, c)
	})
}
