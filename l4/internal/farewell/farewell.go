// Package farewell tells clients of TCP that are refused, in their own protocol, why they are refused. A farewell is a
// preface of a session that never gets a backend: it reads what the client begins with, as far as the protocol needs
// it, answers with an error, and ends the session. It does not decide who is refused, or count it.
//
// All that a farewell costs is bounded: its time, the bytes and the reads, and by the gate the farewells at once. Its
// prefaces are used onLoop only.
package farewell

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// A Language is a protocol in which clients can be told why they are refused. It is a session.Farewell.
type Language uint8

// The languages.
const (
	Postgres Language = iota + 1
	Redis
	DNS
	TLS // of those whose session has no TLS yet; others are told nothing
)

const (
	// patience is how long a client has to say what the protocol begins with. Those that wait for a connection have
	// sent it already; a TLS client of Postgres that was told N takes one more round trip.
	patience = 5 * time.Second

	// lingering is how long the last word waits for the client's end. Closing with bytes unread, or on their way, sends
	// a reset, and a reset makes a client lose what it has not read.
	lingering = time.Second

	// maxHeard is how many bytes of a client are read, and maxReads how often; a client that sends more is reset. A
	// Redis client may send what it wants to store.
	maxHeard = 64 << 10
	maxReads = 512

	// maxPart is how many bytes of a message in part are kept: as many as Postgres takes.
	maxPart = 10_000

	// maxReplies is how many messages of a client are answered: a pipeline. Answers are longer than questions can be.
	maxReplies = 128
)

// A verdict is what a language makes of a client's bytes.
type verdict uint8

const (
	wait    verdict = iota // for more of them
	said                   // the answer is the last word
	foreign                // they are not of the protocol
)

// A speaker is a language's part of one client's farewell.
type speaker interface {
	// hear looks at the client's bytes, and returns how many of them are done with. It appends answers to reply.
	hear(heard, reply []byte) (n int, answer []byte, v verdict)
}

// A preface is one client's farewell.
//
// At rest, nothing read in part and nothing to be sent, it holds no buffer.
type preface struct {
	loop    *session.Loop
	why     tally.Reason
	speaker speaker
	in      loop.ByteQueue // heard, and not understood yet
	out     loop.ByteQueue // not taken by the client yet
	heard   int            // bytes
	reads   int
	until   time.Duration // the deadline that Step has not named yet; 0 = there is no new one
	over    bool          // the last word is said
	shut    bool          // and the client has the end of what it gets
}

// Open implements session.Farewell.
func (g Language) Open(l *session.Loop, s *session.Session, why tally.Reason) session.Preface {
	t := &preface{loop: l, why: why, until: l.Now + patience}
	switch c := causeOf(s, why); g {
	case Postgres:
		t.speaker = &postgres{cause: c}
	case Redis:
		t.speaker = &redis{cause: c}
	case TLS:
		t.speaker = tlsAlert{}
	default:
		t.speaker = &dns{why: c.dns()}
	}
	l.TakePrefill(s, &t.in)
	return t
}

// Phase implements session.Preface.
func (t *preface) Phase() string { return "refusing" }

// Cut implements session.Preface.
func (t *preface) Cut(*session.Session) (whole bool) { return t.over && t.out.Size() == 0 }

// Release implements session.Preface.
func (t *preface) Release(*session.Session) {
	t.in.Release(&t.loop.Buffers)
	t.out.Release(&t.loop.Buffers)
}

// Step implements session.Preface.
func (t *preface) Step(s *session.Session, why session.Cause) session.Step {
	if why == session.Expired {
		return t.end(s)
	}
	if _, broken := s.Broken(); broken {
		return t.end(s)
	}
	if !t.talk(s) {
		return t.end(s)
	}
	until := t.until
	t.until = 0
	return session.More(until)
}

// end ends the session, with a reset unless the client has all that it is to get, or has left with nothing unanswered.
func (t *preface) end(s *session.Session) session.Step {
	return session.End(t.why, t.out.Size() == 0 && (t.over || s.Ended() && t.in.Size() == 0))
}

// talk answers what the client has sent so far. It reports false if the session is to end.
func (t *preface) talk(s *session.Session) bool {
	l := t.loop
	for {
		if !t.over && t.in.Size() > 0 && t.out.Size() == 0 && !t.answer() {
			return false
		}
		if t.out.Size() > 0 && s.Writable() {
			n, e := l.Write(s, t.out.Bytes())
			if n > 0 {
				t.out.Done(&l.Buffers, n)
			}
			if e != 0 && e != sock.Again {
				return false
			}
		}
		switch {
		case t.out.Size() > 0:
			return true // there is an event when there is room
		case s.Ended():
			return false
		case t.over && !t.shut:
			l.ShutWrite(s)
			t.shut, t.until = true, l.Now+lingering
		}
		if !s.Readable() {
			return true
		}
		if t.heard >= maxHeard || t.reads >= maxReads {
			return false
		}
		n, e := l.Read(s)
		if e != 0 && e != sock.Again {
			return false
		}
		t.heard += n
		t.reads++
		if n > 0 && !t.over {
			t.in.Append(&l.Buffers, l.Scratch[:n])
		}
	}
}

// answer gives the speaker what was heard. It reports false if the session is to end without another word.
func (t *preface) answer() bool {
	b := &t.loop.Buffers
	n, reply, v := t.speaker.hear(t.in.Bytes(), nil)
	if n > 0 {
		t.in.Done(b, n)
	}
	if len(reply) > 0 {
		t.out.Append(b, reply)
	}
	switch {
	case v == foreign, v == wait && t.in.Size() > maxPart:
		return false
	case v == said:
		t.over = true
		t.in.Release(b)
	}
	return true
}
