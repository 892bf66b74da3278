package dnscache

import (
	"bytes"
	"encoding/binary"
)

// Fixed sizes of the wire format (RFC 1035, 4.1; RFC 6891, 6.1.2).
const (
	headerLen   = 12
	questionLen = 4      // type and class, behind the name
	recordLen   = 10     // type, class, TTL and length, behind the name
	optLen      = 11     // an OPT record without options: the root's name and recordLen
	maxNameLen  = 255    // RFC 1035, 2.3.4: with the lengths of its labels
	maxHops     = 127    // a name has no more labels than that, and needs no more pointers
	plainUDP    = 512    // RFC 1035, 4.2.1: the largest answer without EDNS
	maxMessage  = 65_535 // the limit of a two-byte length
)

// Bits of the header's second pair of bytes (RFC 1035, 4.1.1; RFC 4035, 3.2).
const (
	flagQR      = 0x8000
	maskOpcode  = 0x7800
	flagTC      = 0x0200
	flagRD      = 0x0100
	flagRA      = 0x0080
	flagZ       = 0x0040
	flagAD      = 0x0020
	flagCD      = 0x0010
	maskRcode   = 0x000f
	flagDO      = 0x8000 // of the OPT record (RFC 3225)
	rcodeOK     = 0
	rcodeFailed = 2 // SERVFAIL
	rcodeNoName = 3 // NXDOMAIN

	rcodeRefused = 5
)

// Types, and the only class, that the cache treats specially (IANA's registry of DNS parameters).
const (
	typeSOA = 6
	typeOPT = 41
	classIN = 1
)

// EDNS options (IANA's registry of DNS EDNS0 option codes).
const (
	optionSubnet    = 8  // RFC 7871
	optionCookie    = 10 // RFC 7873
	optionKeepalive = 11 // RFC 7828
	optionPadding   = 12 // RFC 7830
	optionError     = 15 // RFC 8914
)

// Bits of a key, behind the name and the type. Each changes what a backend answers: RD and CD change the header, AD and
// DO whether the answer shows what the backend validated (RFC 6840, 5.7), and a subnet decides whom the answer is for.
const (
	keyRD        = 1 << iota
	keyAD        // the client understands AD
	keyCD        //
	keyDO        //
	keySubnet    // the client's subnet follows
	keyAnySubnet // for clients that sent a subnet, whichever
)

// maxKeyLen is the longest key: a name, a type, the bits, and a subnet's family, length and IPv6 address.
const maxKeyLen = maxNameLen + 2 + 1 + 2 + 1 + 16

// A caller is the part of a query that decides how its answer is written. It is a plain value.
type caller struct {
	id    uint16
	limit uint16 // the largest answer, in bytes
	edns  bool   // the query has an OPT record, so the answer has one too
	do    bool   // and the OPT record has the DO bit
}

// A question is a plain query after parsing. It points into the query and the key's buffer, and is valid as long as
// they are.
type question struct {
	caller
	name   []byte // as the client spells it, in wire format
	key    []byte // see parse
	base   int    // length of the key without the subnet
	subnet []byte // of the key: family, source prefix length, address; empty without one
	opt    int    // offset of the OPT record; 0 = no OPT record
	option []byte // the whole subnet option of the query
	tcp    bool   // it came by TCP
}

// readQuestion reads what all queries with a single answer have in common: the opcode QUERY, one question, and no
// record except one OPT record, whose content it does not read. It copies the question's name to name, in lower case,
// and returns its length and the question's type. The length is 0 for any other message. name has room for maxNameLen
// bytes.
func readQuestion(query, name []byte) (n int, typ uint16) {
	if len(query) < headerLen+1+questionLen || len(query) > maxMessage ||
		binary.BigEndian.Uint16(query[2:])&(flagQR|maskOpcode) != 0 ||
		binary.BigEndian.Uint32(query[4:]) != 1<<16 || binary.BigEndian.Uint16(query[8:]) != 0 {
		return 0, 0 // not QUERY, not one question, or records in the wrong sections
	}
	n = lowerName(name, query[headerLen:])
	end := headerLen + n + questionLen
	if n == 0 || len(query) < end {
		return 0, 0
	}
	if typ = binary.BigEndian.Uint16(query[end-questionLen:]); typ >= 128 && typ <= 255 {
		return 0, 0 // RFC 6895, 3.1: meta types, and types like AXFR and ANY that have several answers
	}
	switch rest := query[end:]; binary.BigEndian.Uint16(query[10:]) {
	case 0:
		if len(rest) != 0 {
			return 0, 0
		}
	case 1:
		if len(rest) < 3 || rest[0] != 0 || binary.BigEndian.Uint16(rest[1:]) != typeOPT {
			return 0, 0
		}
	default:
		return 0, 0
	}
	return n, typ
}

