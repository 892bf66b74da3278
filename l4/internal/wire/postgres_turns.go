package wire

import "encoding/binary"

// A PostgresTurns follows the messages of one Postgres session, to know when the session is at rest: when ending it
// loses nothing but what any reconnect loses (PostgreSQL 15 documentation, 55.2, "Message Flow").
//
// It gets all bytes of the session from its start, of each direction in order and in pieces of any size. Bytes of the
// client must come before those that the server sends because of them. It also serves a session whose SSLRequest
// somebody else has answered, so that its first message is the StartupMessage. It keeps no bytes but the beginning of
// the message under way, and does not allocate. The zero value is ready; it is not safe for concurrent use.
type PostgresTurns struct {
	client, backend postgresFrame

	owed    uint32 // ReadyForQuery messages that the server still has to send
	stage   postgresStage
	copying postgresCopy
	asked   byte // type of the latest message that asks for ReadyForQuery; 0 is the StartupMessage
	open    bool // a Sync, or a Query, has to follow what the client has sent
	ignored bool // the server probably takes a Sync for a part of the COPY under way
	ended   bool // the client has sent all data of a COPY before it knows that the server wants it
	idle    bool // the latest message that belongs to a request is ReadyForQuery outside of a transaction
}

// A postgresStage says which messages are next.
type postgresStage uint8

const (
	postgresFirst  postgresStage = iota // the client's next message has no type: its length is next
	postgresCode                        // its code is next
	postgresAnswer                      // the server says with one byte whether it encrypts
	postgresTyped                       // messages have types
	postgresLost                        // encrypted, not understood, or over
)

// A postgresCopy says whether the client sends the data of a COPY.
type postgresCopy uint8

const (
	postgresNoCopy     postgresCopy = iota
	postgresCopyIn                  // a Sync is ignored
	postgresCopyFailed              // the server has found an error; until ReadyForQuery the client may still send data
	postgresCopyBoth                // replication
)

// maxPostgresBody bounds a message without its length, in bytes: servers neither take nor build longer ones
// (PQ_LARGE_MESSAGE_LIMIT in src/include/libpq/libpq.h).
const maxPostgresBody = 1<<30 - 1

// Visible reports whether the messages can still be followed. Once it is false it stays so, AtRest is false for ever,
// and further bytes need not be given: the session is encrypted, is a CancelRequest, is over, has sent what is no
// Postgres, or has done what makes the number of answers uncertain, such as a COPY in a pipeline that fails.
func (t *PostgresTurns) Visible() bool { return t.stage != postgresLost }

// AtRest reports whether the session can be ended without a loss: the server waits for the next request outside of a
// transaction, all requests are answered, and both directions are between two messages. What belongs to the session
// itself is not looked at, since a restart of the server ends that too: settings, prepared statements, temporary
// tables, advisory locks, cursors that are held, and LISTEN. A session that only listens is at rest; it misses what
// is notified until it has connected and listens again.
func (t *PostgresTurns) AtRest() bool {
	return t.stage == postgresTyped && t.idle && t.owed == 0 && !t.open && t.copying == postgresNoCopy &&
		t.client.between() && t.backend.between()
}

// FromClient takes the next bytes that the client has sent.
func (t *PostgresTurns) FromClient(p []byte) {
	for len(p) > 0 {
		switch f := &t.client; t.stage {
		case postgresFirst, postgresCode:
			p = t.readRequest(p)
		case postgresTyped:
			var begins bool
			if p, begins = f.read(p); begins {
				t.fromClient(f.head[0], f.left)
			}
		default: // a client waits for the answer to its SSLRequest
			t.lose()
			return
		}
	}
}

// FromBackend takes the next bytes that the server has sent.
func (t *PostgresTurns) FromBackend(p []byte) {
	for len(p) > 0 {
		switch f := &t.backend; t.stage {
		case postgresTyped:
			if f.left > 0 && f.head[0] == 'Z' {
				t.ready(p[0])
			}
			var begins bool
			if p, begins = f.read(p); begins {
				t.fromBackend(f.head[0], f.left)
			}
		case postgresAnswer:
			if p[0] != 'N' {
				t.lose() // it encrypts, or reports an error in a form of its own
				return
			}
			t.stage, p = postgresFirst, p[1:]
		default:
			t.lose()
			return
		}
	}
}

// lose gives up. The reason does not matter to anybody: the session's deadline then decides about its end.
func (t *PostgresTurns) lose() { t.stage = postgresLost }

// readRequest reads from the head of a message without a type, and returns the bytes behind.
func (t *PostgresTurns) readRequest(p []byte) (rest []byte) {
	const field = 4 // bytes of the length, and of the code
	f := &t.client
	n := copy(f.head[f.have:field], p)
	if f.have += uint8(n); f.have < field {
		return p[n:]
	}
	f.have = 0
	value := binary.BigEndian.Uint32(f.head[:])
	if t.stage == postgresFirst {
		t.stage, f.left = postgresCode, value
		return p[n:]
	}
	head := binary.BigEndian.AppendUint32(make([]byte, 0, PostgresHeadBytes), f.left)
	switch kind, length := PostgresHead(binary.BigEndian.AppendUint32(head, value)); kind {
	case PostgresSSL, PostgresGSS:
		t.stage, f.left = postgresAnswer, 0
	case PostgresStartup:
		t.stage, f.left = postgresTyped, uint32(length-PostgresHeadBytes)
		t.ask(0)
	default:
		t.lose()
	}
	return p[n:]
}

