package wire

import (
	"bytes"
	"encoding/binary"
)

// A DNSError is what an answer says that has no records: a response code (RFC 1035, 4.1.1), and why (RFC 8914) for a
// client whose question has EDNS.
type DNSError struct {
	Code     uint16 // DNSFailed or DNSRefused
	Extended uint16 // RFC 8914, 4
	Text     string // up to 255 bytes of UTF-8
}

// The response codes, and the extended codes.
const (
	DNSFailed  = 2 // SERVFAIL
	DNSRefused = 5 // REFUSED

	DNSOther       = 0
	DNSNotReady    = 14
	DNSUnreachable = 22 // no reachable authority
)

const (
	dnsQuestionTail = 4  // type and class
	dnsOPT          = 41 // RFC 6891, 6.1.2
	dnsExtended     = 15 // the option of RFC 8914
	dnsUDPSize      = 1232
	dnsOpcode       = 0x7800
	dnsRD, dnsCD    = 0x0100, 0x0010
	dnsRA           = 0x0080
)

// AppendDNSError appends an answer to a question that says only that there is none, and why. The question is any for
// which IsDNSQuestion is true; if its parts cannot be read, the answer does not repeat them.
func AppendDNSError(to, question []byte, why *DNSError) []byte {
	at := len(to)
	end, edns := readDNSQuestion(question)
	to = append(to, question[:max(end, DNSHeaderBytes)]...)
	m := to[at:]
	flags := uint16(dnsAnswerBit)<<8 | binary.BigEndian.Uint16(m[2:])&(dnsOpcode|dnsRD|dnsCD) | why.Code
	if flags&dnsRD != 0 {
		flags |= dnsRA // a client that asks for recursion expects it, even in a failure
	}
	binary.BigEndian.PutUint16(m[2:], flags)
	clear(m[4:DNSHeaderBytes])
	if end > 0 {
		m[5] = 1
	}
	if edns {
		m[11] = 1
		to = appendDNSExtended(to, why)
	}
	return to
}

// AddDNSError adds an extended error to an answer without records that AppendDNSError has not made. It returns the
// answer as it is if the question has no EDNS, or the answer has a record.
func AddDNSError(answer, question []byte, why *DNSError) []byte {
	if len(answer) < DNSHeaderBytes || !bytes.Equal(answer[6:DNSHeaderBytes], make([]byte, 6)) {
		return answer
	}
	if _, edns := readDNSQuestion(question); !edns {
		return answer
	}
	answer[11] = 1
	return appendDNSExtended(answer, why)
}

// appendDNSExtended appends an OPT record with an extended error.
func appendDNSExtended(to []byte, why *DNSError) []byte {
	to = append(to, 0) // the root
	to = binary.BigEndian.AppendUint16(to, dnsOPT)
	to = binary.BigEndian.AppendUint16(to, dnsUDPSize)
	to = append(to, 0, 0, 0, 0, 0, 0) // no extended code, version 0, no flag, and the length
	at := len(to)
	to = why.AppendOption(to)
	binary.BigEndian.PutUint16(to[at-2:], uint16(len(to)-at))
	return to
}

// AppendOption appends the extended error as an option of an OPT record.
func (e *DNSError) AppendOption(to []byte) []byte {
	text := e.Text[:min(len(e.Text), 255)]
	to = binary.BigEndian.AppendUint16(to, dnsExtended)
	to = binary.BigEndian.AppendUint16(to, uint16(2+len(text)))
	to = binary.BigEndian.AppendUint16(to, e.Extended)
	return append(to, text...)
}

// readDNSQuestion returns where the one question of a message ends, 0 if it has none or cannot be read, and whether the
// client knows EDNS: the first record after the question is an OPT record, as nearly all clients write it.
func readDNSQuestion(m []byte) (end int, edns bool) {
	if len(m) < DNSHeaderBytes || binary.BigEndian.Uint16(m[4:]) != 1 {
		return 0, false
	}
	at := DNSHeaderBytes
	for {
		if at >= len(m) || m[at] > 63 || at-DNSHeaderBytes > 254 { // nothing before it could be pointed at
			return 0, false
		}
		if m[at] == 0 {
			break
		}
		at += 1 + int(m[at])
	}
	end = at + 1 + dnsQuestionTail
	if end > len(m) {
		return 0, false
	}
	rest := m[end:]
	none := binary.BigEndian.Uint32(m[6:]) == 0 && binary.BigEndian.Uint16(m[10:]) > 0
	const fixed = 1 + 2 + 2 + 4 + 2 // root, type, size, flags, length
	return end, none && len(rest) >= fixed && rest[0] == 0 && binary.BigEndian.Uint16(rest[1:]) == dnsOPT
}
