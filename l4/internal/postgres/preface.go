package postgres

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// Settings say what a listener does with what clients of Postgres begin with.
type Settings struct {
	Timeout time.Duration // from when the preface begins until the client has begun a session; above 0

	// TLS says that the preface that follows does a TLS handshake. Required refuses clients that begin a session without
	// TLS. A client that may do so leaves out so many of the prefaces that follow.
	TLS, Required bool
	Omit          int

	// Encrypts reports whether connections to a pool's backends are encrypted in the way of Postgres. Then the clients'
	// requests for encryption are answered here, since the backends must not get them. Nil is never.
	Encrypts func(*pool.Pool) bool
}

// An Opener is a session.Opener of prefaces that read what clients of Postgres begin with. It may stand a second time
// behind TLS, where it gets what the clients send encrypted.
type Opener struct {
	// set once, then read-only
	service *Service
	Settings

	free []loop.FreeList[preface] // by the loop's index, each used on its loop only
}

// Opener returns what opens prefaces on so many loops.
func (s *Service) Opener(settings Settings, loops int) *Opener {
	return &Opener{service: s, Settings: settings, free: make([]loop.FreeList[preface], loops)}
}

// maxFreePrefaces is how many prefaces' memory a loop keeps.
const maxFreePrefaces = 4096

// Open implements session.Opener.
func (o *Opener) Open(l *session.Loop, _ *session.Session) session.Preface {
	t := o.free[l.Index].Take()
	t.Opener, t.loop = o, l
	return t
}

// A preface reads what one client begins with. In a socket it is peeked at, so that a client that keeps the preface
// waiting costs this struct and a timer.
type preface struct {
	*Opener
	loop     *session.Loop
	in       loop.ByteQueue // read, and not understood yet; of clients that cannot be peeked at
	until    time.Duration  // the deadline that Step has not named yet; 0 = there is no new one
	ssl, gss bool           // asked for
	asleep   bool           // until more bytes are there
	sending  bool           // the client's cancel
}

// peekBytes is how much of a client is looked at: the longest message that is waited for.
const peekBytes = 10_000

// The SQLSTATEs of refusals (PostgreSQL documentation, appendix A).
const (
	invalidAuthorization = "28000" // as a server whose pg_hba.conf wants TLS
	protocolViolation    = "08P01"
)

// Phase implements session.Preface.
func (t *preface) Phase() string {
	if t.sending {
		return "cancelling"
	}
	return "starting"
}

// Cut implements session.Preface. All that a client is owed is the end.
func (t *preface) Cut(*session.Session) (whole bool) { return true }

// Release implements session.Preface.
func (t *preface) Release(s *session.Session) {
	l := t.loop
	if t.asleep {
		l.Wake(s)
	}
	t.in.Release(&l.Buffers)
	free := &t.free[l.Index]
	*t = preface{}
	free.GiveUpTo(maxFreePrefaces, t)
}

// Step implements session.Preface.
func (t *preface) Step(s *session.Session, why session.Cause) session.Step {
	if why == session.Begun {
		t.until = t.loop.Now + t.Timeout
	}
	e, broken := s.Broken()
	switch {
	case t.sending && (broken || why == session.Expired):
		return session.End(tally.Cancel, true)
	case t.sending:
		return session.More(0)
	case broken:
		return session.Lost(s, e)
	case why == session.Expired:
		return session.Refuse(tally.InspectTimeout)
	}
	return t.hear(s)
}

// more waits for the client.
func (t *preface) more() session.Step {
	until := t.until
	t.until = 0
	return session.More(until)
}

// hear goes on with what the client has sent so far, message by message.
func (t *preface) hear(s *session.Session) session.Step {
	for s.Readable() {
		sent, last, e := t.look(s)
		switch {
		case e == sock.Again:
			return t.more()
		case e != 0:
			return session.Lost(s, e)
		}
		kind, length := wire.PostgresHead(sent)
		if need := t.needs(s, kind, length); len(sent) >= need {
			if step, over := t.heed(s, kind, length, sent); over {
				return step
			}
			continue
		} else if !last && s.Peeks() {
			t.asleep = true
			t.loop.Sleep(s, need)
		}
		if last {
			if len(sent) > 0 {
				s.SetSpoken()
			}
			return session.End(tally.ClientClosed, true)
		}
	}
	return t.more()
}

// look returns what the client has sent and nobody has taken yet. last reports that nothing follows.
func (t *preface) look(s *session.Session) (sent []byte, last bool, e sock.Errno) {
	l := t.loop
	if s.Peeks() {
		sent, e = l.Peek(s, peekBytes)
		return sent, len(sent) == 0 || s.NoMore(), e
	}
	n, e := l.Read(s)
	if n > 0 {
		t.in.Append(&l.Buffers, l.Scratch[:n])
	}
	return t.in.Bytes(), s.Ended(), e
}