// fromClient handles the beginning of a client's message, whose body has length bytes.
func (t *PostgresTurns) fromClient(kind byte, length uint32) {
	empty := kind == 'S' || kind == 'H' || kind == 'c'
	if length > maxPostgresBody || empty && length != 0 {
		t.lose()
		return
	}
	switch kind {
	case 'd', 'H', 'p': // CopyData, Flush, and the messages of a login
	case 'c', 'f': // CopyDone, CopyFail
		t.endCopy()
	case 'S':
		if t.copying == postgresCopyIn {
			t.ignored = true
			return
		}
		t.ask(kind)
	case 'Q', 'F': // Query, FunctionCall
		t.needNoCopy()
		t.ask(kind)
	case 'P', 'B', 'D', 'E', 'C': // Parse, Bind, Describe, Execute, Close
		t.needNoCopy()
		t.open = true
	default: // Terminate is among them
		t.lose()
	}
}

// ask notes that the server will send ReadyForQuery in answer to a message of this type.
func (t *PostgresTurns) ask(kind byte) {
	t.asked, t.open = kind, false
	if t.owed++; t.owed == 0 || t.copying == postgresCopyBoth {
		t.lose()
	}
}

// needNoCopy gives up if the server takes data now, or if it is not known which request a CopyInResponse would belong
// to. A server that takes data ends the session for another request. If it has found an error at the same time, it
// depends on the protocol whether it answers.
func (t *PostgresTurns) needNoCopy() {
	if t.copying == postgresCopyIn || t.copying == postgresCopyBoth || t.ended {
		t.lose()
	}
}

// endCopy notes that the client has sent all data of a COPY.
func (t *PostgresTurns) endCopy() {
	switch {
	case t.copying == postgresCopyIn:
		t.copying = postgresNoCopy
	case t.copying != postgresNoCopy:
	case t.owed == 0 && !t.open:
		// The server has ended the COPY with an error that the client has not yet seen. It ignores the message.
	case t.ended || t.owed > 0 && (t.owed > 1 || t.asked != 'Q' || t.open):
		t.lose() // there may be a Sync between the request and the data
	default:
		// Some clients, such as pgx, do not wait for CopyInResponse. If the request fails, the server ignores the data.
		t.ended = true
	}
}

// fromBackend handles the beginning of a server's message, whose body has length bytes.
func (t *PostgresTurns) fromBackend(kind byte, length uint32) {
	if length > maxPostgresBody {
		t.lose()
		return
	}
	switch kind {
	case 'A', 'N', 'S': // NotificationResponse, NoticeResponse and ParameterStatus come at any time
		return
	case 'D', 'C', 'T', '1', '2', '3', 'n', 's', 't', 'I', 'V', // results
		'd', 'c', 'H', // COPY to the client
		'R', 'K', 'v': // login
	case 'Z':
		if length != 1 {
			t.lose()
		}
	case 'E':
		t.failed()
	case 'G': // CopyInResponse
		t.beginCopy()
	case 'W': // CopyBothResponse
		if t.copying != postgresNoCopy || t.owed != 1 || t.asked != 'Q' || t.ended {
			t.lose()
			return
		}
		t.copying = postgresCopyBoth
	default:
		t.lose()
	}
	t.idle = false
}

// ready handles the status in a ReadyForQuery.
func (t *PostgresTurns) ready(status byte) {
	known := status == 'I' || status == 'T' || status == 'E'
	if !known || t.owed == 0 || t.copying == postgresCopyIn {
		t.lose()
		return
	}
	t.owed--
	t.copying, t.ignored, t.ended = postgresNoCopy, false, false
	t.idle = status == 'I'
}

// failed handles an ErrorResponse. Whether the server has read a Sync as a part of the COPY before the error, or reads
// it as a Sync afterwards, cannot be known.
func (t *PostgresTurns) failed() {
	if t.ignored {
		t.lose()
		return
	}
	if t.copying == postgresCopyIn {
		t.copying = postgresCopyFailed
	}
}

// beginCopy handles a CopyInResponse. Servers answer in order, and end a session that sends another request than Sync
// and Flush during the COPY: so all that they still owe was asked for by the Query with the COPY, or by a Sync behind
// its Execute.
func (t *PostgresTurns) beginCopy() {
	switch {
	case t.copying != postgresNoCopy:
		t.lose()
		return
	case t.ended:
		t.ended = false // all that follows the data is read as usual
		return
	case t.owed == 0 && t.open, t.owed == 1 && t.asked == 'Q':
	case t.owed == 1 && t.asked == 'S' && !t.open:
		// The client did not know that it executes a COPY. It sends another Sync behind the data.
		t.owed, t.open, t.ignored = 0, true, true
	default:
		t.lose()
		return
	}
	t.copying = postgresCopyIn
}

// A postgresFrame finds the messages in one direction of a session. Its zero value is between two messages.
type postgresFrame struct {
	left uint32  // bytes of the body under way
	head [5]byte // the type and the length, which includes itself, of the message under way
	have uint8   // bytes of head
}

// between reports whether the next byte begins a message.
func (f *postgresFrame) between() bool { return f.left == 0 && f.have == 0 }

// read takes bytes of the body, or of the next head, and returns the bytes behind. When the head is whole, begins is
// true, and left is the length of the body; it is above maxPostgresBody for a length that is too small, or negative.
func (f *postgresFrame) read(p []byte) (rest []byte, begins bool) {
	if f.left > 0 {
		n := min(int(f.left), len(p))
		f.left -= uint32(n)
		return p[n:], false
	}
	n := copy(f.head[f.have:], p)
	if f.have += uint8(n); int(f.have) < len(f.head) {
		return p[n:], false
	}
	f.have = 0
	f.left = binary.BigEndian.Uint32(f.head[1:]) - 4
	return p[n:], true
}
