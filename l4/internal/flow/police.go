package flow

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// A flow whose bandwidth is limited drops the datagrams that come beyond it: a queue would only make them late, and who
// sends datagrams expects that some are lost.

// policeDepth is how much of a flow's limit may pass at once.
const policeDepth = time.Second / 10

// A police is what a flow with a limit of bandwidth has for it, by gate.Direction.
type police [2]gate.Bytes

// limit gives a flow what it needs to be policed, if its listener has a limit of bandwidth and it has not got it yet.
func (l *Loop) limit(f *Flow) {
	if f.police != nil {
		return
	}
	if session, client := f.socket.listener.Bandwidth(); session == 0 && client == 0 {
		return
	}
	f.police = new(police)
	for d := range f.police {
		f.police[d].Fill(time.Hour, l.Now) // longer than any depth: they are full
	}
}

// pass returns as much of a datagram, or of a train of them, as the limits let pass, and counts the rest as dropped. It
// returns nil if nothing passes. An empty datagram does.
func (l *Loop) pass(f *Flow, d gate.Direction, bytes []byte, size int) []byte {
	ls := f.socket.listener
	session, client := ls.Bandwidth()
	n := len(bytes)
	if session > 0 {
		// Datagrams of every size pass a bucket that is full.
		depth := max(policeDepth, gate.TimeOf(session, sock.MaxDatagram))
		n = whole(n, min(n, f.police[d].Has(session, depth, l.Now)), size)
	}
	if client > 0 && n > 0 {
		if at := f.peer.AddrPort().Addr(); ls.ReserveBytes(at, d, n, l.Now) > 0 {
			ls.ReturnBytes(at, d, n)
			n = 0
		}
	}
	if session > 0 {
		f.police[d].Take(session, n)
	}
	if n < len(bytes) {
		l.Drop(ls, tally.DropBandwidth, datagrams(len(bytes)-n, size))
		if n == 0 {
			return nil
		}
	}
	return bytes[:n]
}

// whole is how many of the bytes of a datagram, or of a train, are in datagrams of which has bytes may pass.
func whole(bytes, has, size int) int {
	switch {
	case has >= bytes:
		return bytes
	case size == 0:
		return 0
	}
	return has / size * size
}
