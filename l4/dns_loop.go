package l4

import (
	crand "crypto/rand"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// dnsKey is the key of the first DNS socket's events; the others count down from it, above those of flows.
const dnsKey int32 = -1 << 28

// A dnsLoop is what a loop has for DNS questions, used onLoop only. Its zero value is ready, and costs nothing while no listener has
// DNS settings.
type dnsLoop struct {
	askers  []*dnsAsker  // those of this loop's doors, and those that have not ended yet
	sockets []*dnsSocket // by the key of their events; nil where one was closed
	opened  uint32       // sockets; the generation of the next

	// ids are drawn from it. They must not be guessed by who has seen others, so it is ChaCha8 with a seed of the kernel's, which is
	// cryptographically strong; crypto/rand is too, but a system call or a lock away.
	random *rand.ChaCha8

	reader  *sock.DatagramReader // of backends' answers; nil before the first socket
	writer  sock.DatagramWriter  // to one backend, empty between two
	sending []*dnsSocket         // have questions to send
	queries []byte               // in the writer
	batch   []*dnsQuestion       // the same
	answer  []byte               // for a client, as large as any may be

	talkers map[*listener]*dnsAsker // that answer new questions of sessions
	talking []turn                  // sessions that are to be looked at in the end of this turn, or in the next one

	deliveries []dnsDelivery // that go on in the next turn
	atOnce     bool          // there are to be none: the loop ends all questions

	freeTalks     spares[dnsTalk]
	freeQuestions spares[dnsQuestion]
}

// spareQuestions is how many questions' memory a loop keeps, some 200 bytes each.
const spareQuestions = 4096

// take returns a question in its zero state but for the capacity of query and tried.
func (w *dnsLoop) take() *dnsQuestion { return w.freeQuestions.take() }

// give takes a question's memory back.
func (w *dnsLoop) give(q *dnsQuestion) {
	clear(q.tried)
	*q = dnsQuestion{query: q.query[:0], tried: q.tried[:0]}
	w.freeQuestions.giveUpTo(spareQuestions, q)
}

// trim lets go of the memory of questions and talks that are over: it is scattered over that of a burst, and would hold all of it.
func (w *dnsLoop) trim() {
	w.freeQuestions, w.freeTalks = spares[dnsQuestion]{}, spares[dnsTalk]{}
}

// prepare makes what the first asker of a loop needs.
func (w *dnsLoop) prepare(trains bool) {
	if w.random != nil {
		return
	}
	var seed [32]byte
	crand.Read(seed[:]) // never fails
	w.random = rand.NewChaCha8(seed)
	w.reader = sock.NewDatagramReader(false)
	w.writer.Trains = trains
	w.answer = make([]byte, 0, maxDNSMessage)
	w.talkers = make(map[*listener]*dnsAsker)
}

// sendQuestions sends what this turn of the loop has brought for backends. onLoop.
func (l *loop) sendQuestions() {
	w := &l.dns
	for i := 0; i < len(w.sending); i++ { // a backend that fails makes it longer
		s := w.sending[i]
		w.sending[i] = nil
		s.sending = false
		s.asker.flush(s)
	}
	w.sending = w.sending[:0]
}

// onDNS handles an event of a DNS socket.
func (l *loop) onDNS(key int32, generation, bits uint32) {
	if s := l.dns.sockets[dnsKey-key]; s != nil && s.generation == generation {
		s.asker.onSocket(s, bits)
	}
}

// dnsTimers does what is due, and forgets askers that have ended. onLoop.
func (l *loop) dnsTimers() {
	w := &l.dns
	w.askers = slices.DeleteFunc(w.askers, func(k *dnsAsker) bool {
		k.onTime()
		return k.draining && k.count == 0 && k.talks == 0 && len(k.routes) == 0
	})
}

// due is when dnsTimers has something to do next; false for never.
func (w *dnsLoop) due() (time.Duration, bool) {
	var first time.Duration
	some := false
	for _, k := range w.askers {
		if at, ok := k.due(); ok && (!some || at < first) {
			first, some = at, true
		}
	}
	return first, some
}

// leaveRevoked has the questions at backends that the pool wants its leases of back asked elsewhere. onLoop.
func (l *loop) leaveRevoked() {
	for _, r := range l.revoked {
		if !r.backend.Revoked() {
			continue // it is back in use already
		}
		for _, k := range l.dns.askers {
			k.leaveBackend(r.backend)
		}
	}
}

// failQuestions ends all questions as if no backend had answered. onLoop.
func (l *loop) failQuestions() {
	l.dns.atOnce = true
	for _, k := range l.dns.askers {
		k.failAll()
	}
	l.dns.atOnce = false
	l.deliverAll()
}

// inLine tells whether something is left over for the next turn.
func (w *dnsLoop) inLine() bool { return len(w.talking)+len(w.deliveries) > 0 }

// dnsTurns goes on with what is in line. onLoop.
func (l *loop) dnsTurns() {
	if len(l.dns.deliveries) > 0 {
		l.deliverTurns()
	}
	l.talkTurns()
}

// closeDNS gives back what is left when the loop ends. Nobody waits any more.
func (l *loop) closeDNS() {
	for _, k := range l.dns.askers {
		k.abandon()
	}
}
