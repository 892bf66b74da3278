package dnscache

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// pointerRange is how far into a message a compressed name can point (RFC 1035, 4.1.4: 14 bits).
const pointerRange = 1 << 14

// maxRecords is how many records an answer has at most: as many addresses as fit into the largest message.
const maxRecords = 4096

// An answer is what reading a backend's answer found. It and its buffers belong to one Resolver and hold until the next one is read.
//
// To be written again with another spelling of the question, other TTLs and without its OPT record, a message must not point into
// what changes. So a compressed name may point to a label of the question or of another name before it, or into an earlier record's
// data, and nowhere else. No server compresses otherwise, and each step goes back, so none of this can loop.
//
// Reading is linear in the message, whatever its names point to: a place that was walked once is known, see name.
type answer struct {
	found
	ttls     []uint16 // where the TTLs of all records but OPT stand
	pointers []uint16 // where compressed names point from to behind the OPT record
	errors   []byte   // the options of extended errors
	places   [pointerRange]place
	walked   []uint16 // the labels and pointers of the name in work
	steps    int      // labels and pointers looked at, which tests hold to be linear
}

// A place is what is known of the name that begins with a label, or a pointer, at some place of a message. The zero value says that
// none is known to.
type place struct {
	length uint8 // of the whole name, with its root
	hops   uint8 // pointers in it
}

// found is the part of an answer that starts empty for each message.
type found struct {
	message []byte
	flags   uint16
	rcode   uint16 // the header's part
	end     int    // of the last record; what follows is no part of the message. 0 = there is not even a question
	counts  [3]uint16

	optFrom  int    // where the OPT record begins; 0 = there is none
	optTo    int    // where it ends
	extended uint8  // upper bits of the code, from the OPT record
	subnet   []byte // data of the subnet's option; nil = none

	truncated bool
	matching  bool   // the answer section has a record of the type that was asked for
	soa       bool   // the authority section has an SOA record
	minimum   uint32 // that the SOA record says
	lowest    uint32 // of all TTLs
}

// read reads a message that is to answer, under this id, the question for a name, spelled as it was sent, and the type
// that stands behind the name in a key. It reports false when the message is none, answers something else or is
// malformed. A name that is spelled otherwise is something else: whoever forges an answer does not know how it was
// (draft-vixie-dnsext-dns0x20).
func (a *answer) read(message []byte, id uint16, name, key []byte) bool {
	if len(message) < headerLen || len(message) > maxMessage || binary.BigEndian.Uint16(message) != id {
		return false
	}
	clear(a.places[:min(len(a.places), len(message))])
	a.steps = 0
	a.ttls, a.pointers, a.errors = a.ttls[:0], a.pointers[:0], a.errors[:0]
	flags := binary.BigEndian.Uint16(message[2:])
	a.found = found{message: message, flags: flags, rcode: flags & maskRcode, truncated: flags&flagTC != 0, lowest: math.MaxUint32}
	if a.flags&flagQR == 0 || a.flags&maskOpcode != 0 {
		return false
	}
	switch binary.BigEndian.Uint16(message[4:]) {
	case 1:
	case 0:
		// Some servers send the header alone when they fail. There is only its id to go by; all that it can do is fail.
		return a.rcode != rcodeOK && a.rcode != rcodeNoName && binary.BigEndian.Uint64(message[4:]) == 0
	default:
		return false
	}
	n := len(name)
	a.end = headerLen + n + questionLen
	if len(message) < a.end || !bytes.Equal(message[headerLen:headerLen+n], name) {
		return false
	}
	typ := binary.BigEndian.Uint16(key[n:])
	if binary.BigEndian.Uint32(message[headerLen+n:]) != uint32(typ)<<16|classIN {
		return false
	}
	if a.truncated {
		return true // and may end anywhere; only that it is truncated will be passed on
	}
	for at := headerLen; at < headerLen+n; at += 1 + int(message[at]) {
		a.places[at].length = uint8(headerLen + n - at) // the root too: simple servers point to the question whatever its name
	}
	return a.readRecords(typ)
}

// readRecords reads the three sections.
func (a *answer) readRecords(asked uint16) bool {
	records := 0
	for section := range a.counts {
		a.counts[section] = binary.BigEndian.Uint16(a.message[6+2*section:])
		if records += int(a.counts[section]); records > maxRecords {
			return false
		}
		for range a.counts[section] {
			at := a.name(a.end, len(a.message))
			if at == 0 || at+recordLen > len(a.message) {
				return false
			}
			typ := binary.BigEndian.Uint16(a.message[at:])
			to := at + recordLen + int(binary.BigEndian.Uint16(a.message[at+8:]))
			if to > len(a.message) {
				return false
			}
			if typ == typeOPT {
				if section != 2 || a.optFrom != 0 || at != a.end+1 || !a.readOPT(at, to) {
					return false
				}
				a.optFrom, a.optTo, a.end = a.end, to, to
				continue
			}
			if !a.readData(typ, at+recordLen, to) {
				return false
			}
			a.note(section, typ, asked, at+4, to)
			a.end = to
		}
	}
	if a.optFrom != 0 {
		a.counts[2]--
	}
	return true
}

// note takes down what a record means for how long the answer is good.
func (a *answer) note(section int, typ, asked uint16, ttlAt, to int) {
	a.ttls = append(a.ttls, uint16(ttlAt))
	ttl := seconds(a.message[ttlAt:])
	a.lowest = min(a.lowest, ttl)
	switch {
	case section == 0 && typ == asked:
		a.matching = true
	case section == 1 && typ == typeSOA:
		a.soa, a.minimum = true, seconds(a.message[to-4:])
	}
}

