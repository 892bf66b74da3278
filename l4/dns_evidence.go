package l4

import (
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// unanswered is what a question without an answer says about its backend: nothing, since a client may ask what nobody can answer. If
// the backend has answered nothing else by that socket meanwhile, it is a reason to check it.
func unanswered(q *dnsQuestion) pool.Outcome {
	if q.socket.heard < q.sent {
		return pool.NoAnswer
	}
	return pool.Neutral
}

// reportOn is what an error of a call on a socket of UDP says about the backend. What this host knows itself, the next connect says.
func reportOn(s *dnsSocket, e sock.Errno) pool.Outcome {
	r := sock.DatagramError(s.fd)
	if r.Errno == 0 {
		r.Errno = e
	}
	return datagramOutcome(r)
}

// streamOutcome is what the end of a connection says about the backend that ended it, as of a session: only that it came at once, before
// anything was sent, speaks against it.
func (k *dnsAsker) streamOutcome(s *dnsSocket) pool.Outcome {
	if !s.stream.used && k.loop.now-s.born < pool.HeldAfter {
		return pool.CutEarly
	}
	return pool.Neutral
}

// socketFailed takes it that a backend cannot be reached by a socket: its questions are asked elsewhere. However many they are, the backend
// has failed once.
func (k *dnsAsker) socketFailed(s *dnsSocket, o pool.Outcome) {
	k.close(s)
	k.tally.unreachable.Add(uint64(len(s.pending)))
	for _, q := range s.pending {
		k.elsewhere(q, o)
		o = pool.Neutral
	}
}

// leaveSocket closes a socket that can send nothing any more, for a reason of this host, and has its questions asked again.
func (k *dnsAsker) leaveSocket(s *dnsSocket) {
	k.close(s)
	for _, q := range s.pending {
		q.lost = true // and may go to the same backend
		k.elsewhere(q, pool.Neutral)
	}
}
