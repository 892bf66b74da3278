package farewell

import (
	"strings"

	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// maxRedisPart is how many bytes of a command are kept. A client that sends more of one gets its answer early.
const maxRedisPart = 4 << 10

// A redis answers each command with an error, until one came that is not of a client's greeting. Clients take an error
// of their greeting for what it is, and only an end without a reply for a broken connection.
type redis struct {
	cause   cause
	replies int
}

func (r *redis) hear(heard, reply []byte) (n int, answer []byte, v verdict) {
	for r.replies < maxReplies {
		name, size, ok := wire.ReadRedisCommand(heard[n:])
		if !ok {
			return n, reply, foreign
		}
		if size == 0 {
			if len(heard)-n < maxRedisPart {
				return n, reply, v // the rest of a pipeline is not worth another wait
			}
			return n, r.appendError(reply), said
		}
		n += size
		if len(name) == 0 {
			continue
		}
		reply = r.appendError(reply)
		r.replies++
		if !greets(string(name)) {
			v = said
		}
	}
	return n, reply, said
}

// appendError appends the reply. What Redis itself says when it has too many clients must be exactly this, or clients
// take it for an error of the command.
func (r *redis) appendError(to []byte) []byte {
	if r.cause.full {
		return append(to, "-ERR max number of clients reached\r\n"...)
	}
	return append(append(append(to, "-LOADING "...), r.cause.text...), "\r\n"...)
}

// greets reports whether clients send a command before their user's first one.
func greets(name string) bool {
	switch strings.ToUpper(name) {
	case "HELLO", "AUTH", "SELECT", "CLIENT", "READONLY", "COMMAND":
		return true
	}
	return false
}
