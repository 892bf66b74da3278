package dns

import (
	"encoding/binary"

	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// suspicious is after how many wrong answers a socket is given up, see flee: few against 65536 ids. A backend that is
// only slow, or a network that doubles datagrams, sends none of these: late answers to real questions do not count.
const suspicious = 64

// mismatch counts a datagram that answers nothing that a socket has asked. The true answer may still come. A datagram
// whose id this socket has used before is most likely late, or comes twice; others are guesses.
func (f *forwarder) mismatch(s *socket, datagram []byte) {
	f.counts.mismatched.Add(1)
	if s.stream != nil || s.closed || s.late(datagram) {
		return
	}
	if s.mismatched++; s.mismatched == suspicious {
		f.flee(s)
	}
}

// late reports whether a datagram has the id of a question that waits no more.
func (s *socket) late(datagram []byte) bool {
	if len(datagram) < wire.DNSHeaderBytes {
		return false
	}
	id := binary.BigEndian.Uint16(datagram)
	return s.ids[id/64]>>(id%64)&1 != 0 && s.pending[id] == nil
}

// flee gives up a port, since somebody knows it and tries ids. Its questions are asked again by another port, or fail
// if that has happened to them before. So nobody has more than twice as many guesses for a question, and has to find
// the port again for the second half.
func (f *forwarder) flee(s *socket) {
	f.close(s)
	for _, q := range s.pending {
		f.recall(q, pool.Neutral)
		if q.fled {
			q.silent = true
			f.fail(q)
			continue
		}
		q.fled = true
		f.ask(q)
	}
}
