package wire

import "encoding/binary"

// A PostgresKeyScanner finds the process ID and the key by which a session can be cancelled (BackendKeyData) in what a
// server of Postgres sends first. It gets the stream in pieces of any size. It keeps no bytes but those of the key. The
// zero value is ready.
type PostgresKeyScanner struct {
	head    [5]byte // the type and the length of the message under way
	have    uint8   // bytes of head
	refused uint8   // requests for encryption that the server has declined with a single byte
	greeted bool    // there was an Authentication message
	over    bool    // the scanner has given up, or has returned the key
	skip    int     // bytes of the message's body that are of no interest
	seen    int     // bytes of the stream
	key     []byte  // of BackendKeyData, with room for exactly the bytes that it announces; nil before
}

const (
	// maxPostgresGreeting is how many bytes of a server are looked at. A login takes a few hundred, and the rest is room
	// for notices.
	maxPostgresGreeting = 64 << 10

	// maxPostgresRefused is how often a client can ask for encryption: by GSSAPI and by TLS.
	maxPostgresRefused = 2
)

// Scan looks at the next bytes of the stream. It returns the process ID and the key once they are whole. more reports
// whether the scanner wants further bytes: not after the key, and not once there can be none, because the server is
// ready for queries, has refused the client, speaks TLS, or something else than Postgres.
func (s *PostgresKeyScanner) Scan(p []byte) (key string, more bool) {
	for len(p) > 0 && !s.over {
		var n int
		switch {
		case s.skip > 0:
			n = min(s.skip, len(p))
			s.skip -= n
		case s.key != nil:
			n = min(cap(s.key)-len(s.key), len(p))
			s.key = append(s.key, p[:n]...)
			if len(s.key) == cap(s.key) {
				s.over = true
				return string(s.key), false
			}
		default:
			n = s.readHead(p)
		}
		s.seen += n
		s.over = s.over || s.seen > maxPostgresGreeting
		p = p[n:]
	}
	return "", !s.over
}

// readHead takes the bytes of a message's head, and returns how many those are.
func (s *PostgresKeyScanner) readHead(p []byte) int {
	if s.have == 1 && s.head[0] == 'N' && p[0] != 0 && !s.greeted {
		// No message is so long: the N is the whole answer to a request for encryption.
		s.have = 0
		if s.refused++; s.refused > maxPostgresRefused {
			s.over = true
			return 0
		}
	}
	if s.have == 0 {
		s.head[0], s.have = p[0], 1
		s.over = !s.expects(p[0])
		return 1
	}
	n := copy(s.head[s.have:], p)
	if s.have += uint8(n); int(s.have) == len(s.head) {
		s.have = 0
		s.begin()
	}
	return n
}

// expects reports whether a message of this type may come before the key.
func (s *PostgresKeyScanner) expects(kind byte) bool {
	switch kind {
	case 'R', 'N', 'v': // Authentication, NoticeResponse, NegotiateProtocolVersion
		return true
	case 'S', 'K': // ParameterStatus, BackendKeyData; S in the beginning says that TLS follows
		return s.greeted
	}
	return false
}

// begin begins with the body of a message whose head is whole.
func (s *PostgresKeyScanner) begin() {
	length := int(binary.BigEndian.Uint32(s.head[1:])) - 4 // it includes itself
	switch {
	case length < 0 || length > maxPostgresGreeting:
		s.over = true
	case s.head[0] != 'K':
		s.greeted = s.greeted || s.head[0] == 'R'
		s.skip = length
	case length < minPostgresKey || length > maxPostgresKey:
		s.over = true
	default:
		s.key = make([]byte, 0, length)
	}
}
