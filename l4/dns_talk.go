package l4

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dnscache"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A dnsTalk is what a session has besides while its phase is asking: its client's DNS questions are answered from the cache, or
// by backends that are asked on its behalf. With the first question that is not plain it becomes a session like any other, see
// handOver. It belongs to one loop; its memory is used again for a later talk.
//
// At rest, nothing read in part and nothing to be sent, it holds no buffer, and its session one descriptor.
type dnsTalk struct {
	asker   *dnsAsker // that of the next question
	in      dnsInbox
	out     dnsOutbox
	held    heldAnswers // that follow when out has room
	waiting int         // questions without an answer
	passing bool        // the first message in in is not plain: it is to go to a backend when nothing waits any more
	inLine  bool        // stands in dnsLoop.talking
	overrun bool        // it was to hold more than may be held, and ends
}

const (
	// maxTalkQuestions is how many questions of a client wait for answers at once, or to be sent theirs; then no more
	// are read. Resolvers pipeline some dozens.
	maxTalkQuestions = 100

	// maxTalkBytes is how many bytes of answers are written before they are sent. While the client does not take them
	// nothing more is read, and further answers are held.
	maxTalkBytes = 32 << 10

	// talkTurnReads bounds what a client has done before others have their turn, and talkTurnBytes what it is sent.
	talkTurnReads = 4
	talkTurnBytes = 128 << 10

	// talkSilence is how long a client without a question is kept if the listener has no idle_timeout: RFC 7766, 6.2.3 advises a few
	// seconds, and stub resolvers come back within that or not at all.
	talkSilence = 10 * time.Second

	// spareTalks is how many talks' memory a loop keeps.
	spareTalks = 4096
)

// beginTalk has a session's client asked what it wants. It reports false if the listener answers no questions any more.
func (l *loop) beginTalk(s *session) bool {
	k := l.dns.talkers[s.listener]
	if k == nil {
		return false
	}
	s.phase, s.talk = asking, l.dns.freeTalks.take()
	s.talk.asker = k
	k.talks++
	if s.link != nil {
		l.server.chains.join(k.service.chain, s.link)
	}
	if !l.watchClient(s) {
		l.refuse(s, NoDescriptors)
		return true
	}
	l.schedule(s)
	return true
}

// endTalk gives back what a session's talk holds. Answers that come yet are for nobody.
func (l *loop) endTalk(s *session) {
	t := s.talk
	s.talk = nil
	t.asker.talks--
	t.in.release(l)
	t.out.release(l)
	t.held.release()
	*t = dnsTalk{}
	l.dns.freeTalks.giveUpTo(spareTalks, t)
}

// onTalk handles an event of a client that asks.
func (l *loop) onTalk(s *session, bits uint32) {
	if bits&sock.PollError != 0 {
		l.talkLost(s, sock.ConnectError(int(s.client.fd)))
		return
	}
	l.talkLater(s)
}

// talkLater has a talk looked at in the end of this turn of the loop: by then all answers that the turn has brought are together.
func (l *loop) talkLater(s *session) {
	if !s.talk.inLine {
		s.talk.inLine = true
		l.dns.talking = append(l.dns.talking, turn{s, s.generation})
	}
}

// talkTurns looks at the talks in line, once each.
func (l *loop) talkTurns() {
	line := l.dns.talking
	for i := range line {
		s := line[i].session
		if s.generation == line[i].generation && s.phase == asking {
			s.talk.inLine = false
			l.talkOn(s)
		}
	}
	l.dns.talking = l.dns.talking[:copy(l.dns.talking, l.dns.talking[len(line):])]
}

// talkOn sends the answers there are, and reads and asks as long as there is something to read and room for answers.
func (l *loop) talkOn(s *session) {
	t := s.talk
	if t.overrun {
		l.hangUp(s, NotReading)
		return
	}
	before := s.out.bytes
	for reads := 0; ; {
		l.writeHeld(t)
		if t.out.size() < maxTalkBytes && !l.askAll(s) || !l.sendTalk(s) {
			return
		}
		_, more := t.in.first()
		switch {
		case t.out.size() > 0:
			return // there is an event when there is room
		case s.out.bytes-before >= talkTurnBytes:
			l.talkLater(s)
			return
		case t.held.size() > 0:
			continue
		case t.waiting >= maxTalkQuestions:
			return // an answer will come
		case t.passing:
			if t.waiting == 0 {
				l.handOver(s)
			}
			return
		case more:
			continue // there were too many answers to ask it
		case s.in.ended:
			if t.waiting == 0 {
				l.hangUp(s, ClientClosed)
			}
			return
		case !s.client.readable:
			return
		case reads == talkTurnReads:
			l.talkLater(s)
			return
		}
		reads++
		if !l.readTalk(s) {
			return
		}
	}
}

