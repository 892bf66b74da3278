package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// A session is handed over to another process when it is at rest: nothing is held, no side has TLS but for the kernel's,
// and no preface is under way. Then it is two descriptors and a State. It is detached first, which means that nobody serves it: it is in
// no timer and no poller. In the end it has gone, or is served again.
//
// The poller is the point: both processes have the same sockets then, and what is registered once reports what happens
// at the socket until its last descriptor is closed, in whatever process that is.

// Suspend makes the loop accept nobody until Admit. Clients wait in the kernel's queue.
func (l *Loop) Suspend() {
	if l.suspended {
		return
	}
	l.suspended = true
	for _, d := range l.listening {
		if d == nil {
			continue
		}
		if !d.paused {
			l.sockets.Remove(d.fd)
		}
		if d.shuns() { // the other process knows nothing of that
			_ = sock.DropSYNs(d.fd, nil)
			d.shunning.shunned = nil
		}
	}
}

// Admit ends a Suspend.
func (l *Loop) Admit() {
	if !l.suspended {
		return
	}
	l.suspended = false
	for _, d := range l.listening {
		if d == nil {
			continue
		}
		_ = sock.DropSYNs(d.fd, nil) // of another process, if it has died
		if !d.paused {
			l.watch(d)
		}
	}
}

// restFor is how long a busy session reads nothing, so that it comes to rest: see settleDown. A session with a slow
// receiver loses nothing by that, since the kernel holds enough for the receiver. Others come to rest within
// microseconds, and are detached at the next look.
const restFor = 250 * time.Millisecond

// A Detached is a session that Detach has detached.
type Detached struct {
	Ref   Ref
	State State
	FDs   [2]int // the client's and the backend's; they stay the loop's
}

// Detach looks at a slice of the sessions, as Some does, and detaches up to most of those that are at rest, unless spare
// reports true. It returns where the next slice begins, from again if there are more here than most, and how many
// others have been made to come to rest.
//
// What a session sends or gets meanwhile waits in the kernel. Gone or Back follows for each.
func (l *Loop) Detach(from, most int, spare func(tally.ID) bool) (all []Detached, next, settling int) {
	more := false
	next = l.sessions.Some(from, func(s *Session) {
		if s.phase == detached || spare(s.id) {
			return
		}
		switch why := s.stays(); {
		case why == StaysBusy:
			l.settleDown(s)
			settling++
		case why != "":
		case len(all) == most:
			more = true
		default:
			all = append(all, l.detach(s))
		}
	})
	if more {
		next = from
	}
	return all, next, settling
}

// Why a session stays, as people read it.
const (
	StaysTLS    = "tls"        // a side has TLS that is not the kernel's
	StaysBusy   = "busy"       // it has bytes on their way
	StaysLogin  = "logging in" // it is overheard, see Overhearer
	StaysBroken = "broken"     // one side is gone
)

// stays is why a session cannot be handed over just now; "" if it can.
func (s *Session) stays() string {
	switch s.phase {
	case relaying, detached:
	case prefacing:
		return s.preface.Phase()
	default:
		return phaseNames[s.phase]
	}
	x := s.extra
	switch {
	case x != nil && (x.client != nil || x.backend != nil || x.opening != nil):
		return StaysTLS
	case s.in.dead, s.out.dead, s.client.broken, s.backend.broken, s.hurried:
		return StaysBroken
	case s.inLine, s.in.held(), s.out.held(), s.in.ended != s.in.shut, s.out.ended != s.out.shut,
		x != nil && x.turns != nil && x.turns.inLine:
		return StaysBusy
	case x != nil && x.overhears != nil && !x.overheard:
		return StaysLogin
	}
	return ""
}

// Left adds what keeps each session of a slice here to counts, as Some does.
func (l *Loop) Left(from int, spare func(tally.ID) bool, counts map[string]int) (next int) {
	return l.sessions.Some(from, func(s *Session) {
		switch why := s.stays(); {
		case why != "":
			counts[why]++
		case spare(s.id):
			counts["refused"]++
		default:
			counts["at rest"]++
		}
	})
}

// settleDown makes a busy session come to rest: it reads nothing for restFor, and what it holds goes to its receiver.
// For that it is paced, without a limit; see allowance. So the relay of others costs nothing more.
//
// Between two rests it goes on for as long. A peer that answers before it reads on takes nothing while it is not read
// from: such a session never came to rest, and stood still, when one rest followed the other.
func (l *Loop) settleDown(s *Session) {
	x := l.more(s)
	if x.pace == nil {
		p := l.freePaces.Take()
		p.session = s
		p.in.tokens.Fill(paceTurn, l.Now)
		p.out.tokens.Fill(paceTurn, l.Now)
		x.pace = p
	}
	if x.pace.rested > 0 && l.Now < x.pace.rested+restFor {
		return
	}
	until := l.Now + restFor
	x.pace.rested = until
	for _, n := range [...]*lane{&x.pace.in, &x.pace.out} {
		n.until = max(n.until, until)
	}
}

