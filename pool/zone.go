package pool

import "strings"

// maxZoneBytes is the length of an interface's name: IFNAMSIZ less a closing zero (netdevice(7)).
const maxZoneBytes = 15

// ValidZone reports whether an IPv6 address may have that zone: it could be the name of an interface, or its number,
// and has nothing in it that would disturb a log, a terminal or an address around it. netip takes any text for a zone.
func ValidZone(zone string) bool {
	const disturbing = "/:%[]\"'`\\"
	if zone == "" || len(zone) > maxZoneBytes || zone == "." || zone == ".." {
		return false
	}
	return !strings.ContainsFunc(zone, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(disturbing, c)
	})
}
