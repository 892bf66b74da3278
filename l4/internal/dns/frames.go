package dns

import (
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// An inbox is what was read of a stream of DNS messages and has not been looked at.
//
// Invariant: nothing is read while a whole message is in it, so it holds one and a loop's scratch buffer at most.
type inbox struct{ loop.ByteQueue }

// first returns the first message, if it is whole. It is valid until skip or Append.
func (b *inbox) first() (message []byte, whole bool) { return wire.DNSMessage(b.Bytes()) }

// skip takes the first message out.
func (b *inbox) skip(to *loop.Buffers, message []byte) { b.Done(to, wire.DNSLengthBytes+len(message)) }

// An outbox is messages that a stream has not taken yet.
type outbox struct{ loop.ByteQueue }

// add appends a message, which is copied.
func (b *outbox) add(from *loop.Buffers, message []byte) {
	var length [wire.DNSLengthBytes]byte
	b.Append(from, wire.AppendDNSLength(length[:0], message))
	b.Append(from, message)
}
