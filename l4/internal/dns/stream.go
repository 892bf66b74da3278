package dns

import (
	"slices"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// A stream is the part of a socket that is a TCP connection (RFC 7766). Questions are pipelined, and their answers come
// in any order. The connection is opened with the first question and closed when there has been none for a while.
type stream struct {
	connecting bool // questions wait in the socket's unsent
	used       bool // something was sent
	in         inbox
	out        outbox
}

// streamBatch is how many bytes of questions are written at once.
const streamBatch = 16 << 10

// becomeStream makes a socket that was just opened a connection that is being made.
func (f *forwarder) becomeStream(s *socket) {
	s.stream = &stream{connecting: true}
	s.blocked = true
	f.connecting = append(f.connecting, s)
	sock.SetNoDelay(s.fd)
	f.loop.events.WatchRoom(s.fd, s.slot, s.generation, true)
}

// connected notes that a connection is made, or given up.
func (f *forwarder) connected(s *socket) {
	s.stream.connecting = false
	f.connecting = slices.DeleteFunc(f.connecting, func(other *socket) bool { return other == s })
}

// onStream handles an event of a connection.
func (f *forwarder) onStream(s *socket, bits uint32) {
	l := f.loop
	if s.stream.connecting {
		if bits&(sock.PollError|sock.PollHangup) != 0 {
			if e := sock.ConnectError(s.fd); e != 0 {
				f.socketFailed(s, dial.Outcome(e))
				return
			}
		}
		if bits&sock.PollOut == 0 {
			return
		}
		f.connected(s)
	}
	if bits&sock.PollOut != 0 && s.blocked {
		s.blocked = false
		f.flushStream(s)
		if s.closed {
			return
		}
		if !s.blocked {
			l.events.WatchRoom(s.fd, s.slot, s.generation, false)
		}
	}
	f.receiveStream(s, bits)
}

// flushStream sends what stands in a connection's line, as far as the kernel takes it.
func (f *forwarder) flushStream(s *socket) {
	l := f.loop
	out := &s.stream.out
	for !s.closed {
		looked := 0
		for _, id := range s.unsent {
			if out.Size() >= streamBatch {
				break
			}
			looked++
			q := s.pending[id]
			if q == nil || !q.unsent {
				continue // see fillWriter
			}
			q.unsent = false
			l.queries = q.appendTo(l.queries[:0])
			q.bytes = wire.DNSLengthBytes + len(l.queries)
			out.add(&l.Buffers, l.queries)
		}
		s.unsent = slices.Delete(s.unsent, 0, looked)
		if out.Size() == 0 {
			return
		}
		s.stream.used = true
		if e := f.sendStream(s); e == sock.Again {
			s.blocked = true
			l.events.WatchRoom(s.fd, s.slot, s.generation, true)
			return
		} else if e != 0 {
			f.streamEnded(s)
			return
		}
	}
}

// sendStream writes what is in a connection's outbox, as far as the kernel takes it. With sock.Again it takes no more.
func (f *forwarder) sendStream(s *socket) sock.Errno {
	out := &s.stream.out
	for out.Size() > 0 {
		n, e := sock.Write(s.fd, out.Bytes(), false)
		if e != 0 {
			return e
		}
		out.Done(&f.loop.Buffers, n)
	}
	return 0
}

// receiveStream takes what a backend has sent by a connection. Without a FIN and without urgent data among the bits, a
// read that is shorter than its buffer is the last one: what arrives later has an event of its own.
func (f *forwarder) receiveStream(s *socket, bits uint32) {
	l := f.loop
	in := &s.stream.in
	for range flow.TurnReads {
		n, e := sock.Read(s.fd, l.Scratch)
		switch {
		case e == sock.Again:
			return
		case e != 0 || n == 0:
			f.streamEnded(s)
			return
		}
		in.Append(&l.Buffers, l.Scratch[:n])
		for message, whole := in.first(); whole; message, whole = in.first() {
			if len(message) < wire.DNSHeaderBytes {
				f.mismatch(s, message) // and what follows is anything
				f.streamEnded(s)
				return
			}
			f.take(s, message)
			if s.closed {
				return
			}
			in.skip(&l.Buffers, message)
		}
		if n < len(l.Scratch) && bits&(sock.PollPeerDone|sock.PollUrgent) == 0 {
			return
		}
	}
	l.events.WatchRoom(s.fd, s.slot, s.generation, s.blocked) // which reports what is left again
}

// streamEnded retries the questions at a connection that its backend has closed. A backend may close a connection that
// was idle just when a question comes, or after so many answers (RFC 7766, 6.2.4). So if it has answered by this one,
// the end says nothing about the backend, which may be asked once more.
func (f *forwarder) streamEnded(s *socket) {
	o := f.streamOutcome(s)
	f.close(s)
	for _, q := range s.pending {
		if s.heard > 0 && !q.again {
			q.again = true
			f.recall(q, pool.Neutral)
			f.ask(q)
		} else {
			f.elsewhere(q, o)
			o = pool.Neutral
		}
	}
}

// giveUpStreams closes the connections that were not made in time.
func (f *forwarder) giveUpStreams() {
	patience := f.service.pool().ConnectTimeout()
	for len(f.connecting) > 0 && f.loop.Now >= f.connecting[0].born+patience {
		f.socketFailed(f.connecting[0], pool.ConnectTimeout)
	}
}

// leaveSilent gives a question's connection no more questions if none of those sent since was answered in time: most
// likely the backend, or the way to it, is gone.
func (f *forwarder) leaveSilent(q *question) {
	if s := q.socket; s.stream != nil && s.heard < q.sent && !s.retired && f.mayRetire(s) {
		f.retire(s)
	}
}
