package dns

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/dns/dnscache"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// A forwarder is one loop's part of a Service. It is the filter of the service's UDP sockets: it answers clients from
// the cache, and asks backends what the cache does not know. But for its counts it is used onLoop only.
//
// Invariant: each client that waits for an answer holds its binding's Ending, so its socket is open until it has it.
type forwarder struct {
	// set once, then read-only
	loop     *Loop
	service  *Service
	resolver *dnscache.Resolver[client] // nil without a cache

	counts counts

	routes     map[*pool.Backend]*route
	asked      list            // all questions that a socket has
	waiting    list            // those whose clients get an expired answer if they have waited long enough
	count      int             // questions
	questions  *gate.Questions // where they come in
	refused    gate.Reason     // why the gate has refused the last question that the cache says Refuse of
	sessions   int             // whose questions come here
	connecting []*socket       // connections that are being made, the oldest first
	sweepAt    time.Duration   // zero while there is no socket
	draining   bool            // the listener has another service, or is gone
}

// patience is how long clients wait for an answer if there is an expired one (RFC 8767, 5).
const patience = 1800 * time.Millisecond

func newForwarder(l *Loop, service *Service) *forwarder {
	f := &forwarder{
		loop: l, service: service, routes: make(map[*pool.Backend]*route), waiting: list{order: byBegun},
		questions: service.listener.NewQuestions(),
	}
	if service.cache != nil {
		f.resolver = service.cache.NewResolver()
		f.resolver.Admit = f.admitWaiting
	}
	return f
}

func (f *forwarder) counters() *tally.Counters { return &f.service.listener.Counters[f.loop.Index] }

// drop counts a datagram of a client that gets no answer.
func (f *forwarder) drop(why tally.Drop) { f.counters().Drop(why, 1) }

// Question implements flow.Filter: it answers a client's question from the cache, or forwards it.
func (f *forwarder) Question(from flow.Sender, datagram []byte, now time.Duration) (done bool) {
	if !wire.IsDNSQuestion(datagram) {
		f.drop(tally.DropMisdirected)
		return true
	}
	if from.Socket().Draining() {
		return f.handOn(from, datagram, now)
	}
	if !f.questions.Open() && !f.admit(&from, datagram) {
		return true
	}
	if f.resolver == nil {
		return f.relay(from, datagram)
	}
	l := f.loop
	reply := f.resolver.Ask(datagram, dnscache.UDP, client{forwarder: f, from: from}, now, l.answer[:0])
	switch reply.Verdict {
	case dnscache.Pass:
		return false
	case dnscache.Hit, dnscache.Stale:
		l.flows.Reply(&from, reply.Answer)
	case dnscache.Wait, dnscache.Forward:
		from.Socket().Binding().Ending.Hold()
	case dnscache.Refuse:
		why := gate.QuestionsFull
		if f.refused != gate.Admitted {
			why, f.refused = f.refused, gate.Admitted
		}
		f.drop(why.Drops())
	}
	if reply.Flight != nil {
		f.fly(reply.Flight, from.Client().Addr)
	}
	return true
}

// admit asks the gate for a client's question. It counts the datagram of one that is refused, which may be told so, and
// remembers by which listeners of ours one that is admitted has come.
func (f *forwarder) admit(from *flow.Sender, question []byte) bool {
	c := from.Client()
	if why := f.questions.Admit(&c, f.loop.Now); why != gate.Admitted {
		f.drop(why.Drops())
		if (why == gate.ClientOften || why == gate.Often) && f.questions.Tells() {
			f.loop.flows.Reply(from, wire.AppendDNSError(f.loop.answer[:0], question, &tooOften))
		}
		return false
	}
	if c.From != nil {
		f.loop.dialer.Chains().Join(f.service.chain, c.From)
	}
	return true
}

// tooOften is what a client is told whose question comes sooner than it may.
var tooOften = wire.DNSError{Code: wire.DNSRefused, Extended: wire.DNSOther, Text: "too many questions"}

// admitWaiting asks the gate for a client that is to wait for an answer; see dnscache.Resolver.Admit.
func (f *forwarder) admitWaiting(who client) (client, bool) {
	waiting := f.service.cache.Waiting()
	if who.byTCP {
		s, _ := who.session.Get()
		who.id = f.questions.ID(s.Client().Addr().As16())
		f.refused = f.questions.WaitOfSession(who.id, waiting)
	} else {
		who.id = f.questions.ID(who.from.Addr16())
		f.refused = f.questions.Wait(who.id, waiting)
	}
	return who, f.refused == gate.Admitted
}

