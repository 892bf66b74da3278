// Package dns serves clients that ask DNS questions: from a cache, or by asking backends on their behalf. By UDP it
// stands before a listener's flows as their filter, and by TCP it is a preface of the listener's sessions. What is not
// a plain question goes on as a flow or a session like any other.
//
// All questions for a backend share a few sockets, told apart by random ids (RFC 5452). The package knows DNS messages
// only as far as dnscache and wire read them.
//
// Each loop has its own part of a listener's service, see forwarder. Methods are onLoop, but for those that say
// otherwise.
package dns

import (
	crand "crypto/rand"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// A Loop is what an event loop has for DNS questions. It costs next to nothing while no listener has DNS settings. Its
// zero value is of no use, see Attach.
type Loop struct {
	*loop.Loop

	// set once, then read-only
	dialer   *dial.Dialer
	offload  sock.Offload
	flows    *flow.Loop
	sessions *session.Loop
	events   loop.Source // of sockets to backends

	forwarders []*forwarder // those in service, and those that have not ended yet
	sockets    []*socket    // by slot; nil where one was closed
	opened     uint32       // sockets; the generation of the next

	// random gives the ids. Nobody who has seen some may guess others, so it is ChaCha8 with a seed of the kernel's,
	// which is cryptographically strong; crypto/rand is too, but a system call or a lock away.
	random *rand.ChaCha8

	reader  *sock.DatagramReader // of backends' answers; nil before the first socket
	writer  sock.DatagramWriter  // to one backend, empty between two
	sending []*socket            // have questions to send
	queries []byte               // in the writer
	batch   []*question          // the same
	answer  []byte               // for a client, as large as any may be

	talkers map[*gate.Listener]*forwarder // that answer new questions of sessions
	ready   []session.Ref                 // sessions that are to be served at the end of this turn, or in the next one

	deliveries []delivery // that go on in the next turn
	atOnce     bool       // there are to be none: the loop ends all questions
	revoked    []*pool.Backend

	freePrefaces  loop.FreeList[preface]
	freeQuestions loop.FreeList[question]
}

// Attach makes the DNS part of each of some loops, which do not run yet, and which have these flows and sessions.
// dialers are the loops'. It is attached before them: clients of a question that fails have their answer at once.
func Attach(
	loops []*loop.Loop, dialers []*dial.Dialer, offload sock.Offload,
) []*Loop {
	var all []*Loop
	for i, on := range loops {
		l := &Loop{Loop: on, dialer: dialers[i], offload: offload}
		l.events = on.NewSource(l.onEvent)
		on.Attach(l)
		all = append(all, l)
	}
	return all
}

// Join gives the loop its flows and sessions, before it runs.
func (l *Loop) Join(flows *flow.Loop, sessions *session.Loop) { l.flows, l.sessions = flows, sessions }

// maxFreeQuestions is how many questions' memory a loop keeps, some 200 bytes each.
const maxFreeQuestions = 4096

// take returns a question in its zero state but for the capacity of query and tried.
func (l *Loop) take() *question { return l.freeQuestions.Take() }

// give takes a question's memory back.
func (l *Loop) give(q *question) {
	clear(q.tried)
	*q = question{query: q.query[:0], tried: q.tried[:0]}
	l.freeQuestions.GiveUpTo(maxFreeQuestions, q)
}

// trim lets go of the memory of questions and prefaces that are over: it is scattered over that of a burst, and would
// hold all of it.
func (l *Loop) trim() {
	l.freeQuestions, l.freePrefaces = loop.FreeList[question]{}, loop.FreeList[preface]{}
}

// prepare makes what the first forwarder of a loop needs.
func (l *Loop) prepare() {
	if l.random != nil {
		return
	}
	var seed [32]byte
	crand.Read(seed[:]) // never fails
	l.random = rand.NewChaCha8(seed)
	l.reader = sock.NewDatagramReader(false)
	l.writer.Trains = l.offload.GSO
	l.answer = make([]byte, 0, wire.MaxDNSMessage)
	l.talkers = make(map[*gate.Listener]*forwarder)
}

// AfterEvents implements loop.Part: it retries the questions at revoked backends elsewhere.
func (l *Loop) AfterEvents() {
	for _, b := range l.revoked {
		if !b.Revoked() {
			continue // it is back in use already
		}
		for _, f := range l.forwarders {
			f.leaveBackend(b)
		}
	}
	l.revoked = l.revoked[:0]
}

// Revoke retries the questions at a backend elsewhere, at the end of this batch of events: the pool wants its leases
// back.
func (l *Loop) Revoke(b *pool.Backend) { l.revoked = append(l.revoked, b) }

// OnTime implements loop.Part. It also forgets forwarders that have ended.
func (l *Loop) OnTime() {
	l.forwarders = slices.DeleteFunc(l.forwarders, func(f *forwarder) bool {
		f.onTime()
		return f.draining && f.count == 0 && f.sessions == 0 && len(f.routes) == 0
	})
}

// EndTurn implements loop.Part: it serves the sessions that are ready, and sends what this turn has brought for
// backends.
func (l *Loop) EndTurn(int) {
	if len(l.deliveries) > 0 {
		l.deliverTurn()
	}
	l.serveReady()
	for i := 0; i < len(l.sending); i++ { // a backend that fails makes it longer
		s := l.sending[i]
		l.sending[i] = nil
		s.sending = false
		s.forwarder.flush(s)
	}
	l.sending = l.sending[:0]
}

// Due implements loop.Part.
func (l *Loop) Due() (time.Duration, bool) {
	if len(l.ready)+len(l.deliveries) > 0 {
		return l.Now, true
	}
	var first time.Duration
	some := false
	for _, f := range l.forwarders {
		if at, ok := f.due(); ok && (!some || at < first) {
			first, some = at, true
		}
	}
	return first, some
}

// Close implements loop.Part. Nobody waits any more.
func (l *Loop) Close() {
	for _, f := range l.forwarders {
		f.abandon()
	}
}

// onEvent handles an event of a socket to a backend.
func (l *Loop) onEvent(slot, generation, bits uint32) {
	if s := l.sockets[slot]; s != nil && s.generation == generation {
		s.forwarder.onSocket(s, bits)
	}
}

// FailAll ends all questions as if no backend had answered.
func (l *Loop) FailAll() {
	l.atOnce = true
	for _, f := range l.forwarders {
		f.failAll()
	}
	l.atOnce = false
	for len(l.deliveries) > 0 {
		l.deliverTurn()
	}
}
