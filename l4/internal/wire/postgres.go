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

// PostgresHeadBytes is what each request begins with: its length, which includes itself, and its code.
const PostgresHeadBytes = 8

const (
	// maxPostgresStartup is what servers take (MAX_STARTUP_PACKET_LENGTH in src/include/libpq/pqcomm.h).
	maxPostgresStartup = 10_000

	// A process ID has four bytes, and the key with it 4 to 256 (more than 4 since PostgreSQL 18).
	minPostgresKey = 4 + 4
	maxPostgresKey = 4 + 256

	minPostgresCancel = PostgresHeadBytes + minPostgresKey
	maxPostgresCancel = PostgresHeadBytes + maxPostgresKey

	postgresCancelCode = 1234<<16 | 5678
)

// PostgresHead returns the kind of the first message in what a client of Postgres has sent, and its length in bytes, as
// soon as the message's first eight bytes are there. What cannot become a request is found with its first bytes. The
// length is 0 with PostgresNone and PostgresInvalid.
func PostgresHead(stream []byte) (kind PostgresRequest, length int) {
	var head [PostgresHeadBytes]byte
	have := copy(head[:], stream)
	length = int(binary.BigEndian.Uint32(head[:]))
	if length > maxPostgresStartup || have >= 4 && length < PostgresHeadBytes {
		return PostgresInvalid, 0
	}
	if have < PostgresHeadBytes {
		return PostgresNone, 0
	}
	switch code := binary.BigEndian.Uint32(head[4:]); {
	case code == postgresCancelCode && length >= minPostgresCancel && length <= maxPostgresCancel:
		return PostgresCancel, length
	case code == 1234<<16|5679 && length == PostgresHeadBytes:
		return PostgresSSL, length
	case code == 1234<<16|5680 && length == PostgresHeadBytes:
		return PostgresGSS, length
	case code>>16 == 3:
		return PostgresStartup, length
	}
	return PostgresInvalid, 0
}

// ReadPostgresRequest reads the first message in what a client of Postgres has sent, and returns its kind and its size
// in bytes. The size is 0 if the message is not whole, or none. What cannot become a request is found with its first
// bytes.
func ReadPostgresRequest(stream []byte) (kind PostgresRequest, size int) {
	kind, size = PostgresHead(stream)
	if len(stream) < size {
		return PostgresNone, 0
	}
	return kind, size
}

// PostgresCancelKey returns the process ID and the key of a whole CancelRequest, as they stand in it.
func PostgresCancelKey(message []byte) []byte { return message[PostgresHeadBytes:] }

// AppendPostgresCancel appends the CancelRequest with a process ID and key as PostgresCancelKey and
// PostgresKeyScanner.Scan return them.
func AppendPostgresCancel(to []byte, key string) []byte {
	to = binary.BigEndian.AppendUint32(to, uint32(PostgresHeadBytes+len(key)))
	to = binary.BigEndian.AppendUint32(to, postgresCancelCode)
	return append(to, key...)
}

// AppendPostgresFatal appends an ErrorResponse with severity FATAL. sqlState has five characters; neither text contains
// a NUL byte.
func AppendPostgresFatal(to []byte, sqlState, message string) []byte {
	return AppendPostgresFatalHint(to, sqlState, message, "")
}

// AppendPostgresFatalHint is AppendPostgresFatal with a hint, and without one if it is "".
func AppendPostgresFatalHint(to []byte, sqlState, message, hint string) []byte {
	at := len(to)
	to = append(to, 'E', 0, 0, 0, 0)
	for _, field := range [...]struct {
		kind byte
		text string
	}{{'S', "FATAL"}, {'V', "FATAL"}, {'C', sqlState}, {'M', message}, {'H', hint}} {
		if field.text == "" {
			continue
		}
		to = append(append(append(to, field.kind), field.text...), 0)
	}
	to = append(to, 0)
	binary.BigEndian.PutUint32(to[at+1:], uint32(len(to)-at-1))
	return to
}

// AppendPostgresTerminate appends a Terminate, with which a client ends its session.
func AppendPostgresTerminate(to []byte) []byte { return append(to, 'X', 0, 0, 0, 4) }

// AppendPostgresSSLRequest appends an SSLRequest, which asks a server for TLS. The server answers with one byte: S, and
// then a handshake follows, or N.
func AppendPostgresSSLRequest(to []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(to, PostgresHeadBytes), 1234<<16|5679)
}
