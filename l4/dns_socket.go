package l4

import (
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A dnsSocket is a socket connected to a backend that many questions share, told apart by their ids. It belongs to one
// asker. With a stream it is a TCP connection, see there, and otherwise of UDP: its port is the kernel's random choice,
// and the kernel gives it datagrams from the backend's address and port alone, so a forger has to guess port and id
// both (RFC 5452). The socket is renewed before there is time to find the port, and given up as soon as somebody tries
// ids.
type dnsSocket struct {
	// set once, then read-only
	asker      *dnsAsker
	route      *dnsRoute
	fd         int
	link       *link
	key        int32 // of its events
	generation uint32
	born       time.Duration // since Server.started
	stream     *dnsStream    // nil for UDP

	pending    map[uint16]*dnsQuestion // by id
	ids        *[1 << 10]uint64        // a bit for each that was asked by; nil for a stream
	unsent     []uint16                // ids of questions that are to be sent; some may be over already
	asked      int                     // questions, since born
	used       time.Duration           // when the last of them came
	heard      time.Duration           // when the last one was answered; zero before
	mismatched int                     // datagrams that were no answer to any of these, but for late ones
	lost       uint32                  // datagrams the kernel says it has dropped

	sending bool // stands in the loop's sending
	blocked bool // takes no more for the moment
	retired bool // gets no more questions, and is closed with the last answer
	closed  bool
}

// A dnsRoute is an asker's way to a backend.
type dnsRoute struct {
	backend *pool.Backend
	sockets []*dnsSocket // those that questions are given to
	retired []*dnsSocket
}

const (
	// crowded is how many questions a socket has before another one is opened: their answers fit the smallest buffer there is, 208 KiB.
	crowded = 256

	// fullSocket is how many it has at most: half of the ids, so that a free one is found with the second draw.
	fullSocket = 1 << 15

	// renewEvery and renewAfter say when a socket is renewed: by then somebody who knows the port has been able to try a small part of the ids
	// for any one question. It costs some ten microseconds.
	renewEvery = 10 * time.Second
	renewAfter = 1 << 15

	// dnsReceiveBuffer is what is asked for; see DNSSettings.Sockets for when the kernel gives less.
	dnsReceiveBuffer = 4 << 20
)

// socketTo returns a socket to a backend that has room for a question, or why there is none.
func (k *dnsAsker) socketTo(b *pool.Backend) (*dnsSocket, sock.Errno) {
	r := k.routes[b]
	if r == nil {
		return k.open(&dnsRoute{backend: b})
	}
	n := len(r.sockets)
	if n == 0 {
		return k.open(r)
	}
	s := r.sockets[k.loop.dns.random.Uint64()%uint64(n)]
	worn := s.asked >= renewAfter && k.mayRetire(s)
	if worn || len(s.pending) >= crowded && n < k.service.settings.sockets() {
		if another, e := k.open(r); e == 0 { // else this one has to do
			if worn {
				k.retire(s)
			}
			return another, 0
		}
	}
	if len(s.pending) >= fullSocket {
		i := slices.IndexFunc(r.sockets, func(s *dnsSocket) bool { return len(s.pending) < fullSocket })
		if i < 0 {
			return nil, sock.NoPort // as it were: of ids
		}
		s = r.sockets[i]
	}
	return s, 0
}

// open opens another socket on a route.
func (k *dnsAsker) open(r *dnsRoute) (*dnsSocket, sock.Errno) {
	l := k.loop
	w := &l.dns
	protocol := UDP
	if k.service.tcp {
		protocol = TCP
	}
	place := &link{chain: k.service.chain}
	fd, e := l.dial(protocol, r.backend.Addr(), k.service.listener, &place)
	if e != 0 && e != sock.InProgress {
		return nil, e
	}
	i := slices.Index(w.sockets, nil)
	if i < 0 {
		i = len(w.sockets)
		w.sockets = append(w.sockets, nil)
	}
	w.opened++
	s := &dnsSocket{
		asker: k, route: r, fd: fd, link: place, key: dnsKey - int32(i), generation: w.opened, born: l.now,
		pending: make(map[uint16]*dnsQuestion),
	}
	if e := l.poller.AddDatagram(fd, s.key, s.generation); e != 0 {
		l.server.chains.forget(place)
		sock.Close(fd)
		return nil, e
	}
	if k.service.tcp {
		k.becomeStream(s)
	} else {
		sock.ExpectTrains(fd, l.server.offload.GRO, dnsReceiveBuffer)
		s.ids = new([1 << 10]uint64)
	}
	w.sockets[i] = s
	r.sockets = append(r.sockets, s)
	k.routes[r.backend] = r
	k.tally.sockets.Add(1)
	if k.sweepAt == 0 {
		k.sweepAt = l.now + renewEvery
	}
	return s, 0
}

// mayRetire reports whether a socket can be done without: not while too many that are retired wait for answers.
func (k *dnsAsker) mayRetire(s *dnsSocket) bool {
	return len(s.pending) == 0 || len(s.route.retired) < k.service.settings.sockets()
}

// retire has a socket get no more questions, and closes it when it has none.
func (k *dnsAsker) retire(s *dnsSocket) {
	if len(s.pending) == 0 {
		k.close(s)
		return
	}
	r := s.route
	s.retired = true
	r.sockets = without(r.sockets, s)
	r.retired = append(r.retired, s)
}

// without takes a socket out of a list.
func without(list []*dnsSocket, s *dnsSocket) []*dnsSocket {
	i := slices.Index(list, s)
	return slices.Delete(list, i, i+1)
}

// close closes a socket, whose questions are the caller's business.
func (k *dnsAsker) close(s *dnsSocket) {
	r := s.route
	if s.retired {
		r.retired = without(r.retired, s)
	} else {
		r.sockets = without(r.sockets, s)
	}
	if len(r.sockets)+len(r.retired) == 0 {
		delete(k.routes, r.backend)
	}
	s.closed = true
	if st := s.stream; st != nil {
		k.connected(s)
		st.in.release(k.loop)
		st.out.release(k.loop)
	}
	k.loop.dns.sockets[dnsKey-s.key] = nil
	k.loop.server.chains.forget(s.link)
	sock.Close(s.fd)
	k.tally.sockets.Add(-1)
}

// sweep retires sockets that are old, and so closes those that nobody needs.
func (k *dnsAsker) sweep() {
	now := k.loop.now
	var old []*dnsSocket
	for _, r := range k.routes {
		for _, s := range r.sockets {
			if s.old(now) {
				old = append(old, s)
			}
		}
	}
	for _, s := range old {
		if k.mayRetire(s) {
			k.retire(s)
		}
	}
	if k.count == 0 {
		k.loop.dns.trim()
	}
	k.sweepAt = 0
	if len(k.routes) > 0 {
		k.sweepAt = now + renewEvery
	}
}

// old tells whether a socket is to be retired with time: one of UDP before somebody finds its port, a connection when nobody needs it.
func (s *dnsSocket) old(now time.Duration) bool {
	if s.stream != nil {
		return len(s.pending) == 0 && now >= s.used+renewEvery
	}
	return now >= s.born+renewEvery
}

// add puts a question into a socket's line, under an id that no other one there has.
func (s *dnsSocket) add(q *dnsQuestion) {
	w := &s.asker.loop.dns
	for {
		q.id = uint16(w.random.Uint64())
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
	s.used = s.asker.loop.now
	s.unsent = append(s.unsent, q.id)
	s.send()
}

// send has the socket's line sent at the end of the loop's turn.
func (s *dnsSocket) send() {
	if !s.sending && !s.blocked {
		s.sending = true
		w := &s.asker.loop.dns
		w.sending = append(w.sending, s)
	}
}

// flush sends what stands in a socket's line, as far as the kernel takes it.
func (k *dnsAsker) flush(s *dnsSocket) {
	if s.stream != nil {
		k.flushStream(s)
		return
	}
	for len(s.unsent) > 0 && !s.closed && !s.blocked {
		k.fillWriter(s)
		k.sendBatch(s)
	}
}

// fillWriter moves questions from a socket's line to the loop's writer.
func (k *dnsAsker) fillWriter(s *dnsSocket) {
	w := &k.loop.dns
	w.batch, w.queries = w.batch[:0], w.queries[:0]
	looked := 0
	for _, id := range s.unsent {
		if !w.writer.Room() {
			break
		}
		looked++
		q := s.pending[id]
		if q == nil || !q.unsent {
			continue // it is over, and its id may be another one's that has been sent
		}
		q.unsent = false
		at := len(w.queries)
		w.queries = q.appendTo(w.queries) // what was there before stays where the writer has it
		w.writer.Add(nil, nil, nil, w.queries[at:], true)
		w.batch = append(w.batch, q)
		q.bytes = len(w.queries) - at
	}
	s.unsent = slices.Delete(s.unsent, 0, looked)
}

// sendBatch sends what is in the loop's writer. What the kernel does not take for now goes back into the line; what it does not send
// is asked elsewhere.
func (k *dnsAsker) sendBatch(s *dnsSocket) {
	w := &k.loop.dns
	for !w.writer.Empty() && !s.closed {
		e := w.writer.Send(s.fd)
		at := w.writer.Gone()
		switch {
		case e == 0:
		case e == sock.Again:
			s.blocked = true
			k.loop.poller.WatchRoom(s.fd, s.key, s.generation, true)
			for _, q := range w.batch[at:] {
				q.unsent = true
				s.unsent = append(s.unsent, q.id)
			}
			w.writer.Clear()
		case sock.Unreachable(e):
			k.socketFailed(s, reportOn(s))
		case sock.SourceGone(e):
			k.socketFailed(s, pool.Neutral)
		default:
			n := w.writer.Skip()
			for _, q := range w.batch[at : at+n] {
				k.elsewhere(q, pool.Neutral)
			}
		}
	}
	w.writer.Clear()
	clear(w.batch)
}

// onSocket handles an event of a socket.
func (k *dnsAsker) onSocket(s *dnsSocket, bits uint32) {
	l := k.loop
	if s.stream != nil {
		k.onStream(s, bits)
		return
	}
	if bits&sock.PollOut != 0 && s.blocked {
		s.blocked = false
		k.flush(s)
		if !s.blocked && !s.closed {
			l.poller.WatchRoom(s.fd, s.key, s.generation, false)
		}
	}
	var report sock.Report
	if bits&sock.PollError != 0 && !s.closed {
		report = sock.DatagramError(s.fd)
	}
	k.receive(s)
	if report.Errno != 0 && !s.closed {
		k.socketFailed(s, datagramOutcome(report))
	}
}

// receive takes what a backend has sent.
func (k *dnsAsker) receive(s *dnsSocket) {
	l := k.loop
	reader := l.dns.reader
	for range flowTurnReads {
		if s.closed {
			return
		}
		n, e := reader.Read(s.fd, 0, sock.DatagramSlots)
		if e != 0 {
			if sock.Unreachable(e) {
				k.socketFailed(s, reportOn(s))
			}
			return
		}
		for slot := range n {
			m := reader.Message(slot)
			l.noteLost(k.service.listener, &s.lost, m.Lost)
			for rest := m.Bytes; ; {
				one := rest
				if m.Size > 0 {
					one = rest[:min(m.Size, len(rest))]
				}
				k.take(s, one)
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
		l.poller.WatchRoom(s.fd, s.key, s.generation, s.blocked) // which tells anew of what is left
	}
}