// seconds reads a TTL. One with the top bit set counts as zero (RFC 2181, 8).
func seconds(b []byte) uint32 {
	ttl := binary.BigEndian.Uint32(b)
	if ttl > math.MaxInt32 {
		return 0
	}
	return ttl
}

// readOPT reads the options that are of use: extended errors, and the subnet. Cookies and what else there is end here.
func (a *answer) readOPT(at, to int) bool {
	a.extended = a.message[at+4]
	for rest := a.message[at+recordLen : to]; len(rest) > 0; {
		if len(rest) < 4 {
			return false
		}
		size := 4 + int(binary.BigEndian.Uint16(rest[2:]))
		if size > len(rest) {
			return false
		}
		switch binary.BigEndian.Uint16(rest) {
		case optionError:
			a.errors = append(a.errors, rest[:size]...)
		case optionSubnet:
			if a.subnet != nil || size < 8 {
				return false
			}
			a.subnet = rest[4:size]
		}
		rest = rest[size:]
	}
	return true
}

// readData walks the names in a record's data, which may be compressed.
func (a *answer) readData(typ uint16, at, to int) bool {
	skip, names := dataNames(typ)
	if typ == typeNAPTR {
		skip = naptrNameAt(a.message[at:to])
	}
	if names > 0 && skip > to-at {
		return false
	}
	at += skip
	for range names {
		if at = a.name(at, to); at == 0 {
			return false
		}
	}
	return typ != typeSOA || to-at == 20 // five numbers, RFC 1035, 3.3.13
}

// name walks the name at a place whose own bytes end before to. It returns where they end, or 0 when the name is malformed or points
// where it must not. Each of its labels may be pointed to afterwards, and is not walked again: so all names of a message together take no
// more steps than it has bytes. Without that, one message of 64 KB took 310 ms (BenchmarkHostileAnswer).
func (a *answer) name(at, to int) (end int) {
	a.walked = a.walked[:0]
	length, hops := 0, 0
	for at < to {
		a.steps++
		if known := a.placeAt(at); known.length > 0 && end != 0 {
			if length+int(known.length) > maxNameLen || hops+int(known.hops) > maxHops {
				return 0
			}
			a.remember(known)
			return end
		}
		a.walked = append(a.walked, uint16(at))
		size := int(a.message[at])
		switch {
		case size == 0:
			if end == 0 {
				end = at + 1
			}
			a.remember(place{})
			return end
		case size <= 63:
			if length += 1 + size; length >= maxNameLen {
				return 0
			}
			at += 1 + size
		case size >= 0xc0 && at+2 <= to:
			target := (size&0x3f)<<8 | int(a.message[at+1])
			limit := a.target(target, at)
			if hops++; limit == 0 || hops > maxHops {
				return 0
			}
			if moves := a.optFrom != 0 && target >= a.optTo; moves && end != 0 {
				return 0 // within data that is no name, and so nobody would correct it
			} else if moves {
				a.pointers = append(a.pointers, uint16(at))
			}
			if end == 0 {
				end = at + 2
			}
			at, to = target, limit
		default:
			return 0
		}
	}
	return 0
}

// placeAt is what is known of a place.
func (a *answer) placeAt(at int) place {
	if at >= pointerRange {
		return place{}
	}
	return a.places[at]
}

// remember notes the places of the name in work; what was known before it is how it goes on.
func (a *answer) remember(rest place) {
	for i := len(a.walked) - 1; i >= 0; i-- {
		at := a.walked[i]
		if size := a.message[at]; size >= 0xc0 {
			rest.hops++
		} else {
			rest.length += 1 + size
		}
		if at < pointerRange {
			a.places[at] = rest
		}
	}
}

// target returns where the bytes end that a name at a place may use when it points to target, or 0 when it may not.
func (a *answer) target(target, from int) int {
	if target >= from {
		return 0
	}
	if a.places[target].length > 0 {
		return from
	}
	after, _ := slices.BinarySearch(a.ttls, uint16(target)) // seldom: in data that has no name there
	if after == 0 {
		return 0
	}
	data := int(a.ttls[after-1]) + 6
	end := data + int(binary.BigEndian.Uint16(a.message[data-2:]))
	if target < data || target >= end {
		return 0
	}
	return min(from, end)
}

// subnetMatches reports whether the subnet in the answer, if there is one, is the query's (RFC 7871, 7.3 has the answer dropped when not).
// When the query had none, the answer's is of no meaning.
func (a *answer) subnetMatches(asked []byte) bool {
	if a.subnet == nil || len(asked) == 0 {
		return true
	}
	return bytes.Equal(a.subnet[:3], asked[:3]) && bytes.Equal(a.subnet[4:], asked[3:])
}

// forAnySubnet reports whether an answer to a question with a client's subnet holds for all others. It has to say so,
// by a scope of 0: one that does not speak of the subnet is easier to forge, by whoever asks for many. When the client
// has not told of its address there is no other scope to say (RFC 7871, 7.2.1), so that it means nothing.
func (a *answer) forAnySubnet(asked []byte) bool {
	return len(asked) > 0 && asked[2] > 0 && a.subnet != nil && a.subnet[3] == 0
}
