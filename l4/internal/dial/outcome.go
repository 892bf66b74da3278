package dial

import (
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A pool's breakers go by the outcomes of its leases. So nothing may count against a backend that clients can cause,
// nor what this host lacks. docs/pools.md has the tables, and says why.

// Outcome is what an error of a connect says about the backend; or of a datagram, if this host has found out itself.
func Outcome(e sock.Errno) pool.Outcome {
	switch sock.CauseOf(e) {
	case sock.OtherEnd:
		return pool.ConnectRefused
	case sock.OtherSilent:
		return pool.ConnectTimeout
	case sock.NoWay:
		return pool.ConnectUnreachable
	}
	return pool.Neutral
}

// DatagramOutcome is what a report on a connected UDP socket says about the backend.
func DatagramOutcome(r sock.Report) pool.Outcome {
	if !r.Sure {
		return pool.ICMPError
	}
	return Outcome(r.Errno)
}