// readTalk reads once. It reports false when the session has ended.
func (l *loop) readTalk(s *session) bool {
	c := &s.client
	n, e := s.talk.in.read(l, int(c.fd))
	switch {
	case e == sock.Again:
		c.readable, c.urgent = false, false
		return true
	case e != 0:
		l.talkLost(s, e)
		return false
	case n == 0:
		s.endOf(&s.in, l.now)
		return true
	case n < len(l.scratch) && !c.urgent: // see copyOnce
		c.readable = false
		if c.peerDone {
			s.endOf(&s.in, l.now)
		}
	}
	s.in.bytes += uint64(n)
	return true
}

// askAll asks what was read, as far as answers may wait. It reports false when the session has ended.
func (l *loop) askAll(s *session) bool {
	t := s.talk
	for t.waiting+t.held.size() < maxTalkQuestions && t.out.size() < maxTalkBytes && !t.passing {
		message, whole := t.in.first()
		switch {
		case !whole:
			return true
		case !isQuestion(message):
			if l.sendTalk(s) {
				l.hangUp(s, Malformed)
			}
			return false
		}
		s.active = l.now
		if t.asker.draining {
			l.changeAsker(s)
		}
		if t.passing = !t.asker.questionOf(s, message); !t.passing {
			t.in.skip(l, message)
		}
	}
	return true
}

// changeAsker has a session's questions go to the asker that its listener has now, if there is one.
func (l *loop) changeAsker(s *session) {
	if heir := l.dns.talkers[s.listener]; heir != nil {
		s.talk.asker.talks--
		s.talk.asker = heir
		heir.talks++
	}
}

// sendTalk sends the answers there are, as far as the client takes them. It reports false when the session has ended.
func (l *loop) sendTalk(s *session) bool {
	t := s.talk
	if t.out.size() == 0 || !s.client.writable {
		return true
	}
	n, e := t.out.send(l, int(s.client.fd))
	if n > 0 {
		s.active = l.now
		s.out.bytes += uint64(n)
	}
	if e == sock.Again {
		s.client.writable = false
		return true
	}
	if e != 0 {
		l.talkLost(s, e)
		return false
	}
	return true
}

// questionOf answers a session's question or has it asked. It reports false, and does nothing, if it is not a plain one.
func (k *dnsAsker) questionOf(s *session, query []byte) (plain bool) {
	l := k.loop
	reply := k.resolver.Ask(query, dnscache.TCP, dnsClient{asker: k, session: s, generation: s.generation}, l.now, l.dns.answer[:0])
	switch reply.Verdict {
	case dnscache.Pass:
		return false
	case dnscache.Hit, dnscache.Stale:
		s.talk.out.add(l, reply.Answer)
	case dnscache.Wait, dnscache.Forward:
		s.talk.waiting++
	case dnscache.Refuse: // unlike a datagram's client it would wait for an answer for good
		s.talk.out.add(l, dnscache.AppendServFail(l.dns.answer[:0], query))
	}
	if reply.Flight != nil {
		k.fly(reply.Flight, s.peer)
	}
	return true
}

// handOver makes a session one like any other, whose backend gets the question that is not plain and what has come behind it.
func (l *loop) handOver(s *session) {
	l.tell(s)
	l.prefill(s, &s.talk.in.streamBuffer, true)
	l.endTalk(s)
	s.phase = connecting
	l.connect(s)
}

// talkSilence is how long the session's client may ask nothing, or take no answer.
func (s *session) talkSilence() time.Duration {
	if t := s.settings.IdleTimeout; t > 0 {
		return t
	}
	return talkSilence
}

// onTalkTimer ends a session whose client has been silent. A question in part is no question; one that waits for its answer does not make
// the client silent.
func (l *loop) onTalkTimer(s *session) {
	silence := s.talkSilence()
	switch {
	case l.now < s.active+silence:
		l.schedule(s)
	case s.talk.waiting > 0:
		l.wheel.arm(&s.timer, int64((l.now+silence)/tick))
	default:
		l.hangUp(s, Idle)
	}
}

// talkLost ends a session whose client is gone; e says how, and is zero if nobody knows.
func (l *loop) talkLost(s *session, e sock.Errno) {
	s.cause = e
	if e == 0 || e == sock.ConnReset || e == sock.BrokenPipe {
		l.hangUp(s, ClientReset)
	} else {
		l.hangUp(s, ClientLost)
	}
}

// cutTalk ends a session for a reason that is not its client's; what there is for the client is sent.
func (l *loop) cutTalk(s *session, why Reason) {
	if l.sendTalk(s) {
		l.hangUp(s, why)
	}
}

// hangUp ends a session that asks. All that was answered is whole, so that a drain is an orderly end to it.
func (l *loop) hangUp(s *session, why Reason) {
	s.client.close(why.abrupt() && why != Drained || s.talk.out.size()+s.talk.held.size() > 0)
	l.tell(s)
	l.forget(s, why)
}
