package l4

import (
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// room tells whether there are descriptors for another session of a listener, which takes two of them.
func (s *Server) room(ls *listener) bool {
	return ls.keepsPromises(s.descriptorsLeft()-2, 2*s.capacity.Load(), s.shared.Load().all, (*listener).descriptors)
}

// evictionsForOne is how many flows may give way to a new one: more than one where there are more than may be.
const evictionsForOne = 4

// enterFlow counts a flow in, or says why there may not be another. A flow that was never answered gives way to it.
func (l *loop) enterFlow(d *flowDoor, settings *ListenerSpec) Drop {
	drop := l.server.enterFlow(d.listener, settings, l.now)
	for n := 0; drop != dropNone && n < evictionsForOne && l.evict(d, nil); n++ {
		drop = l.server.enterFlow(d.listener, settings, l.now)
	}
	return drop
}

// enterFlow counts a flow in, unless that is more than may be of the listener, of those without an answer, of
// descriptors or of local ports.
func (s *Server) enterFlow(ls *listener, settings *ListenerSpec, now time.Duration) Drop {
	flows, unanswered := ls.sessions.Add(1), ls.unanswered.Add(1)
	s.flows.Add(1)
	drop := dropNone
	total, ports := 2*s.capacity.Load(), s.ports.Load()
	switch {
	case flows > settings.Flows.max():
		drop = DropTableFull
	case unanswered > max(1, min(total, ports)/unansweredPart),
		!ls.keepsPromises(s.descriptorsLeft(), total, s.shared.Load().all, (*listener).descriptors),
		!ls.keepsPromises(s.portsLeft(now), ports, s.shared.Load().udp, (*listener).flows):
		drop = DropNoDescriptors
	}
	if drop != dropNone {
		s.leaveFlow(ls, false)
	}
	return drop
}

// leaveFlow counts a flow out.
func (s *Server) leaveFlow(ls *listener, answered bool) {
	ls.sessions.Add(-1)
	if !answered {
		ls.unanswered.Add(-1)
	}
	if s.flows.Add(-1) == 0 && s.draining.Load() && s.sessions.Load() == 0 {
		s.noteEmpty()
	}
}

// enter counts a session in and returns reasonNone, or why there may not be another: the limit of the listener or of
// the process is reached.
func (s *Server) enter(ls *listener) Reason {
	if limit := int64(ls.spec.Load().MaxSessions); ls.sessions.Add(1) > limit && limit > 0 {
		ls.sessions.Add(-1)
		return MaxSessions
	}
	if limit := s.max.Load(); s.sessions.Add(1) > limit && limit > 0 {
		s.leave(ls)
		return MaxSessions
	}
	return reasonNone
}

// leave counts a session out.
func (s *Server) leave(ls *listener) {
	ls.sessions.Add(-1)
	if s.sessions.Add(-1) == 0 && s.draining.Load() && s.flows.Load() == 0 {
		s.noteEmpty()
	}
}

func (s *Server) noteEmpty() { s.emptyOnce.Do(func() { close(s.empty) }) }

// lighter returns the loop that is to serve a client l has accepted: l itself, unless it holds clearly
// more than the one with the least. Eight long-lived Postgres sessions must not all sit on one CPU; yet
// handing over costs a wake-up, and among many short sessions evens nothing out: with a quarter of the
// least as the slack, 24 of 100 sessions were handed over at 32 at a time, and each cost 1 % more.
func (s *Server) lighter(l *loop) *loop {
	mine := l.load.Load()
	to, least := l, mine
	for _, other := range s.loops {
		if n := other.load.Load(); n < least {
			to, least = other, n
		}
	}
	if mine-least <= 2+(mine+least)/4 {
		return l
	}
	return to
}

// noteEvery keeps a long shortage or a flood from filling the log.
const noteEvery = 10 * time.Second

// mayNote reports whether it is time for another line; last is when the one before was written, plus noteEvery.
func (s *Server) mayNote(last *atomic.Int64) bool {
	now := int64(s.clock())
	next := last.Load()
	return now >= next && last.CompareAndSwap(next, now+int64(noteEvery))
}

// notePause warns that accepting has paused, now and then.
func (s *Server) notePause(ls *listener, e sock.Errno) {
	if !s.mayNote(&s.pauseNote) {
		return
	}
	ev := s.log.Warn().Str("listener", ls.name).Int64("listener_sessions", ls.sessions.Load()).
		Int64("sessions", s.sessions.Load()).Int64("possible", s.capacity.Load())
	if e != 0 {
		ev = ev.AnErr("err", e)
	}
	ev.Msg("accept paused: out of descriptors, but for those promised to other listeners; " +
		"clients wait in the kernel's queue; raise the limit of open files")
}

// noteRefusal warns that a client was refused at a limit, now and then.
func (s *Server) noteRefusal(ls *listener) {
	if s.mayNote(&ls.refusalNote) {
		s.noteRefusals(ls)
	}
}

// noteRefusals tells how many clients were refused at a limit since the start, if it is more than was told.
func (s *Server) noteRefusals(ls *listener) {
	refused := ls.ended(MaxSessions)
	if ls.refusalsTold.Swap(refused) == refused {
		return
	}
	s.log.Warn().Str("listener", ls.name).Int64("listener_sessions", ls.sessions.Load()).Int64("sessions", s.sessions.Load()).
		Stringer("reason", MaxSessions).Uint64("refused_since_start", refused).Msg("clients refused at max_sessions")
}
