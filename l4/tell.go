package l4

import "time"

// tellEvery is how far the byte counters of listeners and backends may lag behind running sessions: less than half of the usual
// scrape interval of 15 s, and a round through 10,000 sessions, about a millisecond, is then nothing.
const tellEvery = 5 * time.Second

// tellSome adds to the counters what running sessions have moved, a slice of the sessions in a turn, tellEvery after the first
// of the turns that brought events; n is how many this one brought. A read thus costs nothing for it, and a loop
// that sleeps is not woken: with no event since the last round, there is nothing to tell.
func (l *loop) tellSome(n int) {
	if n > 0 {
		l.untold = true
	}
	if !l.telling {
		l.telling, l.tellAt = l.untold, l.now+tellEvery
		return
	}
	if l.now < l.tellAt {
		return
	}
	if l.tellTo == 0 {
		l.untold = false // bytes of later turns may be those of sessions that had theirs told before
	}
	if l.tellTo = l.some(l.tellTo, l.tell, l.tellFlow); l.tellTo < 0 {
		l.tellTo, l.telling, l.tellAt = 0, l.untold, l.now+tellEvery
	}
}

// flowsFrom is where a walk through a loop's sessions goes on with its flows.
const flowsFrom = 1 << 30

// some calls one of the functions for each of a slice of the loop's sessions and flows, as slab.some does.
func (l *loop) some(from int, session func(*session), flow func(*flow)) int {
	if from < flowsFrom {
		next := l.sessions.some(from, session)
		if next < 0 && len(l.flows.store.chunks) > 0 {
			next = flowsFrom
		}
		return next
	}
	if next := l.flows.store.some(from-flowsFrom, flow); next >= 0 {
		return flowsFrom + next
	}
	return -1
}

// tell adds to the counters of its listener and its backend what a session has moved since it last did.
func (l *loop) tell(s *session) {
	in, out := s.in.untold(), s.out.untold()
	if in > 0 || out > 0 {
		c := &s.listener.counters[l.index]
		c.bytesIn.Add(in)
		c.bytesOut.Add(out)
	}
	if s.phase != relaying {
		return
	}
	if in += uint64(s.prefilled); in > 0 || out > 0 {
		s.lease.Backend().AddBytes(in, out)
		s.prefilled = 0
	}
}

// untold returns the bytes the counters have not got yet, and takes it that they get them now.
func (d *direction) untold() uint64 {
	n := d.bytes - d.told
	d.told = d.bytes
	return n
}
