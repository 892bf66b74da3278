package wire

import "encoding/binary"

// Parts of DNS's wire format (RFC 1035, 4.1) that tell a question from an answer. Package dnscache reads the rest.
const (
	DNSHeaderBytes = 12
	MaxDNSMessage  = 1<<16 - 1
	dnsAnswerBit   = 0x80 // of the third byte
)

// IsDNSQuestion reports whether a message may be a question, of whatever kind, and not an answer (RFC 1035, 4.1.1).
func IsDNSQuestion(m []byte) bool { return len(m) >= DNSHeaderBytes && m[2]&dnsAnswerBit == 0 }

// IsDNSAnswer reports whether a message may be an answer, of whatever kind, and not a question.
func IsDNSAnswer(m []byte) bool { return len(m) >= DNSHeaderBytes && m[2]&dnsAnswerBit != 0 }

// DNSLengthBytes stand before each message of a stream, and say how long it is (RFC 1035, 4.2.2).
const DNSLengthBytes = 2

// AppendDNSLength appends the length that stands before a message of a stream. The message has at most MaxDNSMessage
// bytes.
func AppendDNSLength(to []byte, message []byte) []byte {
	return binary.BigEndian.AppendUint16(to, uint16(len(message)))
}

// DNSMessage returns the first message of a stream, without its length, and whether it is whole. The message is a part
// of stream.
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
