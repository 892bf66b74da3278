package dns

import (
	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// unanswered is what a question without an answer says about its backend: nothing, since a client may ask what nobody
// can answer. If the backend has answered nothing else by that socket meanwhile, there is a reason to check it.
func unanswered(q *question) pool.Outcome {
	if q.socket.heard < q.sent {
		return pool.NoAnswer
	}
	return pool.Neutral
}

// reportOn is what an error of a call on a UDP socket says about the backend. If no ICMP error is queued, this host
// itself has no way for the socket, whose own address may be gone; the connect of the next socket says more.
func reportOn(s *socket) pool.Outcome {
	if r := sock.DatagramError(s.fd); r.Errno != 0 {
		return dial.DatagramOutcome(r)
	}
	return pool.Neutral
}

// streamOutcome is what the end of a connection says about the backend that ended it, as of a session: only that it
// came at once, before anything was sent, speaks against it.
func (f *forwarder) streamOutcome(s *socket) pool.Outcome {
	if !s.stream.used && f.loop.Now-s.born < pool.HeldAfter {
		return pool.CutEarly
	}
	return pool.Neutral
}

// socketFailed gives up a socket that is of no use any more. Its questions are retried elsewhere, or at the same
// backend if the failure is this host's. However many questions there are, the backend has failed once.
func (f *forwarder) socketFailed(s *socket, o pool.Outcome) {
	f.close(s)
	f.counts.unreachable.Add(uint64(len(s.pending)))
	ours := o == pool.Neutral
	for _, q := range s.pending {
		q.lost = q.lost || ours
		f.elsewhere(q, o)
		o = pool.Neutral
	}
}