// parse reads a query and builds its key in buf: the lower-case name, the type, the bits, the subnet. The class is not
// part of the key, since it is always IN. It returns false for a query that is not plain and must pass.
//
// The parser is written by hand. dnsmessage copies each name into an array of 255 bytes and allocates each option: it
// took 136 ns and two allocations for a query with a subnet, against 40 ns and none here, building the key included
// (BenchmarkParse). A whole hit is 100 ns.
func (q *question) parse(query []byte, t Transport, buf *[maxKeyLen]byte) bool {
	n, typ := readQuestion(query, buf[:maxNameLen])
	if n == 0 {
		return false
	}
	flags := binary.BigEndian.Uint16(query[2:])
	end := headerLen + n + questionLen
	if flags&^(flagRD|flagAD|flagCD) != 0 || typ == 0 || typ == typeOPT ||
		binary.BigEndian.Uint16(query[end-2:]) != classIN {
		return false
	}
	q.caller = caller{id: binary.BigEndian.Uint16(query), limit: plainUDP}
	q.name = query[headerLen : headerLen+n]
	bits := byte(flags>>8&1) * keyRD
	if flags&flagAD != 0 {
		bits |= keyAD
	}
	if flags&flagCD != 0 {
		bits |= keyCD
	}
	q.subnet, q.option, q.opt = nil, nil, 0
	if end < len(query) {
		if !q.parseOPT(query, end) {
			return false
		}
		if q.do {
			bits |= keyDO
		}
	}
	if q.tcp = t == TCP; q.tcp {
		q.limit = maxMessage
	}
	q.base = n + 3
	key := append(buf[:n], byte(typ>>8), byte(typ), bits)
	if q.option != nil {
		key[n+2] |= keySubnet
		key = append(key, q.option[4:7]...) // without the scope, which is 0 in a query
		key = append(key, q.option[8:]...)
		q.subnet = key[q.base:]
	}
	q.key = key
	return true
}

// parseOPT reads the OPT record, which must be the rest of the query. It returns false for options that it does not
// know, since the backend may know them: then the query passes.
func (q *question) parseOPT(query []byte, at int) bool {
	opt := query[at:]
	if len(opt) < optLen {
		return false
	}
	// The upper bits of the code, the version, and every flag but DO must be zero.
	if flags := binary.BigEndian.Uint32(opt[5:]); flags&^flagDO != 0 {
		return false
	}
	if int(binary.BigEndian.Uint16(opt[9:])) != len(opt)-optLen {
		return false
	}
	q.opt, q.edns, q.do = at, true, opt[7]&(flagDO>>8) != 0
	q.limit = max(plainUDP, binary.BigEndian.Uint16(opt[3:])) // RFC 6891, 6.2.3: less counts as 512
	for rest := opt[optLen:]; len(rest) > 0; {
		if len(rest) < 4 {
			return false
		}
		size := 4 + int(binary.BigEndian.Uint16(rest[2:]))
		if size > len(rest) {
			return false
		}
		switch binary.BigEndian.Uint16(rest) {
		case optionCookie, optionKeepalive, optionPadding: // these are between the client and us
		case optionSubnet:
			if q.option != nil || !validSubnet(rest[4:size]) || rest[7] != 0 {
				return false
			}
			q.option = rest[:size]
		default:
			return false
		}
		rest = rest[size:]
	}
	return true
}

// validSubnet reports whether an option's data is a client's subnet as RFC 7871, 6 requires: a known family, no more
// address bytes than the prefix needs, and no bits set behind the prefix. So equal subnets have equal bytes.
func validSubnet(data []byte) bool {
	if len(data) < 4 {
		return false
	}
	source := int(data[2])
	switch binary.BigEndian.Uint16(data) {
	case 1:
		if source > 32 {
			return false
		}
	case 2:
		if source > 128 {
			return false
		}
	default:
		return false
	}
	address := data[4:]
	if len(address) != (source+7)/8 {
		return false
	}
	return source%8 == 0 || address[len(address)-1]<<(source%8) == 0
}

// appendForwarded appends the query for a backend; the id is still the client's. It omits the options that are between
// the client and us, and sets our own size limit for UDP, so that the answer suits all clients with the same question.
func (q *question) appendForwarded(dst, query []byte, udp uint16) []byte {
	if q.opt == 0 {
		return append(dst, query...)
	}
	at := len(dst) + q.opt
	dst = append(dst, query[:q.opt+optLen-2]...)
	binary.BigEndian.PutUint16(dst[at+3:], udp)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(q.option)))
	return append(dst, q.option...)
}

// SameQuestion reports whether a message is an answer to the query's question, in the same spelling. It is for queries
// that pass. If the query has no question or several, it only checks that the message is an answer. It does not compare
// the ids, since the query was sent under another one. Any goroutine may call it.
func SameQuestion(query, message []byte) bool {
	if len(query) < headerLen || len(message) < headerLen || message[2]&(flagQR>>8) == 0 {
		return false
	}
	if binary.BigEndian.Uint16(query[4:]) != 1 {
		return true
	}
	failure := message[3]&maskRcode != rcodeOK && message[3]&maskRcode != rcodeNoName
	if failure && binary.BigEndian.Uint64(message[4:]) == 0 {
		return true // see answer.read
	}
	var asked [maxNameLen]byte
	n := lowerName(asked[:], query[headerLen:])
	end := headerLen + n + questionLen
	return n > 0 && binary.BigEndian.Uint16(message[4:]) == 1 && len(query) >= end && len(message) >= end &&
		bytes.Equal(query[headerLen:end], message[headerLen:end])
}
