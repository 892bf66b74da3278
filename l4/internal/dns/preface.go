package dns

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dns/dnscache"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// A preface answers the DNS questions of a session's client, from the cache or by asking backends on its behalf. At the
// first question that is not plain it passes the session on, to a backend. Its memory is used again for a later one.
//
// At rest, nothing read in part and nothing to be sent, it holds no buffer, and its session one descriptor.
type preface struct {
	loop      *Loop
	forwarder *forwarder // of the next question
	in        inbox
	out       outbox
	held      heldAnswers // that follow when out has room
	waiting   int         // questions without an answer
	passing   bool        // the first message in the inbox is not plain: it goes to a backend when nothing waits any more
	asked     bool        // the question that the session has come in for
	inLine    bool        // stands in Loop.ready
	overrun   bool        // it was to hold more answers than may be held, and ends
	end       session.Step
}

const (
	// maxPipelined is how many questions of a client wait for answers at once, or to be sent theirs; then no more are
	// read. Resolvers pipeline some dozens.
	maxPipelined = 100

	// maxOutbox is how many bytes of answers are written before they are sent. While the client does not take them
	// nothing more is read, and further answers are held.
	maxOutbox = 32 << 10

	// turnReads bounds the reads of a client before others have their turn, and turnBytes what it is sent.
	turnReads = 4
	turnBytes = 128 << 10

	// defaultSilence is how long a client without a question is kept if the listener has no idle_timeout: RFC 7766,
	// 6.2.3 advises a few seconds, and stub resolvers come back within that or not at all.
	defaultSilence = 10 * time.Second

	// maxFreePrefaces is how many prefaces' memory a loop keeps.
	maxFreePrefaces = 4096
)

// Open implements session.Opener. There is no preface if the listener answers no questions any more.
func (s *Service) Open(on *session.Loop, client *session.Session) session.Preface {
	l := s.forwarders[on.Index].loop
	f := l.talkers[s.listener]
	if f == nil {
		return nil
	}
	t := l.freePrefaces.Take()
	t.loop, t.forwarder = l, f
	f.sessions++
	if came := client.Came(); came != nil {
		l.dialer.Chains().Join(f.service.chain, came)
	}
	return t
}

// Phase implements session.Preface.
func (t *preface) Phase() string { return "asking" }

// Release implements session.Preface. Answers that come yet are for nobody.
func (t *preface) Release(*session.Session) {
	l := t.loop
	t.forwarder.sessions--
	t.in.Release(&l.Buffers)
	t.out.Release(&l.Buffers)
	t.held.release()
	*t = preface{}
	l.freePrefaces.GiveUpTo(maxFreePrefaces, t)
}

// Step implements session.Preface.
func (t *preface) Step(s *session.Session, why session.Cause) session.Step {
	switch why {
	case session.Begun:
		return session.More(s.Active() + silence(s))
	case session.Expired:
		return t.onSilence(s)
	}
	if e, broken := s.Broken(); broken {
		return session.Lost(s, e)
	}
	t.later(s)
	return session.More(0)
}

// later serves the session at the end of this turn of the loop: by then all answers that the turn has brought are
// together.
func (t *preface) later(s *session.Session) {
	if !t.inLine {
		t.inLine = true
		t.loop.ready = append(t.loop.ready, s.Ref())
	}
}

// serveReady serves the sessions in line, once each.
func (l *Loop) serveReady() {
	line := l.ready
	for _, r := range line {
		s, alive := r.Get()
		if !alive {
			continue
		}
		if t, ok := s.Preface().(*preface); ok {
			t.inLine = false
			l.sessions.Proceed(s, t.serve(s))
		}
	}
	l.ready = l.ready[:copy(l.ready, l.ready[len(line):])]
}

// whole reports whether all that was answered has been sent.
func (t *preface) whole() bool { return t.out.Size()+t.held.size() == 0 }

