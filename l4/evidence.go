package l4

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// What is told to a pool of its backends. Its breakers go by it, so nothing may count against a backend that clients can cause, nor what
// this host lacks. docs/pools.md has the tables, and says why.

// outcome is what the end of a session that was connected says about its backend.
//
// It speaks against it to end a connection by which nothing was sent, soon after it was asked for: a server that works
// does not. All else a client can bring about. It may send what no server answers (a CancelRequest of Postgres, HTTP to
// a server of something else), or something that a server resets, or close its half; or say nothing until the server
// has had enough of it. When this process was stopped for a moment, all ends look soon after the connection; so the
// time counts from when it was asked for.
func (s *session) outcome(why Reason, now time.Duration) pool.Outcome {
	switch {
	case s.firstByte > 0:
		return pool.Served
	case s.shunned, (why == BackendReset || why == BackendLost) && s.first != ClientClosed && s.endsAtOnce(now):
		return pool.CutEarly
	}
	return pool.Neutral
}

// endsAtOnce tells whether the backend, which ends the connection now, cannot have been made to.
func (s *session) endsAtOnce(now time.Duration) bool {
	return s.in.bytes == 0 && now-s.connect < pool.HeldAfter
}

// connectOutcome is what an error of a connect says about the backend; or of a datagram, if this host has found out itself.
func connectOutcome(e sock.Errno) pool.Outcome {
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

// datagramOutcome is what a report on a connected UDP socket says about the backend.
func datagramOutcome(r sock.Report) pool.Outcome {
	if !r.Sure {
		return pool.ICMPError
	}
	return connectOutcome(r.Errno)
}
