package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// outcome is what the end of a session that was connected says about its backend.
//
// One thing speaks against a backend: it ends a connection by which nothing was sent, soon after it was asked for it. A
// server that works does not. All else a client can bring about: it may send what no server answers (a CancelRequest of
// Postgres, HTTP to a server of something else), or something that a server resets, or close its half; or say nothing
// until the server has had enough of it. When this process was stopped for a moment, all ends look soon after the
// connection; so the time counts from when it was asked for.
func (s *Session) outcome(why tally.Reason, now time.Duration) pool.Outcome {
	switch {
	case s.firstByte > 0:
		return pool.Served
	case s.shunned,
		(why == tally.BackendReset || why == tally.BackendLost) && s.first != tally.ClientClosed && s.endsAtOnce(now):
		return pool.CutEarly
	}
	return pool.Neutral
}

// endsAtOnce reports whether the backend, which ends the connection now, cannot have been made to by the client.
func (s *Session) endsAtOnce(now time.Duration) bool {
	return s.in.bytes == 0 && now-s.connect < pool.HeldAfter
}
