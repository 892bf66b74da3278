package l4

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dnscache"
	"github.com/limeload/limeload-l4/pool"
)

// A dnsAsker is one loop's part of a dnsService: the screen of its doors, which answers clients from the cache, and asks backends
// what that does not know. But for its tally it is used onLoop only.
//
// Invariant: for each client that waits for an answer, its binding's ending counts one flow, so its door is open until it has it.
type dnsAsker struct {
	// set once, then read-only
	loop     *loop
	service  *dnsService
	resolver *dnscache.Resolver[dnsClient] // nil without a cache

	tally dnsTally

	routes     map[*pool.Backend]*dnsRoute
	asked      dnsList       // all questions that a socket has
	waiting    dnsList       // those whose clients get an expired answer if they have waited long enough
	count      int           // questions
	clients    dnsClients    // that wait for answers
	talks      int           // sessions whose questions come here
	connecting []*dnsSocket  // connections that are being made, the oldest first
	sweepAt    time.Duration // zero while there is no socket
	draining   bool          // the listener has another service, or is gone
}

const (
	// maxQuestions bounds the questions of an asker: as many as the cache lets clients wait.
	maxQuestions = 131_072

	// dnsPatience is how long clients wait for an answer if there is an expired one (RFC 8767, 5).
	dnsPatience = 1800 * time.Millisecond
)

func newDNSAsker(l *loop, service *dnsService) *dnsAsker {
	k := &dnsAsker{
		loop: l, service: service, routes: make(map[*pool.Backend]*dnsRoute), waiting: dnsList{order: byBegun},
		clients: dnsClients{waiting: make(map[clientID]int)},
	}
	if service.cache != nil {
		k.resolver = service.cache.NewResolver()
		k.resolver.Admit = k.admit
	}
	return k
}

// question answers a client's question or has it asked; it is a screen's.
func (k *dnsAsker) question(from caller, datagram []byte, now time.Duration) (done bool) {
	if !isQuestion(datagram) {
		k.loop.drop(from.door.listener, DropMisdirected, 1)
		return true
	}
	if from.door.draining {
		return k.handOn(from, datagram, now)
	}
	if k.loop.server.chains.open.Load() > 0 && k.comesBack(from) {
		return true
	}
	if k.resolver == nil {
		return k.relayed(from, datagram)
	}
	l := k.loop
	reply := k.resolver.Ask(datagram, dnscache.UDP, dnsClient{asker: k, from: from}, now, l.dns.answer[:0])
	switch reply.Verdict {
	case dnscache.Pass:
		return false
	case dnscache.Hit, dnscache.Stale:
		l.reply(&from, reply.Answer)
	case dnscache.Wait, dnscache.Forward:
		from.door.binding.ending.flows.Add(1)
	case dnscache.Refuse:
		l.drop(from.door.listener, k.clients.refusal(), 1)
	}
	if reply.Flight != nil {
		k.fly(reply.Flight, from.peer.AddrPort())
	}
	return true
}

// comesBack drops a question that has been here before, and remembers by which listeners others have come.
func (k *dnsAsker) comesBack(from caller) bool {
	s := k.loop.server
	var came *link
	if s.chains.comesBack(&came, UDP, from.peer.AddrPort(), k.service.listener) {
		s.noteLoop(k.service.listener)
		k.loop.drop(k.service.listener, DropLoop, 1)
		return true
	}
	if came != nil {
		s.chains.join(k.service.chain, came)
	}
	return false
}

// fly has a flight's question asked; client is the first who waits.
func (k *dnsAsker) fly(flight *dnscache.Flight[dnsClient], client netip.AddrPort) {
	if k.count >= maxQuestions {
		k.deliver(k.resolver.Failed(flight, k.loop.now))
		return
	}
	q := k.begin(client)
	q.flight = flight
	if k.service.settings.Cache.StaleTTL > 0 {
		k.waiting.push(q)
	}
	k.ask(q)
}

// handOn gives a question at a door that admits no new client to the door that has the address now.
func (k *dnsAsker) handOn(from caller, datagram []byte, now time.Duration) (done bool) {
	heir := k.loop.heirOf(from.door)
	if heir == nil || heir.screen == nil {
		return false
	}
	return heir.screen.question(caller{heir, from.peer, from.local}, datagram, now)
}

