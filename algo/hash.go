package algo

import (
	"encoding/binary"
	"net/netip"
)

// HashAddr returns the key of a client's address. It is the same in every process and on every machine, so that a fleet
// of balancers agrees. An IPv4 address and its IPv4-mapped IPv6 form have the same key; the zone, which has a meaning
// on one machine only, does not count. Anybody can construct collisions: the hash spreads load and is no defence.
func HashAddr(a netip.Addr) uint64 {
	b := a.As16()
	return Mix(Mix(binary.BigEndian.Uint64(b[:8])) ^ binary.BigEndian.Uint64(b[8:]))
}

// Mix returns x with its bits mixed: a bijection in which each bit of x changes about half the bits of the result. It
// turns one key into further ones, for example Mix(key + attempt). It is fixed for ever, like HashAddr.
func Mix(x uint64) uint64 {
	// The finalizer of SplitMix64 (Steele, Lea, Flood 2014; constants by Stafford, "Mix13").
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// HashName returns the key of a server name that a client has asked for. It is fixed for ever, like HashAddr, and never
// 0. It has 32 bits, since each session keeps it; two names in four billion share a key. It allocates nothing.
func HashName(name []byte) uint32 {
	if h := uint32(hashText(name) >> 32); h != 0 {
		return h
	}
	return 1
}

// hashString returns the key of a text, such as a member's name. It is fixed for ever, like HashAddr.
func hashString(s string) uint64 { return hashText(s) }

func hashText[T string | []byte](s T) uint64 {
	h := uint64(len(s))
	for len(s) >= 8 {
		h = Mix(h ^ load64(s))
		s = s[8:]
	}
	var rest uint64
	for i := range len(s) {
		rest |= uint64(s[i]) << (8 * i)
	}
	return Mix(h ^ rest)
}

// load64 reads the first eight bytes of s, the lowest first.
func load64[T string | []byte](s T) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}