// needs returns how many bytes of a message must be there to go on with its client.
func (t *preface) needs(s *session.Session, kind wire.PostgresRequest, length int) int {
	switch {
	case kind == wire.PostgresInvalid:
		return 1
	case kind == wire.PostgresNone, kind == wire.PostgresStartup && !t.wantsTLS(s):
		return wire.PostgresHeadBytes
	}
	return length
}

// wantsTLS reports whether the client may not begin a session now, since it has to speak TLS.
func (t *preface) wantsTLS(s *session.Session) bool { return t.TLS && t.Required && s.Peeks() }

// heed goes on with a message that the client has sent. It reports false if another one must follow.
func (t *preface) heed(
	s *session.Session, kind wire.PostgresRequest, length int, sent []byte,
) (step session.Step, over bool) {
	switch kind {
	case wire.PostgresSSL, wire.PostgresGSS:
		return t.encryption(s, kind, len(sent) == length)
	case wire.PostgresCancel:
		return t.cancel(s, string(wire.PostgresCancelKey(sent[:length])), len(sent) == length), true
	case wire.PostgresStartup:
		if t.wantsTLS(s) {
			return t.refuse(s, length, invalidAuthorization, tally.NotTLS, "listener \""+s.Listener().Name+
				"\" requires TLS: connect with sslmode=require, or better verify-full"), true
		}
		t.service.learn(t.loop, s)
		return t.pass(s, true), true
	}
	switch first := !t.ssl && !t.gss; {
	case first && sent[0] == tlsRecord && s.Peeks():
		return t.pass(s, false), true
	case !first, t.wantsTLS(s):
		s.SetSpoken()
		return session.Refuse(tally.Malformed), true
	}
	return t.pass(s, true), true // the backend has the words for it
}

// tlsRecord is what a ClientHello begins with: the type of its record (RFC 8446, 5.1).
const tlsRecord = 0x16

// pass lets the session go on. A client that speaks plainly has no handshake.
func (t *preface) pass(s *session.Session, plainly bool) session.Step {
	if !s.Peeks() {
		t.loop.Prefill(s, &t.in, true)
		return session.PassOn(session.Pass{})
	}
	if plainly && t.TLS {
		return session.PassOn(session.Pass{Omit: t.Omit})
	}
	return session.PassOn(session.Pass{})
}

// encryption answers a request for encryption, or passes the session on to a backend that does.
func (t *preface) encryption(s *session.Session, kind wire.PostgresRequest, all bool) (step session.Step, over bool) {
	asked, answer := &t.gss, "N"
	if kind == wire.PostgresSSL {
		asked = &t.ssl
		if t.TLS {
			answer = "S"
		}
	}
	switch {
	case !s.Peeks():
		return t.refuse(s, 0, protocolViolation, tally.Malformed, "a request for encryption within TLS"), true
	case !t.TLS && !t.encrypts(s.Pool()):
		t.service.learn(t.loop, s) // in case that the backend declines
		return t.pass(s, true), true
	case *asked: // as a server, that takes each once
		s.SetSpoken()
		return session.Refuse(tally.Malformed), true
	}
	*asked = true
	e := t.loop.Take(s, wire.PostgresHeadBytes, all)
	if e == 0 {
		_, e = t.loop.Write(s, []byte(answer))
	}
	switch {
	case e != 0:
		return session.Lost(s, e), true
	case answer == "S":
		return t.pass(s, false), true // what is not TLS behind the request is for the handshake to refuse: CVE-2021-23214
	}
	return session.Step{}, false
}

// encrypts reports whether the connections to a pool's backends are encrypted.
func (t *preface) encrypts(p *pool.Pool) bool { return t.Encrypts != nil && p != nil && t.Encrypts(p) }

// refuse ends the session with an error that the client shows. length is that of the message that is still unread.
func (t *preface) refuse(s *session.Session, length int, state string, why tally.Reason, text string) session.Step {
	if s.Peeks() {
		if e := t.loop.Take(s, length, false); e != 0 {
			return session.Lost(s, e)
		}
	}
	_, e := t.loop.Write(s, wire.AppendPostgresFatal(nil, state, text))
	return session.End(why, e == 0)
}

// cancel sends the client's cancel to a backend. The client's connection ends when that is over, since libpq takes its
// end for the sign that the cancel was sent.
func (t *preface) cancel(s *session.Session, key string, all bool) session.Step {
	l := t.loop
	if s.Peeks() {
		if e := l.Take(s, wire.PostgresHeadBytes+len(key), all); e != 0 {
			return session.Lost(s, e)
		}
	}
	ref := s.Ref()
	over := func() {
		s, alive := ref.Get()
		if !alive {
			return
		}
		if t, own := s.Preface().(*preface); own && t.sending {
			l.Proceed(s, session.End(tally.Cancel, true))
		}
	}
	if !t.service.cancel(t.loop, key, s, func() { l.Post(over) }) {
		return session.End(tally.Cancel, true)
	}
	t.sending = true
	return session.More(l.Now + cancelPatience)
}