// answer lets pass what a flow's backend answers. It is relayed untouched unless it is too large for who may not have asked. A question is
// none: two listeners that are each other's backends would send one to and fro for ever.
func (k *dnsAsker) answer(to caller, datagram []byte, _ time.Duration) (pass []byte) {
	if !isAnswer(datagram) {
		k.loop.drop(to.door.listener, DropMisdirected, 1)
		return nil
	}
	return dnscache.Truncate(datagram, k.service.settings.maxUDP())
}

// passes reports whether each datagram of a train is an answer that need not be cut.
func (k *dnsAsker) passes(train []byte, size int) bool {
	if size > k.service.settings.maxUDP() {
		return false
	}
	for ; len(train) > size; train = train[size:] {
		if !isAnswer(train[:size]) {
			return false
		}
	}
	return isAnswer(train)
}

// relayed has a question asked that no cache knows of. It reports false if it is not a plain one.
func (k *dnsAsker) relayed(from caller, datagram []byte) (done bool) {
	if !dnscache.Forwardable(datagram) {
		return false
	}
	if k.count >= maxQuestions {
		k.loop.drop(from.door.listener, DropQueueFull, 1)
		return true
	}
	if !k.clients.enter(clientOf(&from.peer), from.door.listener.spec.Load().Flows.ClientMax, k.count) {
		k.loop.drop(from.door.listener, DropClientLimit, 1)
		return true
	}
	from.door.binding.ending.flows.Add(1)
	q := k.begin(from.peer.AddrPort())
	q.client, q.query = from, append(q.query, datagram...)
	k.ask(q)
	return true
}

func (k *dnsAsker) begin(client netip.AddrPort) *dnsQuestion {
	q := k.loop.dns.take()
	q.picksFor, q.began = client, k.loop.now
	k.count++
	k.tally.inFlight.Store(int64(k.count))
	return q
}

// end forgets a question that was answered, or never will be, and that no socket has any more.
func (k *dnsAsker) end(q *dnsQuestion) {
	k.waiting.remove(q)
	k.count--
	k.tally.inFlight.Store(int64(k.count))
	k.loop.dns.give(q)
}

// ask gives a question to a backend that it has not been tried at, or ends it when there is none or retries are used
// up. If only a datagram was lost, one that was tried may know the answer: where there is no other it is asked once
// more.
func (k *dnsAsker) ask(q *dnsQuestion) {
	p := k.service.listener.spec.Load().Pool
	lost := q.lost && !q.again
	q.lost = false
	for len(q.tried) <= p.Retries() {
		lease, err := p.Pick(pool.PickContext{Client: q.picksFor, Tried: q.tried})
		if err != nil && lost {
			lost, q.again = false, true
			lease, err = p.Pick(pool.PickContext{Client: q.picksFor})
		}
		if err != nil {
			break
		}
		s, e := k.socketTo(lease.Backend())
		if e != 0 {
			lease.Release(connectOutcome(e))
			q.tried = append(q.tried, lease.Backend())
			continue
		}
		q.lease, q.sent = lease, k.loop.now
		lease.Opened()
		s.add(q)
		k.asked.push(q)
		k.tally.asked.Add(1)
		return
	}
	k.fail(q)
}

// fail ends a question that no backend has answered: clients get an expired answer, or SERVFAIL.
func (k *dnsAsker) fail(q *dnsQuestion) {
	l := k.loop
	k.tally.failed.Add(1)
	switch {
	case q.flight == nil:
		l.reply(&q.client, dnscache.AppendServFail(l.dns.answer[:0], q.query))
		k.leave(q.client.door, clientOf(&q.client.peer))
	case q.silent:
		k.deliver(k.resolver.Unanswered(q.flight, l.now))
	default:
		k.deliver(k.resolver.Failed(q.flight, l.now))
	}
	k.end(q)
}

// recall takes a question from its socket, and gives the lease back.
func (k *dnsAsker) recall(q *dnsQuestion, o pool.Outcome) {
	s := q.socket
	k.asked.remove(q)
	delete(s.pending, q.id)
	q.socket = nil
	q.lease.Release(o)
	if len(s.pending) == 0 && !s.closed && (s.retired || k.draining) {
		k.close(s)
	}
}

// elsewhere has a question asked again that its backend has failed.
func (k *dnsAsker) elsewhere(q *dnsQuestion, o pool.Outcome) {
	q.tried = append(q.tried, q.lease.Backend())
	k.recall(q, o)
	k.ask(q)
}

