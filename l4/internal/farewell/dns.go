package farewell

import "github.com/limeload/limeload-l4/l4/internal/wire"

// A dns answers each question of a client.
type dns struct {
	why     *wire.DNSError
	replies int
}

func (d *dns) hear(heard, reply []byte) (n int, answer []byte, v verdict) {
	for ; d.replies < maxReplies; d.replies++ {
		question, whole := wire.DNSMessage(heard[n:])
		if !whole {
			return n, reply, v
		}
		if !wire.IsDNSQuestion(question) {
			return n, reply, foreign
		}
		n += wire.DNSLengthBytes + len(question)
		length := len(reply)
		reply = wire.AppendDNSError(append(reply, 0, 0), question, d.why)
		wire.AppendDNSLength(reply[:length], reply[length+wire.DNSLengthBytes:])
		v = said
	}
	return n, reply, said
}
