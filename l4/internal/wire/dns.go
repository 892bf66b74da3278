package wire

import "encoding/binary"

// Parts of the DNS wire format (RFC 1035, 4.1) that distinguish a question from an answer. Package dnscache reads the
// rest.
const (
	DNSHeaderBytes = 12
	MaxDNSMessage  = 1<<16 - 1
	dnsAnswerBit   = 0x80 // of the third byte
)

// IsDNSQuestion reports whether a message may be a question of any kind, and is not an answer (RFC 1035, 4.1.1).
func IsDNSQuestion(m []byte) bool { return len(m) >= DNSHeaderBytes && m[2]&dnsAnswerBit == 0 }

// IsDNSAnswer reports whether a message may be an answer of any kind, and is not a question.
func IsDNSAnswer(m []byte) bool { return len(m) >= DNSHeaderBytes && m[2]&dnsAnswerBit != 0 }

// DNSLengthBytes is the size of the length before each message of a stream (RFC 1035, 4.2.2).
const DNSLengthBytes = 2

// AppendDNSLength appends the length that precedes a message in a stream. The message has at most MaxDNSMessage bytes.
func AppendDNSLength(to []byte, message []byte) []byte {
	return binary.BigEndian.AppendUint16(to, uint16(len(message)))
}

// DNSMessage returns the first message of a stream, without its length, and whether it is complete. The message is a
// part of stream.
func DNSMessage(stream []byte) (message []byte, whole bool) {
	if len(stream) < DNSLengthBytes {
		return nil, false
	}
	size := int(binary.BigEndian.Uint16(stream))
	rest := stream[DNSLengthBytes:]
	if len(rest) < size {
		return nil, false
	}
	return rest[:size], true
}
