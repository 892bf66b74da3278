package dnscache

import "encoding/binary"

// Truncate shortens, in place, an answer that is longer than limit, which is at least 512. It keeps the header with TC
// set, the question, and the OPT record if that fits, if necessary without its options. It is for queries that pass.
// Any goroutine may call it.
func Truncate(message []byte, limit int) []byte {
	if len(message) <= limit || len(message) < headerLen {
		return message
	}
	end := headerLen
	if binary.BigEndian.Uint16(message[4:]) == 1 {
		if at := skipName(message, headerLen); at > 0 && at+questionLen <= min(len(message), limit-optLen) {
			end = at + questionLen
		}
	}
	opt := findOPT(message, end)
	message[2] |= flagTC >> 8
	clear(message[4:headerLen])
	if end > headerLen {
		message[5] = 1
	}
	if opt == nil {
		return message[:end]
	}
	message[11] = 1
	if end+len(opt) > limit {
		opt = opt[:optLen]
		clear(opt[optLen-2:])
	}
	return message[:end+copy(message[end:], opt)]
}

// skipName returns the offset where the name at an offset ends, or 0 if the name is not complete. It does not follow
// pointers.
func skipName(message []byte, at int) int {
	for at < len(message) {
		switch size := int(message[at]); {
		case size == 0:
			return at + 1
		case size >= 0xc0:
			return at + 2
		case size > 63:
			return 0
		default:
			at += 1 + size
		}
	}
	return 0
}

// findOPT returns the OPT record among the records from an offset on. It returns nil if there is none, or if a record
// before it is malformed.
func findOPT(message []byte, at int) []byte {
	records := 0
	for section := range 3 {
		records += int(binary.BigEndian.Uint16(message[6+2*section:]))
	}
	for range records {
		from := at
		if at = skipName(message, at); at == 0 || at+recordLen > len(message) {
			return nil
		}
		to := at + recordLen + int(binary.BigEndian.Uint16(message[at+8:]))
		if to > len(message) {
			return nil
		}
		if at == from+1 && binary.BigEndian.Uint16(message[at:]) == typeOPT {
			return message[from:to]
		}
		at = to
	}
	return nil
}
