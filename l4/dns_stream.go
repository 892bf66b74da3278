package l4

import (
	"slices"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A dnsStream is what a dnsSocket has besides that is a TCP connection (RFC 7766): questions are pipelined, and their answers come in any
// order. It is opened with the first question and closed when there has been none for a while.
type dnsStream struct {
	connecting bool // questions wait in the socket's unsent
	used       bool // something was sent by it
	in         dnsInbox
	out        dnsOutbox
}

// streamBatch is how many bytes of questions are written at once.
const streamBatch = 16 << 10

// becomeStream has a socket that was just opened be a connection that is being made.
func (k *dnsAsker) becomeStream(s *dnsSocket) {
	s.stream = &dnsStream{connecting: true}
	s.blocked = true
	k.connecting = append(k.connecting, s)
	sock.SetNoDelay(s.fd)
	k.loop.poller.WatchRoom(s.fd, s.key, s.generation, true)
}

// connected takes note that a connection is made, or given up.
func (k *dnsAsker) connected(s *dnsSocket) {
	s.stream.connecting = false
	k.connecting = slices.DeleteFunc(k.connecting, func(other *dnsSocket) bool { return other == s })
}

// onStream handles an event of a connection.
func (k *dnsAsker) onStream(s *dnsSocket, bits uint32) {
	l := k.loop
	if s.stream.connecting {
		if bits&(sock.PollError|sock.PollHangup) != 0 {
			if e := sock.ConnectError(s.fd); e != 0 {
				k.socketFailed(s, connectOutcome(e))
				return
			}
		}
		if bits&sock.PollOut == 0 {
			return
		}
		k.connected(s)
	}
	if bits&sock.PollOut != 0 && s.blocked {
		s.blocked = false
		k.flushStream(s)
		if s.closed {
			return
		}
		if !s.blocked {
			l.poller.WatchRoom(s.fd, s.key, s.generation, false)
		}
	}
	k.receiveStream(s)
}

// flushStream sends what stands in a connection's line, as far as the kernel takes it.
func (k *dnsAsker) flushStream(s *dnsSocket) {
	l := k.loop
	out := &s.stream.out
	for !s.closed {
		looked := 0
		for _, id := range s.unsent {
			if out.size() >= streamBatch {
				break
			}
			looked++
			q := s.pending[id]
			if q == nil || !q.unsent {
				continue // see fillWriter
			}
			q.unsent = false
			l.dns.queries = q.appendTo(l.dns.queries[:0])
			q.bytes = frameLengthBytes + len(l.dns.queries)
			out.add(l, l.dns.queries)
		}
		s.unsent = slices.Delete(s.unsent, 0, looked)
		if out.size() == 0 {
			return
		}
		s.stream.used = true
		if _, e := out.send(l, s.fd); e == sock.Again {
			s.blocked = true
			l.poller.WatchRoom(s.fd, s.key, s.generation, true)
			return
		} else if e != 0 {
			k.streamEnded(s)
			return
		}
	}
}

// receiveStream takes what a backend has sent by a connection.
func (k *dnsAsker) receiveStream(s *dnsSocket) {
	l := k.loop
	in := &s.stream.in
	for range flowTurnReads {
		n, e := in.read(l, s.fd)
		switch {
		case e == sock.Again:
			return
		case e != 0 || n == 0:
			k.streamEnded(s)
			return
		}
		for message, whole := in.first(); whole; message, whole = in.first() {
			if len(message) < dnsHeaderBytes {
				k.mismatch(s, message) // and what follows is anything
				k.streamEnded(s)
				return
			}
			k.take(s, message)
			if s.closed {
				return
			}
			in.skip(l, message)
		}
	}
	l.poller.WatchRoom(s.fd, s.key, s.generation, s.blocked) // which tells anew of what is left
}

// streamEnded has the questions at a connection asked again that its backend has closed. It may close one that was idle
// just when a question comes, or after so many answers (RFC 7766, 6.2.4): so if it has answered by this one, that says
// nothing about the backend, which may be asked once more.
func (k *dnsAsker) streamEnded(s *dnsSocket) {
	o := k.streamOutcome(s)
	k.close(s)
	for _, q := range s.pending {
		if s.heard > 0 && !q.again {
			q.again = true
			k.recall(q, pool.Neutral)
			k.ask(q)
		} else {
			k.elsewhere(q, o)
			o = pool.Neutral
		}
	}
}

// giveUpStreams closes the connections that were not made in time.
func (k *dnsAsker) giveUpStreams() {
	patience := k.service.listener.spec.Load().Pool.ConnectTimeout()
	for len(k.connecting) > 0 && k.loop.now >= k.connecting[0].born+patience {
		k.socketFailed(k.connecting[0], pool.ConnectTimeout)
	}
}

// leaveSilent has a connection get no more questions by which none of those sent since was answered in time: most
// likely the backend, or the way to it, is gone.
func (k *dnsAsker) leaveSilent(q *dnsQuestion) {
	if s := q.socket; s.stream != nil && s.heard < q.sent && !s.retired && k.mayRetire(s) {
		k.retire(s)
	}
}
