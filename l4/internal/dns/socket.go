package dns

import (
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A socket is a socket connected to a backend that many questions share, told apart by their ids. It belongs to one
// forwarder. With a stream it is a TCP connection, see there, and otherwise of UDP: its port is the kernel's random
// choice, and the kernel gives it datagrams from the backend's address and port alone, so a forger has to guess port
// and id both (RFC 5452). The socket is renewed before there is time to find the port, and given up as soon as somebody
// tries ids.
type socket struct {
	// set once, then read-only
	forwarder  *forwarder
	route      *route
	fd         int
	link       *dial.Link
	slot       uint32
	generation uint32
	born       time.Duration // since Server.started
	stream     *stream       // nil for UDP

	pending    map[uint16]*question // by id
	ids        *[1 << 10]uint64     // a bit for each that was asked by; nil for a stream
	unsent     []uint16             // ids of questions that are to be sent; some may be over already
	asked      int                  // questions, since born
	used       time.Duration        // when the last of them came
	heard      time.Duration        // when the last one was answered; zero before
	mismatched int                  // datagrams that were no answer to any of these, but for late ones
	lost       uint32               // datagrams the kernel says it has dropped

	sending bool // stands in the loop's sending
	blocked bool // takes no more for the moment
	retired bool // gets no more questions, and is closed with the last answer
	closed  bool
}

// A route is a forwarder's way to a backend.
type route struct {
	backend *pool.Backend
	sockets []*socket // those that questions are given to
	retired []*socket
}

const (
	// crowded is how many questions a socket has before another one is opened: their answers fit the smallest buffer
	// there is, 208 KiB.
	crowded = 256

	// fullSocket is how many questions it has at most: half of the ids, so that a free one is found with the second
	// draw.
	fullSocket = 1 << 15

	// renewEvery and renewAfter say when a socket is renewed. Until then, somebody who knows the port can try only a
	// small part of the ids for any one question. Renewing costs some ten microseconds.
	renewEvery = 10 * time.Second
	renewAfter = 1 << 15

	// receiveBuffer is what is asked for; see defaultSockets for kernels that give less.
	receiveBuffer = 4 << 20
)

// socketTo returns a socket to a backend that has room for a question, or why there is none.
func (f *forwarder) socketTo(b *pool.Backend) (*socket, sock.Errno) {
	r := f.routes[b]
	if r == nil {
		return f.open(&route{backend: b})
	}
	n := len(r.sockets)
	if n == 0 {
		return f.open(r)
	}
	s := r.sockets[f.loop.random.Uint64()%uint64(n)]
	worn := s.asked >= renewAfter && f.mayRetire(s)
	if worn || len(s.pending) >= crowded && n < f.service.settings.sockets() {
		if another, e := f.open(r); e == 0 { // else this one has to do
			if worn {
				f.retire(s)
			}
			return another, 0
		}
	}
	if len(s.pending) >= fullSocket {
		i := slices.IndexFunc(r.sockets, func(s *socket) bool { return len(s.pending) < fullSocket })
		if i < 0 {
			return nil, sock.NoPort // no id is left
		}
		s = r.sockets[i]
	}
	return s, 0
}

// open opens another socket on a route.
func (f *forwarder) open(r *route) (*socket, sock.Errno) {
	l := f.loop
	protocol := sock.UDP
	if f.service.tcp {
		protocol = sock.TCP
	}
	place := dial.LinkOf(f.service.chain)
	client := dial.Client{By: f.service.listener.ID, Link: &place}
	fd, e := l.dialer.Dial(l.Now, protocol, f.service.pool(), r.backend, client)
	if e != 0 && e != sock.InProgress {
		return nil, e
	}
	i := slices.Index(l.sockets, nil)
	if i < 0 {
		i = len(l.sockets)
		l.sockets = append(l.sockets, nil)
	}
	l.opened++
	s := &socket{
		forwarder: f, route: r, fd: fd, link: place, slot: uint32(i), generation: l.opened, born: l.Now,
		pending: make(map[uint16]*question),
	}
	if e := l.events.AddDatagram(fd, s.slot, s.generation); e != 0 {
		l.dialer.Forget(place)
		sock.Close(fd)
		return nil, e
	}
	if f.service.tcp {
		f.becomeStream(s)
	} else {
		sock.ExpectTrains(fd, l.offload.GRO, receiveBuffer)
		s.ids = new([1 << 10]uint64)
	}
	l.sockets[i] = s
	r.sockets = append(r.sockets, s)
	f.routes[r.backend] = r
	f.counts.sockets.Add(1)
	if f.sweepAt == 0 {
		f.sweepAt = l.Now + renewEvery
	}
	return s, 0
}

// mayRetire reports whether a socket can be done without: not while too many that are retired wait for answers.
func (f *forwarder) mayRetire(s *socket) bool {
	return len(s.pending) == 0 || len(s.route.retired) < f.service.settings.sockets()
}

// retire gives a socket no more questions, and closes it when it has none.
func (f *forwarder) retire(s *socket) {
	if len(s.pending) == 0 {
		f.close(s)
		return
	}
	r := s.route
	s.retired = true
	r.sockets = without(r.sockets, s)
	r.retired = append(r.retired, s)
}

// without takes a socket out of a list.
func without(list []*socket, s *socket) []*socket {
	i := slices.Index(list, s)
	return slices.Delete(list, i, i+1)
}

// close closes a socket, and leaves its questions to the caller.
func (f *forwarder) close(s *socket) {
	r := s.route
	if s.retired {
		r.retired = without(r.retired, s)
	} else {
		r.sockets = without(r.sockets, s)
	}
	if len(r.sockets)+len(r.retired) == 0 {
		delete(f.routes, r.backend)
	}
	s.closed = true
	if st := s.stream; st != nil {
		f.connected(s)
		st.in.Release(&f.loop.Buffers)
		st.out.Release(&f.loop.Buffers)
	}
	f.loop.sockets[s.slot] = nil
	f.loop.dialer.Forget(s.link)
	sock.Close(s.fd)
	f.counts.sockets.Add(-1)
}

// sweep retires sockets that are old, and so closes those that nobody needs.
func (f *forwarder) sweep() {
	now := f.loop.Now
	var old []*socket
	for _, r := range f.routes {
		for _, s := range r.sockets {
			if s.old(now) {
				old = append(old, s)
			}
		}
	}
	for _, s := range old {
		if f.mayRetire(s) {
			f.retire(s)
		}
	}
	if f.count == 0 {
		f.loop.trim()
	}
	f.sweepAt = 0
	if len(f.routes) > 0 {
		f.sweepAt = now + renewEvery
	}
}

// old reports whether a socket is to be retired with time: one of UDP before somebody finds its port, a connection when
// nobody needs it.
func (s *socket) old(now time.Duration) bool {
	if s.stream != nil {
		return len(s.pending) == 0 && now >= s.used+renewEvery
	}
	return now >= s.born+renewEvery
}

// add puts a question into a socket's line, under an id that no other one there has.
func (s *socket) add(q *question) {
	l := s.forwarder.loop
	for {
		q.id = uint16(l.random.Uint64())
		if s.pending[q.id] == nil {
			break
		}
	}
	s.pending[q.id] = q
	if s.ids != nil {
		s.ids[q.id/64] |= 1 << (q.id % 64)
	}
	q.socket, q.unsent = s, true
	s.asked++
	s.used = s.forwarder.loop.Now
	s.unsent = append(s.unsent, q.id)
	s.send()
}

// send sends the socket's line at the end of the loop's turn.
func (s *socket) send() {
	if !s.sending && !s.blocked {
		s.sending = true
		l := s.forwarder.loop
		l.sending = append(l.sending, s)
	}
}

// flush sends what stands in a socket's line, as far as the kernel takes it.
func (f *forwarder) flush(s *socket) {
	if s.stream != nil {
		f.flushStream(s)
		return
	}
	for len(s.unsent) > 0 && !s.closed && !s.blocked {
		f.fillWriter(s)
		f.sendBatch(s)
	}
}

// fillWriter moves questions from a socket's line to the loop's writer.
func (f *forwarder) fillWriter(s *socket) {
	l := f.loop
	l.batch, l.queries = l.batch[:0], l.queries[:0]
	looked := 0
	for _, id := range s.unsent {
		if !l.writer.Room() {
			break
		}
		looked++
		q := s.pending[id]
		if q == nil || !q.unsent {
			continue // it is over, and its id may be another one's that has been sent
		}
		q.unsent = false
		at := len(l.queries)
		l.queries = q.appendTo(l.queries) // what was there before stays where the writer has it
		l.writer.Add(nil, nil, nil, l.queries[at:], true)
		l.batch = append(l.batch, q)
		q.bytes = len(l.queries) - at
	}
	s.unsent = slices.Delete(s.unsent, 0, looked)
}

// sendBatch sends what is in the loop's writer. What the kernel does not take for now goes back into the line. What it
// refuses to send is retried elsewhere.
func (f *forwarder) sendBatch(s *socket) {
	l := f.loop
	for !l.writer.Empty() && !s.closed {
		e := l.writer.Send(s.fd)
		at := l.writer.Gone()
		switch {
		case e == 0:
		case e == sock.Again:
			s.blocked = true
			f.loop.events.WatchRoom(s.fd, s.slot, s.generation, true)
			for _, q := range l.batch[at:] {
				q.unsent = true
				s.unsent = append(s.unsent, q.id)
			}
			l.writer.Clear()
		case sock.Unreachable(e):
			f.socketFailed(s, reportOn(s))
		case sock.SourceGone(e):
			f.socketFailed(s, pool.Neutral)
		default:
			n := l.writer.Skip()
			for _, q := range l.batch[at : at+n] {
				f.elsewhere(q, pool.Neutral)
			}
		}
	}
	l.writer.Clear()
	clear(l.batch)
}

// onSocket handles an event of a socket.
func (f *forwarder) onSocket(s *socket, bits uint32) {
	l := f.loop
	if s.stream != nil {
		f.onStream(s, bits)
		return
	}
	if bits&sock.PollOut != 0 && s.blocked {
		s.blocked = false
		f.flush(s)
		if !s.blocked && !s.closed {
			l.events.WatchRoom(s.fd, s.slot, s.generation, false)
		}
	}
	var report sock.Report
	if bits&sock.PollError != 0 && !s.closed {
		report = sock.DatagramError(s.fd)
	}
	f.receive(s)
	if report.Errno != 0 && !s.closed {
		f.socketFailed(s, dial.DatagramOutcome(report))
	}
}

// receive takes what a backend has sent.
func (f *forwarder) receive(s *socket) {
	l := f.loop
	reader := l.reader
	for range flow.TurnReads {
		if s.closed {
			return
		}
		n, e := reader.Read(s.fd, 0, sock.DatagramSlots)
		if e != 0 {
			if sock.Unreachable(e) {
				f.socketFailed(s, reportOn(s))
			}
			return
		}
		for slot := range n {
			m := reader.Message(slot)
			f.counters().NoteLost(&s.lost, m.Lost)
			for rest := m.Bytes; ; {
				one := rest
				if m.Size > 0 {
					one = rest[:min(m.Size, len(rest))]
				}
				f.take(s, one)
				if rest = rest[len(one):]; len(rest) == 0 {
					break
				}
			}
		}
		if n < sock.DatagramSlots {
			return
		}
	}
	if !s.closed {
		l.events.WatchRoom(s.fd, s.slot, s.generation, s.blocked) // which reports what is left again
	}
}