// detach detaches a session that is at rest.
func (l *Loop) detach(s *Session) Detached {
	l.flush(s)
	d := Detached{Ref: s.Ref(), State: l.stateOf(s), FDs: [2]int{int(s.client.fd), int(s.backend.fd)}}
	l.conns.Remove(int(s.client.fd))
	l.conns.Remove(int(s.backend.fd))
	l.wheel.Stop(&s.timer)
	l.noHalfClosed(s)
	if x := s.extra; x != nil && x.pace != nil {
		l.unlimit(s, x)
	}
	s.phase = detached
	return d
}

// Gone forgets a detached session: another process has it.
func (l *Loop) Gone(r Ref) {
	s, alive := r.Get()
	if !alive || s.phase != detached {
		return
	}
	sock.Close(int(s.client.fd))
	sock.Close(int(s.backend.fd))
	s.client.open, s.backend.open = false, false
	l.dialer.Forget(s.link)
	s.lease.HandOver()
	s.forgetHeard()
	l.noMore(s)
	ls, place, client := s.listener, s.admitted, s.peer.Addr()
	l.sessions.Give(s)
	l.load.Add(-1)
	if ls.LeaveSession(place, client) {
		l.wakeHeld(ls)
	}
	l.Freed = true
}

// Back serves a detached session again.
func (l *Loop) Back(r Ref) {
	s, alive := r.Get()
	if !alive || s.phase != detached {
		return
	}
	s.phase = relaying
	why := s.left
	s.left = tally.NoReason
	if e := l.register(s); e != 0 && why == tally.NoReason {
		s.cause, why = e, tally.NoDescriptors
	}
	if why != tally.NoReason {
		l.end(s, why)
		return
	}
	l.goOn(s)
}

// register registers both connections of a session. What is there already is an event.
func (l *Loop) register(s *Session) sock.Errno {
	for _, c := range [...]*conn{&s.client, &s.backend} {
		c.readable, c.writable, c.peerDone, c.urgent = false, false, false, false
	}
	e := l.conns.Add(int(s.client.fd), clientSlot(s), s.Generation())
	if e == 0 {
		e = l.conns.Add(int(s.backend.fd), backendSlot(s), s.Generation())
	}
	return e
}

// goOn serves a session that was at rest, and is registered.
func (l *Loop) goOn(s *Session) {
	if s.in.shut != s.out.shut {
		l.noteHalfClosed(s)
	}
	l.schedule(s)
	l.limit(s)
	if s.follows() && s.extra.turns.atRest() && l.isToLeave(s) {
		s.extra.turns.inLine = true
		l.resting = append(l.resting, s.Ref())
	}
}

// An Adoption is a session of another process that is to be served here.
type Adoption struct {
	State    *State
	FDs      [2]int
	Listener *Listener
	Place    Placing
	// Begun is called onLoop when the session is there, before anything happens to it; nil for nothing.
	Begun func(l *Loop, s *Session)
}

// Adopt serves a session of another process. It is called onLoop, and cannot fail.
func (l *Loop) Adopt(a *Adoption) {
	s := l.sessions.Take()
	l.fill(s, a)
	l.load.Add(1)
	s.listener.Adopt(s.peer.Addr(), &s.admitted, l.Now)
	if a.Begun != nil {
		a.Begun(l, s)
	}
	if e := l.register(s); e != 0 {
		s.cause = e
		l.end(s, tally.NoDescriptors)
		return
	}
	l.goOn(s)
	if b := s.lease.Backend(); b.Revoked() {
		l.Revoke(b, tally.BackendUnhealthy)
	}
}

// Heard says that the session's Overhearer, which it got from Overhear, has heard all it needs. It is called by
// Adoption.Begun.
func (s *Session) Heard() { s.extra.overheard = true }

// Drop gives up an Adoption that no loop has got.
func (a *Adoption) Drop() {
	a.Place.Lease.HandOver()
	for _, fd := range a.FDs {
		sock.Close(fd)
	}
}

// Lightest returns the loop with the fewest sessions, if each has so many more.
func Lightest(loops []*Loop, more []int) int {
	best := 0
	for i := range loops {
		if loops[i].Load()+more[i] < loops[best].Load()+more[best] {
			best = i
		}
	}
	return best
}

// Flush adds to the counters what all sessions have moved so far.
func (l *Loop) Flush() { l.sessions.All(l.flush) }
