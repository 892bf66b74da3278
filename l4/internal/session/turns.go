package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// A session of a pool that drains safely (pool.Options.DrainSafely) follows whose turn it is to speak, so that it can
// leave its backend at a moment at which nothing is lost: see leaving.go. For that it sees all bytes from the first on,
// and so they are copied and never go through a pipe. A session whose bytes cannot be understood, such as TLS that the
// backend ends, is one like any other as soon as that is known.

// Spoken is the protocol that a listener's clients speak, as far as safe points are known in it.
type Spoken uint8

// The protocols.
const (
	SpokenUnknown Spoken = iota // sessions stay until they end by themselves
	SpokenPostgres
	SpokenRedis
)

// turns is what a session has that follows whose turn it is. One of postgres and redis is used.
type turns struct {
	postgres wire.PostgresTurns
	redis    wire.RedisTurns
	asked    time.Duration // since when the session has been asked to leave; a moment, and 0 = it is not
	retry    time.Duration // when to try again whether it can leave; 0 = when its turns say so
	spoken   Spoken
	inLine   bool // stands in Loop.resting
}

// maxFreeTurns is how many of them a loop keeps to be used again.
const maxFreeTurns = 4096

// followTurns makes a session that was just connected follow its turns, if its pool and its listener want that. Another
// connection of the session begins anew.
func (l *Loop) followTurns(s *Session) {
	spoken := s.settings.Spoken
	if spoken == SpokenUnknown || !s.pool.DrainsSafely() {
		l.forgetTurns(s.extra)
		return
	}
	x := l.more(s)
	if x.turns == nil {
		x.turns = l.freeTurns.Take()
	}
	*x.turns = turns{spoken: spoken}
	if s.in.held() { // the prefill, in which what a preface has added comes first
		kept := s.in.rest()
		x.turns.fromClient(kept[len(kept)-min(len(kept), int(s.prefilled)):])
	}
}

// forgetTurns gives back what a session with this extra follows its turns with, if it does.
func (l *Loop) forgetTurns(x *extra) {
	if x == nil || x.turns == nil {
		return
	}
	*x.turns = turns{}
	l.freeTurns.GiveUpTo(maxFreeTurns, x.turns)
	x.turns = nil
}

func (t *turns) fromClient(p []byte) {
	if t.spoken == SpokenPostgres {
		t.postgres.FromClient(p)
	} else {
		t.redis.FromClient(p)
	}
}

func (t *turns) fromBackend(p []byte) {
	if t.spoken == SpokenPostgres {
		t.postgres.FromBackend(p)
	} else {
		t.redis.FromBackend(p)
	}
}

// atRest reports whether neither side waits for the other, as far as was relayed.
func (t *turns) atRest() bool {
	if t.spoken == SpokenPostgres {
		return t.postgres.AtRest()
	}
	return t.redis.AtRest()
}

func (t *turns) visible() bool {
	if t.spoken == SpokenPostgres {
		return t.postgres.Visible()
	}
	return t.redis.Visible()
}

// observe lets those who follow a session with an extra see what one side has sent. It returns how many of the bytes
// the other side gets.
func (l *Loop) observe(s *Session, d *direction, p []byte) int {
	n := len(p)
	if d == &s.out {
		n = s.overhear(p)
	}
	t := s.extra.turns
	if t == nil {
		return n
	}
	d.bulk, d.rounds = false, 0 // nobody sees bytes in a pipe
	if d == &s.in {
		t.fromClient(p[:n])
	} else {
		t.fromBackend(p[:n])
	}
	if !t.visible() {
		l.forgetTurns(s.extra)
	} else if d == &s.out && !t.inLine && t.atRest() && l.isToLeave(s) {
		t.inLine = true
		l.resting = append(l.resting, s.Ref())
	}
	return n
}
