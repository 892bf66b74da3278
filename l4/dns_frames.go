package l4

import (
	"encoding/binary"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// frameLengthBytes stand before each message of a stream (RFC 1035, 4.2.2).
const frameLengthBytes = 2

// A streamBuffer is bytes of a stream that wait: to be looked at, or to be sent. Used onLoop only; its zero value is empty, and empty it holds no
// memory.
type streamBuffer struct {
	buf  []byte // of the loop's bufferPool; nil when it is empty
	from int    // what is before it is done with
}

// size is how many bytes wait.
func (b *streamBuffer) size() int { return len(b.buf) - b.from }

// append adds bytes, which are copied.
func (b *streamBuffer) append(l *loop, p []byte) {
	if b.from > 0 {
		b.buf = b.buf[:copy(b.buf, b.buf[b.from:])]
		b.from = 0
	}
	b.buf = l.buffers.append(b.buf, p)
}

// done takes the first n bytes out.
func (b *streamBuffer) done(l *loop, n int) {
	if b.from += n; b.from == len(b.buf) {
		b.release(l)
	}
}

// release gives the memory back, and drops what is in it.
func (b *streamBuffer) release(l *loop) {
	l.buffers.drop(b.buf)
	*b = streamBuffer{}
}

// A dnsInbox is what was read of a stream of DNS messages and has not been looked at.
//
// Invariant: nothing is read while a whole message is in it, so it holds one and a loop's scratch buffer at most.
type dnsInbox struct{ streamBuffer }

// read reads what has arrived, once; see sock.Read.
func (b *dnsInbox) read(l *loop, fd int) (int, sock.Errno) {
	n, e := sock.Read(fd, l.scratch)
	if n > 0 {
		b.append(l, l.scratch[:n])
	}
	return n, e
}

// first returns the first message, if it is whole. It is valid until skip or read.
func (b *dnsInbox) first() (message []byte, whole bool) {
	rest := b.buf[b.from:]
	if len(rest) < frameLengthBytes {
		return nil, false
	}
	size := int(binary.BigEndian.Uint16(rest))
	rest = rest[frameLengthBytes:]
	if len(rest) < size {
		return nil, false
	}
	return rest[:size], true
}

// skip takes the first message out.
func (b *dnsInbox) skip(l *loop, message []byte) { b.done(l, frameLengthBytes+len(message)) }

// A dnsOutbox is messages that a stream has not taken yet.
type dnsOutbox struct{ streamBuffer }

// add appends a message, which is copied.
func (b *dnsOutbox) add(l *loop, message []byte) {
	var length [frameLengthBytes]byte
	binary.BigEndian.PutUint16(length[:], uint16(len(message)))
	b.append(l, length[:])
	b.append(l, message)
}

// send writes as much as the stream takes, and returns how much that was. With Again there is no room for more.
func (b *dnsOutbox) send(l *loop, fd int) (sent int, e sock.Errno) {
	for b.size() > 0 {
		n, e := sock.Write(fd, b.buf[b.from:], false)
		if e != 0 {
			return sent, e
		}
		b.done(l, n)
		sent += n
	}
	return sent, 0
}
