// Package tally holds what is counted of a listener: why sessions ended and datagrams were dropped, bytes, and how long
// things took. Its values are closed sets that become labels of metrics and fields of access lines. It does not decide
// anything, and does not know what a session or a flow is.
//
// The counters are written by one loop each, and read from any goroutine.
package tally

import (
	"sync/atomic"

	"github.com/limeload/limeload-l4/pool"
)

// Counters are one listener's counts on one loop: written there only, read by anyone. The zero value is ready.
// The padding keeps loops out of each other's cache lines.
type Counters struct {
	Accepted atomic.Uint64 // sessions or flows that have begun
	Ended    [ReasonCount]atomic.Uint64
	Retries  [pool.Neutral + 1]atomic.Uint64 // connects that followed a failed one, by how that failed
	BytesIn  atomic.Uint64
	BytesOut atomic.Uint64

	DatagramsIn  atomic.Uint64
	DatagramsOut atomic.Uint64
	Dropped      [DropCount]atomic.Uint64

	ConnectTime, FirstByteTime, Duration, QueueTime Recorder

	_ [64]byte
}

// Ended sums up how many sessions and refusals had that reason, over all loops.
func Ended(loops []Counters, why Reason) (n uint64) {
	for i := range loops {
		n += loops[i].Ended[why].Load()
	}
	return n
}

// Drop counts datagrams that do not get where they were to go. onLoop.
func (c *Counters) Drop(why Drop, n int) { c.Dropped[why].Add(uint64(n)) }

// NoteLost counts what the kernel had no room for at a socket: lost is how many datagrams it has dropped since the
// socket was opened, modulo 2^32, of which *seen are counted already. onLoop.
func (c *Counters) NoteLost(seen *uint32, lost uint32) {
	if n := int32(lost - *seen); lost != 0 && n > 0 {
		c.Drop(DropReceiveBuffer, int(n))
		*seen = lost
	}
}