// serve sends the answers there are, and reads and asks as long as there is something to read and room for answers.
func (t *preface) serve(s *session.Session) session.Step {
	if t.overrun {
		return session.End(tally.NotReading, false)
	}
	sent := 0
	for reads := 0; ; {
		t.writeHeld()
		if t.out.Size() < maxOutbox && !t.askAll(s) {
			return t.end
		}
		n, ok := t.send(s)
		if !ok {
			return t.end
		}
		sent += n
		_, more := t.in.first()
		switch {
		case t.out.Size() > 0:
			return session.More(0) // there is an event when there is room
		case sent >= turnBytes:
			t.later(s)
			return session.More(0)
		case t.held.size() > 0:
			continue
		case t.waiting >= maxPipelined:
			return session.More(0) // an answer will come
		case t.passing:
			if t.waiting > 0 {
				return session.More(0)
			}
			t.loop.sessions.Prefill(s, &t.in.ByteQueue, true)
			return session.PassOn(session.Pass{})
		case more:
			continue // there were too many answers to ask it
		case s.Ended():
			if t.waiting > 0 {
				return session.More(0)
			}
			return session.End(tally.ClientClosed, t.whole())
		case !s.Readable():
			return session.More(0)
		case reads == turnReads:
			t.later(s)
			return session.More(0)
		}
		reads++
		n, e := t.loop.sessions.Read(s)
		if e != 0 && e != sock.Again {
			return session.Lost(s, e)
		}
		if n > 0 {
			t.in.Append(&t.loop.Buffers, t.loop.Scratch[:n])
		}
	}
}

// askAll asks what was read, as far as answers may wait. It reports false when the session is to end, as t.end says.
func (t *preface) askAll(s *session.Session) bool {
	for t.waiting+t.held.size() < maxPipelined && t.out.Size() < maxOutbox && !t.passing {
		message, whole := t.in.first()
		switch {
		case !whole:
			return true
		case !wire.IsDNSQuestion(message):
			if _, ok := t.send(s); ok {
				t.end = session.End(tally.Malformed, t.whole())
			}
			return false
		}
		s.SetActive(t.loop.Now)
		if t.forwarder.draining {
			t.changeForwarder()
		}
		if t.passing = !t.ask(s, message); !t.passing {
			t.in.skip(&t.loop.Buffers, message)
		}
	}
	return true
}

// changeForwarder gives the session's questions to the forwarder that its listener has now, if there is one.
func (t *preface) changeForwarder() {
	if successor := t.loop.talkers[t.forwarder.service.listener]; successor != nil {
		t.forwarder.sessions--
		t.forwarder = successor
		successor.sessions++
	}
}

// send sends the answers there are, as far as the client takes them, and returns how many bytes that were. It reports
// false when the session is to end, as t.end says.
func (t *preface) send(s *session.Session) (n int, ok bool) {
	if t.out.Size() == 0 || !s.Writable() {
		return 0, true
	}
	n, e := t.loop.sessions.Write(s, t.out.Bytes())
	if n > 0 {
		t.out.Done(&t.loop.Buffers, n)
	}
	if e != 0 && e != sock.Again {
		t.end = session.Lost(s, e)
		return n, false
	}
	return n, true
}

// ask answers a question from the cache, or forwards it. It reports false, and does nothing, if the question is not
// plain.
func (t *preface) ask(s *session.Session, query []byte) (plain bool) {
	f, l := t.forwarder, t.loop
	if t.asked && f.questions.AdmitOfSession(s.Client().Addr(), l.Now) != gate.Admitted {
		t.out.add(&l.Buffers, wire.AppendDNSError(l.answer[:0], query, &tooOften))
		return true
	}
	t.asked = true
	who := client{forwarder: f, byTCP: true, session: s.Ref()}
	reply := f.resolver.Ask(query, dnscache.TCP, who, l.Now, l.answer[:0])
	switch reply.Verdict {
	case dnscache.Pass:
		return false
	case dnscache.Hit, dnscache.Stale:
		t.out.add(&l.Buffers, reply.Answer)
	case dnscache.Wait, dnscache.Forward:
		t.waiting++
	case dnscache.Refuse: // unlike a datagram's client it would wait for an answer for good
		answer := dnscache.AppendServFail(l.answer[:0], query)
		t.out.add(&l.Buffers, wire.AddDNSError(answer, query, &f.service.crowded))
	}
	if reply.Flight != nil {
		f.fly(reply.Flight, s.Client())
	}
	return true
}

// silence is how long a session's client may ask nothing, or take no answer.
func silence(s *session.Session) time.Duration {
	if t := s.Settings().IdleTimeout; t > 0 {
		return t
	}
	return defaultSilence
}

// onSilence ends a session whose client has been silent. A question in part is no question. A client whose question
// waits for its answer is not silent.
func (t *preface) onSilence(s *session.Session) session.Step {
	limit := silence(s)
	switch now := t.loop.Now; {
	case now < s.Active()+limit:
		return session.More(s.Active() + limit)
	case t.waiting > 0:
		return session.More(now + limit)
	}
	return session.End(tally.Idle, t.whole())
}

// Cut implements session.Preface: what there is for the client is sent.
func (t *preface) Cut(s *session.Session) (whole bool) {
	_, ok := t.send(s)
	return ok && t.whole()
}
