// Package tally counts what happens at a listener: why sessions ended and datagrams were dropped, bytes, and how long
// things took. Reasons and drops are closed sets, which become labels of metrics and fields of access lines. The
// package decides nothing, and does not know what a session or a flow is.
//
// One loop writes each counter. Any goroutine may read it.
package tally

import (
	"sync/atomic"

	"github.com/limeload/limeload-l4/pool"
)

// Counters are one listener's counts on one loop. Only that loop writes them; any goroutine may read them. The zero
// value is ready. The padding keeps the counters of two loops out of the same cache line.
type Counters struct {
	Accepted atomic.Uint64 // sessions or flows begun
	Ended    [ReasonCount]atomic.Uint64
	Retries  [pool.Neutral + 1]atomic.Uint64 // connects after a failed one, by the outcome of the failed one
	BytesIn  atomic.Uint64
	BytesOut atomic.Uint64

	DatagramsIn  atomic.Uint64
	DatagramsOut atomic.Uint64
	Dropped      [DropCount]atomic.Uint64

	Handshakes // of TLS

	ConnectTime, FirstByteTime, Duration, QueueTime Recorder

	_ [64]byte
}

// Ended returns how many sessions and refusals had that reason, over all loops.
func Ended(loops []Counters, why Reason) (n uint64) {
	for i := range loops {
		n += loops[i].Ended[why].Load()
	}
	return n
}

// Drop counts n dropped datagrams. onLoop.
func (c *Counters) Drop(why Drop, n int) { c.Dropped[why].Add(uint64(n)) }

// NoteLost counts the datagrams that the kernel dropped because a socket's receive buffer was full. lost is the
// kernel's count since the socket was opened, modulo 2^32; *seen is the part of it that is counted already. onLoop.
func (c *Counters) NoteLost(seen *uint32, lost uint32) {
	if n := int32(lost - *seen); lost != 0 && n > 0 {
		c.Drop(DropReceiveBuffer, int(n))
		*seen = lost
	}
}
