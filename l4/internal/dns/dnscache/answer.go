package dnscache

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// pointerRange is how far into a message a compressed name can point (RFC 1035, 4.1.4: 14 bits).
const pointerRange = 1 << 14

// maxRecords bounds the records of an answer: as many addresses as fit into the largest message.
const maxRecords = 4096

// An answer is the result of reading a backend's answer. It belongs to one Resolver with its buffers, and is valid
// until the next message is read.
//
// The cache writes the message again with another spelling of the question, other TTLs and no OPT record, so compressed
// names must not point into the parts that change. A compressed name may point to a label of the question or of another
// name before it, or into an earlier record's data, and nowhere else. No server compresses otherwise. Each pointer goes
// back, so names cannot loop.
//
// Reading is linear in the message, whatever its names point to: each place is walked only once, see name.
type answer struct {
	found
	ttls     []uint16 // offsets of the TTLs of all records but OPT
	pointers []uint16 // offsets of pointers to names behind the OPT record
	errors   []byte   // the extended errors' options
	places   [pointerRange]place
	walked   []uint16 // labels and pointers of the current name
	steps    int      // labels and pointers read; tests check that it is linear
}

// A place describes the name that begins with a label or a pointer at some offset of a message. The zero value means
// that no name is known to begin there.
type place struct {
	length uint8 // of the whole name, root included
	hops   uint8 // pointers in it
}

// found is the part of an answer that is reset for each message.
type found struct {
	message []byte
	flags   uint16
	rcode   uint16 // the header's part
	end     int    // of the last record; later bytes are not part of the message. 0 = there is no question
	counts  [3]uint16

	optFrom  int    // where the OPT record begins; 0 = no OPT record
	optTo    int    // where it ends
	extended uint8  // upper bits of the code, from the OPT record
	subnet   []byte // the subnet option's data; nil = none

	truncated bool
	matching  bool   // the answer section has a record of the requested type
	soa       bool   // the authority section has an SOA record
	minimum   uint32 // from the SOA record
	lowest    uint32 // of all TTLs
}

// read reads a message that should answer, under this id, the question with this name, spelled as it was sent, and the
// type that follows the name in the key. It returns false if the message is not an answer, answers another question or
// is malformed. A name in another spelling is another question: whoever forges an answer does not know the spelling
// (draft-vixie-dnsext-dns0x20).
func (a *answer) read(message []byte, id uint16, name, key []byte) bool {
	if len(message) < headerLen || len(message) > maxMessage || binary.BigEndian.Uint16(message) != id {
		return false
	}
	clear(a.places[:min(len(a.places), len(message))])
	a.steps = 0
	a.ttls, a.pointers, a.errors = a.ttls[:0], a.pointers[:0], a.errors[:0]
	flags := binary.BigEndian.Uint16(message[2:])
	a.found = found{message: message, flags: flags, rcode: flags & maskRcode, truncated: flags&flagTC != 0,
		lowest: math.MaxUint32}
	if a.flags&flagQR == 0 || a.flags&maskOpcode != 0 {
		return false
	}
	switch binary.BigEndian.Uint16(message[4:]) {
	case 1:
	case 0:
		// Some servers send only the header when they fail. It can be matched by its id alone, so it may only be a
		// failure.
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
		return true // it may end anywhere; the client only learns that it is truncated
	}
	for at := headerLen; at < headerLen+n; at += 1 + int(message[at]) {
		// Even for the root: simple servers always point to the question.
		a.places[at].length = uint8(headerLen + n - at)
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

// note records how a record affects the lifetime of the answer.
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

// seconds returns a TTL. A TTL whose top bit is set counts as zero (RFC 2181, 8).
func seconds(b []byte) uint32 {
	ttl := binary.BigEndian.Uint32(b)
	if ttl > math.MaxInt32 {
		return 0
	}
	return ttl
}

// readOPT reads the extended errors and the subnet. Cookies and all other options are dropped.
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

// readData reads the names in a record's data, which may be compressed.
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

// name reads the name at an offset, whose own bytes end before to. It returns the offset where they end, or 0 if the
// name is malformed or points to a forbidden place. Later names may point to each of its labels, and need not read them
// again, so all names of a message together take no more steps than it has bytes. Without that, one message of 64 KB
// took 310 ms (BenchmarkHostileAnswer).
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
				return 0 // the pointer is in data other than a name, where nobody would correct it
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

// placeAt returns the place at an offset.
func (a *answer) placeAt(at int) place {
	if at >= pointerRange {
		return place{}
	}
	return a.places[at]
}

// remember stores the places of the current name. rest describes the known part behind them.
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

// target returns where the bytes end that a name at from may use when it points to target, or 0 if it must not point
// there.
func (a *answer) target(target, from int) int {
	if target >= from {
		return 0
	}
	if a.places[target].length > 0 {
		return from
	}
	after, _ := slices.BinarySearch(a.ttls, uint16(target)) // rare: a pointer into data that is not a name
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

// subnetMatches reports whether the subnet in the answer, if there is one, is the query's; RFC 7871, 7.3 requires
// dropping the answer if not. If the query had no subnet, the answer's is ignored.
func (a *answer) subnetMatches(asked []byte) bool {
	if a.subnet == nil || len(asked) == 0 {
		return true
	}
	return bytes.Equal(a.subnet[:3], asked[:3]) && bytes.Equal(a.subnet[4:], asked[3:])
}

// forAnySubnet reports whether an answer to a question with a client's subnet is valid for all other subnets. The
// answer has to say so by a scope of 0: an answer without a subnet is easier to forge, by an attacker who sends many
// questions. If the client hid its address (source prefix length 0), 0 is the only possible scope (RFC 7871, 7.2.1), so
// it means nothing.
func (a *answer) forAnySubnet(asked []byte) bool {
	return len(asked) > 0 && asked[2] > 0 && a.subnet != nil && a.subnet[3] == 0
}
