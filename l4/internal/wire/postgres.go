package wire

import "encoding/binary"

// A PostgresRequest is what a client of Postgres begins with (PostgreSQL documentation, 55.7, "Message Formats"). These
// messages have no type, but a length and a code.
type PostgresRequest uint8

// The requests. A client may send PostgresSSL and PostgresGSS before any of the others.
const (
	PostgresNone    PostgresRequest = iota // the message is not whole
	PostgresInvalid                        // it is none
	PostgresSSL                            // SSLRequest: asks for TLS, and waits for one byte
	PostgresGSS                            // GSSENCRequest: the same for GSSAPI
	PostgresCancel                         // CancelRequest: no answer is expected
	PostgresStartup                        // StartupMessage of version 3
)

const (
	// maxPostgresStartup is what servers take (MAX_STARTUP_PACKET_LENGTH in src/include/libpq/pqcomm.h).
	maxPostgresStartup = 10_000

	postgresHeadBytes = 8 // the length, which includes itself, and the code

	// A CancelRequest has a process ID of four bytes and a key of 4 to 256.
	minPostgresCancel = postgresHeadBytes + 4 + 4
	maxPostgresCancel = postgresHeadBytes + 4 + 256
)

// ReadPostgresRequest reads the first message in what a client of Postgres has sent, and returns its kind and its size
// in bytes. The size is 0 if the message is not whole, or none. What cannot become a request is found with its first
// bytes.
func ReadPostgresRequest(stream []byte) (kind PostgresRequest, size int) {
	var head [postgresHeadBytes]byte
	have := copy(head[:], stream)
	length := int(binary.BigEndian.Uint32(head[:]))
	if length > maxPostgresStartup || have >= 4 && length < postgresHeadBytes {
		return PostgresInvalid, 0
	}
	if have < postgresHeadBytes {
		return PostgresNone, 0
	}
	switch code := binary.BigEndian.Uint32(head[4:]); {
	case code == 1234<<16|5678:
		kind = PostgresCancel
		if length < minPostgresCancel || length > maxPostgresCancel {
			return PostgresInvalid, 0
		}
	case code == 1234<<16|5679, code == 1234<<16|5680:
		kind = PostgresSSL
		if code == 1234<<16|5680 {
			kind = PostgresGSS
		}
		if length != postgresHeadBytes {
			return PostgresInvalid, 0
		}
	case code>>16 == 3:
		kind = PostgresStartup
	default:
		return PostgresInvalid, 0
	}
	if len(stream) < length {
		return PostgresNone, 0
	}
	return kind, length
}

// AppendPostgresFatal appends an ErrorResponse with severity FATAL. sqlState has five characters; neither text contains
// a NUL byte.
func AppendPostgresFatal(to []byte, sqlState, message string) []byte {
	at := len(to)
	to = append(to, 'E', 0, 0, 0, 0)
	for _, field := range [...]struct {
		kind byte
		text string
	}{{'S', "FATAL"}, {'V', "FATAL"}, {'C', sqlState}, {'M', message}} {
		to = append(append(append(to, field.kind), field.text...), 0)
	}
	to = append(to, 0)
	binary.BigEndian.PutUint32(to[at+1:], uint32(len(to)-at-1))
	return to
}

// AppendPostgresSSLRequest appends an SSLRequest, which asks a server for TLS. The server answers with one byte: S, and
// then a handshake follows, or N.
func AppendPostgresSSLRequest(to []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(to, postgresHeadBytes), 1234<<16|5679)
}
