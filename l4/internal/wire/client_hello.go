package wire

import (
	"encoding/binary"
	"errors"
)

// MaxClientHello bounds a ClientHello with its record headers, in bytes. Browsers send 2 KiB with post-quantum key
// shares; the limit is for clients with many session tickets or protocols.
const MaxClientHello = 64 << 10

// Errors of ClientHello.
var (
	ErrNotTLS         = errors.New("not a TLS handshake")
	ErrHelloTooLong   = errors.New("ClientHello longer than 64 KiB")
	ErrMalformedHello = errors.New("malformed ClientHello")
	ErrServerName     = errors.New("server name is not a host name")
)

// The parts of TLS that a ClientHello needs (RFC 8446, 4 and 5.1).
const (
	recordHeaderBytes  = 5       // type, version, length
	maxRecordBytes     = 1 << 14 // of a record without its header
	recordHandshake    = 22
	tlsMajor           = 3 // of every version from SSL 3.0 on
	messageHeaderBytes = 4 // type, length
	messageClientHello = 1
	randomBytes        = 32
	maxSessionIDBytes  = 32

	// minHelloBytes is the shortest message: its header, version, random, no session id, one cipher suite and one
	// compression method.
	minHelloBytes = messageHeaderBytes + 2 + randomBytes + 1 + 2 + 2 + 1 + 1
)

// A Hello is what a ClientHello says about the server that the client wants. It points into the bytes that it was read
// from, and is valid as long as they are. The zero value is a hello without a server name and protocols.
type Hello struct {
	name      [maxHostName]byte
	nameBytes uint8
	protocols helloReader // the ProtocolNameList, already checked
}

// ServerName returns the host name that the client wants to reach (RFC 6066, 3), in lower case; empty if there is
// none. With Encrypted Client Hello it is the public name of the outer hello. The bytes belong to h.
func (h *Hello) ServerName() []byte { return h.name[:h.nameBytes] }

// Offers reports whether the client offers a protocol by ALPN (RFC 7301, 3.1). It does not allocate.
func (h *Hello) Offers(protocol string) bool {
	for list := h.protocols; list.left > 0; {
		name := list.vector8()
		if name.left != len(protocol) {
			continue
		}
		equal := true
		for i := range len(protocol) {
			equal = name.uint8() == protocol[i] && equal
		}
		if equal {
			return true
		}
	}
	return false
}

// BeginsTLS reports whether a stream may begin with a TLS handshake.
func BeginsTLS(b []byte) bool { return checkRecord(b[:min(len(b), recordHeaderBytes)]) == nil }

// ClientHello reads the ClientHello that a TLS client sends first, from the bytes received so far. The hello may be
// split over several records (RFC 8446, 5.1).
//
// If the bytes are correct but incomplete, need is greater than len(b) and err is nil: no complete hello has fewer
// than need bytes. need is at most MaxClientHello. A caller that does not call again before it has need bytes reads
// even a hello of one-byte records in few calls. If the hello is complete, need is 0; bytes behind its last record,
// such as early data, are ignored.
//
// The errors are ErrNotTLS, already at the first byte that no ClientHello has there, ErrHelloTooLong, already when the
// announced length exceeds MaxClientHello, ErrMalformedHello, and ErrServerName for a server name that is no host
// name, such as an IP address. Unknown extensions are ignored, but the same extension twice is malformed (RFC 8446,
// 4.2). Any goroutine may call ClientHello. It does not allocate and does not keep b.
func ClientHello(b []byte) (hello Hello, need int, err error) {
	size, need, err := completeHello(b)
	if need > 0 || err != nil {
		return Hello{}, need, err
	}
	r := helloReader{b: b, left: size}
	if err := r.hello(&hello); err != nil {
		return Hello{}, 0, err
	}
	return hello, 0, nil
}

// completeHello checks the records of a ClientHello and the header of its message. It returns the size of the message
// if that is complete, else how many bytes are needed at least.
func completeHello(b []byte) (size, need int, err error) {
	at, have := 0, 0       // where the record begins, and bytes of the message in earlier records
	total := minHelloBytes // of the message; exact once its header is complete
	for {
		rest := b[at:]
		if err := checkRecord(rest); err != nil {
			return 0, 0, err
		}
		if len(rest) < recordHeaderBytes {
			return atLeast(at, total-have)
		}
		end := at + recordHeaderBytes + int(binary.BigEndian.Uint16(rest[3:]))
		fragment := b[at+recordHeaderBytes : min(len(b), end)]
		exact := have+len(fragment) >= messageHeaderBytes
		if total, err = messageBytes(fragment, have, total); err != nil {
			return 0, 0, err
		}
		have += end - at - recordHeaderBytes
		switch {
		case exact && have > total: // RFC 8446, 5.1: the hello ends with a record
			return 0, 0, ErrMalformedHello
		case end > len(b) || end > MaxClientHello:
			return atLeast(end, max(0, total-have))
		case exact && have == total:
			return total, 0, nil
		}
		at = end
	}
}

// checkRecord checks a record's header as far as it is there. Its minor version has no meaning (RFC 8446, 5.1).
func checkRecord(b []byte) error {
	switch {
	case len(b) > 0 && b[0] != recordHandshake, len(b) > 1 && b[1] != tlsMajor:
		return ErrNotTLS
	case len(b) > 3 && b[3] > maxRecordBytes>>8:
		return ErrMalformedHello
	case len(b) > 4:
		if size := binary.BigEndian.Uint16(b[3:]); size == 0 || size > maxRecordBytes {
			return ErrMalformedHello
		}
	}
	return nil
}

// messageBytes reads the bytes of the message's header that are in a record's fragment, after have bytes of the message
// in earlier records. total is the size of the message as known before, and the result as known now.
func messageBytes(fragment []byte, have, total int) (int, error) {
	for i := 0; i < len(fragment) && have+i < messageHeaderBytes; i++ {
		c := int(fragment[i])
		switch have + i {
		case 0:
			if c != messageClientHello {
				return 0, ErrNotTLS
			}
		case 1:
			if c != 0 {
				return 0, ErrHelloTooLong
			}
		case 2:
			total = messageHeaderBytes + c<<8
		case 3:
			if total += c; total < minHelloBytes {
				return 0, ErrMalformedHello
			}
		}
	}
	return total, nil
}

// atLeast returns how many bytes are needed if so many bytes of the message follow at an offset, in records of the
// largest size.
func atLeast(at, missing int) (size, need int, err error) {
	need = at + missing + (missing+maxRecordBytes-1)/maxRecordBytes*recordHeaderBytes
	if need > MaxClientHello {
		return 0, 0, ErrHelloTooLong
	}
	return 0, need, nil
}
