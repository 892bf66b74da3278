package wire

import (
	"bytes"
	"encoding/binary"
)

// authenticationSASL is the code of the Authentication message that lists mechanisms.
const authenticationSASL = 10

// RemovePostgresBinding removes the mechanisms with channel binding (SCRAM-SHA-256-PLUS) from the list in what a server
// of Postgres sends first, in place, and returns what is left. It returns stream as it is if the list is not there, not
// whole, or has nothing else.
//
// A server that has TLS offers channel binding. Clients without TLS, which have nothing to bind to, take this for an
// attack and give up.
func RemovePostgresBinding(stream []byte) []byte {
	const head = 5 // the type, and the length, which includes itself
	at := 0
	for {
		rest := stream[at:]
		if len(rest) < head {
			return stream
		}
		end := 1 + int(binary.BigEndian.Uint32(rest[1:]))
		if end < head || end > len(rest) {
			return stream
		}
		switch rest[0] {
		case 'v': // NegotiateProtocolVersion
			at += end
			continue
		case 'R':
			if end > head+4 && binary.BigEndian.Uint32(rest[head:]) == authenticationSASL {
				return removeBinding(stream, at, at+head+4, at+end)
			}
		}
		return stream
	}
}

// removeBinding removes names from the list in stream[from:to], which is the end of the message at that index.
func removeBinding(stream []byte, message, from, to int) []byte {
	kept, others := from, false
	list := stream[from:to]
	names := make([]byte, 0, len(list))
	for len(list) > 0 {
		name, rest, ended := bytes.Cut(list, []byte{0})
		if !ended {
			return stream
		}
		if !bytes.HasSuffix(name, []byte("-PLUS")) { // RFC 5802, 4
			names = append(append(names, name...), 0)
			others = others || len(name) > 0
		}
		list = rest
	}
	if !others || len(names) == to-from {
		return stream
	}
	kept += copy(stream[from:], names)
	binary.BigEndian.PutUint32(stream[message+1:], uint32(kept-message-1))
	return append(stream[:kept], stream[to:]...)
}