// fly forwards a flight's question; client is the first who waits.
func (f *forwarder) fly(flight *dnscache.Flight[client], client netip.AddrPort) {
	if f.count >= gate.MaxQuestions {
		f.deliver(f.resolver.Failed(flight, f.loop.Now))
		return
	}
	q := f.begin(client)
	q.flight = flight
	if f.service.settings.Cache.StaleTTL > 0 {
		f.waiting.push(q)
	}
	f.ask(q)
}

// handOn gives a question at a socket that admits no new client to the socket that has the address now.
func (f *forwarder) handOn(from flow.Sender, datagram []byte, now time.Duration) (done bool) {
	successor := f.loop.flows.SuccessorOf(from.Socket())
	if successor == nil || successor.Filter() == nil {
		return false
	}
	return successor.Filter().Question(from.At(successor), datagram, now)
}

// Answer implements flow.Filter. An answer of a flow's backend is relayed untouched, unless it is too large for a
// client that may not have asked. A question is dropped: two listeners that are each other's backends would send one to
// and fro for ever.
func (f *forwarder) Answer(_ flow.Sender, datagram []byte, _ time.Duration) (pass []byte) {
	if !wire.IsDNSAnswer(datagram) {
		f.drop(tally.DropMisdirected)
		return nil
	}
	return dnscache.Truncate(datagram, f.service.settings.maxUDP())
}

// Passes implements flow.Filter: each datagram of the train is an answer that need not be cut.
func (f *forwarder) Passes(train []byte, size int) bool {
	if size > f.service.settings.maxUDP() {
		return false
	}
	for ; len(train) > size; train = train[size:] {
		if !wire.IsDNSAnswer(train[:size]) {
			return false
		}
	}
	return wire.IsDNSAnswer(train)
}

// relay forwards a question without a cache. It reports false if the question is not a plain one.
func (f *forwarder) relay(from flow.Sender, datagram []byte) (done bool) {
	if !dnscache.Forwardable(datagram) {
		return false
	}
	if f.count >= gate.MaxQuestions {
		f.drop(gate.QuestionsFull.Drops())
		return true
	}
	id := f.questions.ID(from.Addr16())
	if why := f.questions.Wait(id, f.count); why != gate.Admitted {
		f.drop(why.Drops())
		return true
	}
	from.Socket().Binding().Ending.Hold()
	q := f.begin(from.Client().Addr)
	q.client, q.as, q.query = from, id, append(q.query, datagram...)
	f.ask(q)
	return true
}

func (f *forwarder) begin(client netip.AddrPort) *question {
	q := f.loop.take()
	q.picksFor, q.began = client, f.loop.Now
	f.count++
	f.counts.inFlight.Store(int64(f.count))
	return q
}

// end forgets a question that was answered, or never will be, and that no socket has any more.
func (f *forwarder) end(q *question) {
	f.waiting.remove(q)
	f.count--
	f.counts.inFlight.Store(int64(f.count))
	f.loop.give(q)
}

// ask gives a question to a backend that it has not been tried at. It ends the question when there is none, or retries
// are used up. If only a datagram was lost, a backend that was tried may know the answer: where there is no other, it
// is asked once more.
func (f *forwarder) ask(q *question) {
	p := f.service.pool()
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
		s, e := f.socketTo(lease.Backend())
		if e != 0 {
			lease.Release(dial.Outcome(e))
			q.tried = append(q.tried, lease.Backend())
			continue
		}
		q.lease, q.sent = lease, f.loop.Now
		lease.Opened()
		s.add(q)
		f.asked.push(q)
		f.counts.asked.Add(1)
		return
	}
	f.fail(q)
}

// fail ends a question that no backend has answered: clients get an expired answer, or SERVFAIL.
func (f *forwarder) fail(q *question) {
	l := f.loop
	f.counts.failed.Add(1)
	switch {
	case q.flight == nil:
		answer := dnscache.AppendServFail(l.answer[:0], q.query)
		l.flows.Reply(&q.client, wire.AddDNSError(answer, q.query, f.service.unanswered()))
		f.leave(&q.client, q.as)
	case q.silent:
		f.deliver(f.resolver.Unanswered(q.flight, l.Now))
	default:
		f.deliver(f.resolver.Failed(q.flight, l.Now))
	}
	f.end(q)
}

// recall takes a question from its socket, and gives the lease back.
func (f *forwarder) recall(q *question, o pool.Outcome) {
	s := q.socket
	f.asked.remove(q)
	delete(s.pending, q.id)
	q.socket = nil
	q.lease.Release(o)
	if len(s.pending) == 0 && !s.closed && (s.retired || f.draining) {
		f.close(s)
	}
}

