package dns

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// The tests of whole servers are in package dns_test, since a server imports this package. What follows gives them what
// they need of its inside. Functions that take a Loop, a Forwarder or a Socket are called onLoop.

// The names and limits that tests speak of.
type (
	Forwarder = forwarder
	Socket    = socket
)

const (
	ClientsInTurn  = clientsInTurn
	DefaultMaxUDP  = defaultMaxUDP
	DefaultSockets = defaultSockets
	MaxPipelined   = maxPipelined
	Suspicious     = suspicious
)

// SetSockets says how many sockets send questions to one backend, for each loop.
func SetSockets(s *Settings, n int) { s.socketsForTest = n }

// Forwarders are those of a loop that are in service or have not ended yet.
func Forwarders(l *Loop) []*Forwarder { return l.forwarders }

// Talkers is how many listeners have a forwarder on the loop for the questions of new sessions.
func Talkers(l *Loop) int { return len(l.talkers) }

// Deliveries is how many answers go on in the loop's next turn.
func Deliveries(l *Loop) int { return len(l.deliveries) }

// Questions is how many questions a forwarder has.
func Questions(f *Forwarder) int { return f.count }

// AddQuestions makes a forwarder count more questions than it has; n may be negative.
func AddQuestions(f *Forwarder, n int) { f.count += n }

// Entrance is where a forwarder's questions come in.
func Entrance(f *Forwarder) *gate.Questions { return f.questions }

// Routes is how many backends a forwarder has sockets to.
func Routes(f *Forwarder) int { return len(f.routes) }

// SweepAt is when a forwarder looks for old sockets; zero for never.
func SweepAt(f *Forwarder) time.Duration { return f.sweepAt }

// SetSweepAt sets SweepAt.
func SetSweepAt(f *Forwarder, at time.Duration) { f.sweepAt = at }

// EachSocket calls do for each socket of the loop's first forwarder that questions are given to.
func EachSocket(l *Loop, do func(*Forwarder, *Socket)) {
	f := l.forwarders[0]
	for _, r := range f.routes {
		for _, s := range r.sockets {
			do(f, s)
		}
	}
}

// WearOut makes a socket one that has had as many questions as it may have.
func WearOut(_ *Forwarder, s *Socket) { s.asked = renewAfter }

// Age makes a socket as old as one gets, and has its forwarder look for old ones.
func Age(f *Forwarder, s *Socket) {
	s.born -= renewEvery
	f.sweepAt = 1
}

// SetUsed says when a socket was asked its last question, and looks for old ones.
func SetUsed(f *Forwarder, s *Socket, at time.Duration) {
	s.used = at
	f.sweep()
}

// Block makes a socket one that takes no more.
func Block(_ *Forwarder, s *Socket) { s.blocked = true }

// Blocked reports whether a socket takes no more for the moment.
func Blocked(s *Socket) bool { return s.blocked }

// Connecting reports whether a socket is a connection that is being made.
func Connecting(s *Socket) bool { return s.stream != nil && s.stream.connecting }

// Descriptor is a socket's.
func Descriptor(s *Socket) int { return s.fd }

// Line is how many ids stand in a socket's line.
func Line(s *Socket) int { return len(s.unsent) }

// DoubleLine puts all ids into a socket's line again, as when one is drawn that was an earlier question's.
func DoubleLine(s *Socket) { s.unsent = append(s.unsent, s.unsent...) }

// Mismatched is how many datagrams that answer nothing have come to a forwarder.
func Mismatched(f *Forwarder) uint64 { return f.counts.mismatched.Load() }

// FirstAsked returns the oldest question at a backend, as its socket sends it, and that socket.
func FirstAsked(f *Forwarder) (query []byte, s *Socket) {
	q := f.asked.first
	return q.appendTo(nil), q.socket
}

// FailFirst ends the question of FirstAsked as if no backend had answered.
func FailFirst(f *Forwarder) {
	q := f.asked.first
	f.recall(q, pool.Neutral)
	f.fail(q)
}

// Take hands a forwarder a datagram that a socket has received.
func Take(f *Forwarder, s *Socket, datagram []byte) { f.take(s, datagram) }

// GiveRoom tells a forwarder that a socket takes more.
func GiveRoom(f *Forwarder, s *Socket) { f.onSocket(s, sock.PollOut) }

// Waiting is how many questions of a session's client have no answer; zero if it asks none any more.
func Waiting(s *session.Session) int {
	if t, asks := s.Preface().(*preface); asks {
		return t.waiting
	}
	return 0
}

// Queues returns the bytes that a session's client has sent, and those that it is to be sent; nil if the client asks no
// questions any more.
func Queues(s *session.Session) (in, out *loop.ByteQueue) {
	if t, asks := s.Preface().(*preface); asks {
		return &t.in.ByteQueue, &t.out.ByteQueue
	}
	return nil, nil
}