// take looks at what a backend has sent, and gives the answer to those who wait if it is one.
func (k *dnsAsker) take(s *dnsSocket, datagram []byte) {
	l := k.loop
	var q *dnsQuestion
	if len(datagram) >= dnsHeaderBytes {
		q = s.pending[binary.BigEndian.Uint16(datagram)]
	}
	if q == nil || q.unsent { // nobody has been asked yet who could answer
		k.mismatch(s, datagram)
		return
	}
	if q.flight != nil {
		answers, ok := k.resolver.Answered(q.flight, q.id, datagram, l.now)
		if !ok {
			k.mismatch(s, datagram)
			return
		}
		k.deliver(answers)
	} else {
		if !dnscache.SameQuestion(q.query, datagram) {
			k.mismatch(s, datagram)
			return
		}
		copy(datagram, q.query[:2]) // the client's id
		l.reply(&q.client, dnscache.Truncate(datagram, k.service.settings.maxUDP()))
		k.leave(q.client.door, clientOf(&q.client.peer))
	}
	s.heard = l.now
	took := l.now - q.sent
	q.lease.FirstByteTook(took)
	q.lease.Backend().AddBytes(uint64(q.bytes), uint64(len(datagram)))
	k.service.listener.counters[l.index].firstByteTime.observe(took)
	k.tally.answered.Add(1)
	k.recall(q, pool.Served)
	k.end(q)
}

// leave takes note that a client of a door waits no more.
func (k *dnsAsker) leave(d *flowDoor, id clientID) {
	k.clients.leave(id)
	if d.binding.ending.flows.Add(-1) == 0 && d.draining {
		k.loop.server.endIfEmpty(d.binding)
	}
}

// due is when onTime has something to do next; false for never.
func (k *dnsAsker) due() (time.Duration, bool) {
	at, some := k.sweepAt, k.sweepAt != 0
	until := func(moment time.Duration) {
		if !some || moment < at {
			at, some = moment, true
		}
	}
	if q := k.asked.first; q != nil {
		until(q.sent + k.service.settings.timeout())
	}
	if q := k.waiting.first; q != nil {
		until(q.began + dnsPatience)
	}
	if len(k.connecting) > 0 {
		until(k.connecting[0].born + k.service.listener.spec.Load().Pool.ConnectTimeout())
	}
	return at, some
}

// onTime does what is due.
func (k *dnsAsker) onTime() {
	now := k.loop.now
	for q := k.waiting.first; q != nil && now >= q.began+dnsPatience; q = k.waiting.first {
		k.waiting.remove(q)
		k.deliver(k.resolver.Late(q.flight, now))
	}
	timeout := k.service.settings.timeout()
	for q := k.asked.first; q != nil && now >= q.sent+timeout; q = k.asked.first {
		k.tally.timedOut.Add(1)
		q.silent, q.lost = true, q.socket.stream == nil
		k.leaveSilent(q)
		k.elsewhere(q, unanswered(q))
	}
	k.giveUpStreams()
	if k.sweepAt != 0 && now >= k.sweepAt {
		k.sweep()
	}
}

// leaveBackend has the questions at a backend asked elsewhere, which says nothing about it.
func (k *dnsAsker) leaveBackend(b *pool.Backend) {
	r := k.routes[b]
	if r == nil {
		return
	}
	for _, s := range slices.Concat(r.sockets, r.retired) {
		k.close(s)
		for _, q := range s.pending {
			k.recall(q, pool.Neutral)
			k.ask(q)
		}
	}
}

// failAll ends all questions as if no backend had answered.
func (k *dnsAsker) failAll() {
	for q := k.asked.first; q != nil; q = k.asked.first {
		k.recall(q, pool.Neutral)
		k.fail(q)
	}
}

// drain takes note that the listener has another service or is gone: the sockets are closed as soon as they have no question.
func (k *dnsAsker) drain() {
	k.draining = true
	if w := &k.loop.dns; w.talkers[k.service.listener] == k {
		delete(w.talkers, k.service.listener)
	}
	for _, r := range k.routes {
		for _, s := range slices.Clone(r.sockets) {
			if len(s.pending) == 0 {
				k.close(s)
			}
		}
	}
}

// abandon gives back all that is left when the loop ends.
func (k *dnsAsker) abandon() {
	for q := k.asked.first; q != nil; q = k.asked.first {
		k.recall(q, pool.Neutral)
		k.end(q)
	}
	for _, r := range k.routes {
		for _, s := range slices.Concat(r.sockets, r.retired) {
			k.close(s)
		}
	}
}