// elsewhere retries a question on another backend.
func (f *forwarder) elsewhere(q *question, o pool.Outcome) {
	q.tried = append(q.tried, q.lease.Backend())
	f.recall(q, o)
	f.ask(q)
}

// take looks at what a backend has sent. If it is an answer, those who wait get it.
func (f *forwarder) take(s *socket, datagram []byte) {
	l := f.loop
	var q *question
	if len(datagram) >= wire.DNSHeaderBytes {
		q = s.pending[binary.BigEndian.Uint16(datagram)]
	}
	if q == nil || q.unsent { // nobody has been asked yet who could answer
		f.mismatch(s, datagram)
		return
	}
	if q.flight != nil {
		answers, ok := f.resolver.Answered(q.flight, q.id, datagram, l.Now)
		if !ok {
			f.mismatch(s, datagram)
			return
		}
		f.deliver(answers)
	} else {
		if !dnscache.SameQuestion(q.query, datagram) {
			f.mismatch(s, datagram)
			return
		}
		copy(datagram, q.query[:2]) // the client's id
		l.flows.Reply(&q.client, dnscache.Truncate(datagram, f.service.settings.maxUDP()))
		f.leave(&q.client, q.as)
	}
	s.heard = l.Now
	took := l.Now - q.sent
	q.lease.FirstByteTook(took, l.Index)
	q.lease.Backend().AddBytes(uint64(q.bytes), uint64(len(datagram)))
	f.counters().FirstByteTime.Observe(took)
	f.counts.answered.Add(1)
	f.recall(q, pool.Served)
	f.end(q)
}

// leave says that the client of a question does not wait any more.
func (f *forwarder) leave(from *flow.Sender, as gate.ClientID) {
	f.questions.Leave(as)
	from.Socket().Binding().Ending.Release()
}

// due is when onTime has something to do next; false for never.
func (f *forwarder) due() (time.Duration, bool) {
	at, some := f.sweepAt, f.sweepAt != 0
	until := func(moment time.Duration) {
		if !some || moment < at {
			at, some = moment, true
		}
	}
	if q := f.asked.first; q != nil {
		until(q.sent + f.service.settings.timeout())
	}
	if q := f.waiting.first; q != nil {
		until(q.began + patience)
	}
	if len(f.connecting) > 0 {
		until(f.connecting[0].born + f.service.pool().ConnectTimeout())
	}
	return at, some
}

// onTime does what is due.
func (f *forwarder) onTime() {
	now := f.loop.Now
	for q := f.waiting.first; q != nil && now >= q.began+patience; q = f.waiting.first {
		f.waiting.remove(q)
		f.deliver(f.resolver.Late(q.flight, now))
	}
	timeout := f.service.settings.timeout()
	for q := f.asked.first; q != nil && now >= q.sent+timeout; q = f.asked.first {
		f.counts.timedOut.Add(1)
		q.silent, q.lost = true, q.socket.stream == nil
		f.leaveSilent(q)
		f.elsewhere(q, unanswered(q))
	}
	f.giveUpStreams()
	if f.sweepAt != 0 && now >= f.sweepAt {
		f.sweep()
	}
}

// leaveBackend retries the questions at a backend elsewhere, which says nothing about it.
func (f *forwarder) leaveBackend(b *pool.Backend) {
	r := f.routes[b]
	if r == nil {
		return
	}
	for _, s := range slices.Concat(r.sockets, r.retired) {
		f.close(s)
		for _, q := range s.pending {
			f.recall(q, pool.Neutral)
			f.ask(q)
		}
	}
}

// failAll ends all questions as if no backend had answered.
func (f *forwarder) failAll() {
	for q := f.asked.first; q != nil; q = f.asked.first {
		f.recall(q, pool.Neutral)
		f.fail(q)
	}
}

// drain says that the listener has another service or is gone: the sockets are closed as soon as they have no question.
func (f *forwarder) drain() {
	f.draining = true
	if l := f.loop; l.talkers[f.service.listener] == f {
		delete(l.talkers, f.service.listener)
	}
	for _, r := range f.routes {
		for _, s := range slices.Clone(r.sockets) {
			if len(s.pending) == 0 {
				f.close(s)
			}
		}
	}
}

// abandon gives back all that is left when the loop ends.
func (f *forwarder) abandon() {
	for q := f.asked.first; q != nil; q = f.asked.first {
		f.recall(q, pool.Neutral)
		f.end(q)
	}
	for _, r := range f.routes {
		for _, s := range slices.Concat(r.sockets, r.retired) {
			f.close(s)
		}
	}
}
