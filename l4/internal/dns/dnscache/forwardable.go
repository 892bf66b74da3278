package dnscache

import "encoding/binary"

// maxForwardable is the longest query that is Forwardable. In practice no query is longer, even with a cookie, a subnet
// and padding.
const maxForwardable = 512

// Forwardable reports whether a query may share a socket with others where there is no cache. It must have one
// question, to which there is one answer, and no record except one OPT record. The caller forwards it unchanged, except
// for its id. A cache is stricter, see Resolver.Ask. Any goroutine may call it.
func Forwardable(query []byte) bool {
	if len(query) > maxForwardable {
		return false
	}
	var name [maxNameLen]byte
	n, _ := readQuestion(query, name[:])
	return n > 0
}

// AppendServFail appends a SERVFAIL answer to a query that is Forwardable, or that Ask does not Pass. Any goroutine may
// call it.
func AppendServFail(dst, query []byte) []byte {
	at := len(dst)
	dst = append(dst, query[:skipName(query, headerLen)+questionLen]...)
	m := dst[at:]
	flags := binary.BigEndian.Uint16(m[2:])&(flagRD|flagCD) | flagQR | rcodeFailed
	if flags&flagRD != 0 {
		flags |= flagRA // a client that asks for recursion expects it, even in a failure
	}
	binary.BigEndian.PutUint16(m[2:], flags)
	clear(m[6:headerLen])
	return dst
}
