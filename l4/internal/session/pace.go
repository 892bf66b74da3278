package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
)

// A session whose bandwidth is limited reads no more from a side than the limit gives. When that is used up, it reads
// nothing until a part of a second later, and the sender is slowed down by TCP: the kernel's buffer fills up, and the
// window closes. Meanwhile the poller does not report what arrives, since a report of each packet would cost more than
// the relay itself. A session that waits costs a timer.
//
// The bytes that a preface reads or sends are not paced.

const (
	// paceTurn is how much of a limit is read at once: a direction that is held back wakes up 20 times in a second. A
	// turn of 20 ms would be smoother, for 50 wake-ups.
	paceTurn = 50 * time.Millisecond

	// paceDepth is how much of a limit may be read at once after a pause, or by a loop that is late.
	paceDepth = 100 * time.Millisecond

	// paceSegment is the least that is worth a turn: what a packet of Ethernet has of TCP. At less than 29 KB/s it is
	// more than what comes in within a paceTurn.
	paceSegment = 1448
)

// maxFreePaces is how many of them a loop keeps to be used again.
const maxFreePaces = 4096

// A pace is what a session with a limit of bandwidth has for it.
type pace struct {
	session *Session
	in, out lane
	timer   loop.Timer[pace]
	next    time.Duration // when it fires; 0 = it is stopped
	rested  time.Duration // when the last rest ends, see settleDown; 0 = there was none
}

// A lane is one direction of a session with a limit of bandwidth.
type lane struct {
	tokens gate.Bytes // of the session's limit

	reserved int           // bytes of the client's limit that the direction may read, from due on
	due      time.Duration // see reserved
	asked    int           // how much it has reserved last
	share    int           // how much it reserves next; 0 = it has reserved nothing yet

	until      time.Duration // nothing is read before
	waits      bool          // it has something to read, and waits until then
	unreported bool          // the poller does not report what arrives at the source
}

// limit gives a session what it needs to be paced, if its listener has a limit of bandwidth and it has not got it yet.
func (l *Loop) limit(s *Session) {
	session, client := s.listener.Bandwidth()
	if session == 0 && (client == 0 || !s.peer.IsValid()) {
		return
	}
	x := l.more(s)
	if x.pace != nil {
		return
	}
	p := l.freePaces.Take()
	p.session = s
	p.in.tokens.Fill(paceTurn, l.Now)
	p.out.tokens.Fill(paceTurn, l.Now)
	x.pace = p
}

// unlimit takes a session's pace away, if it has one.
func (l *Loop) unlimit(s *Session, x *extra) {
	p := x.pace
	if p == nil {
		return
	}
	l.pacing.Stop(&p.timer)
	giveBack(s, &p.in, gate.In)
	giveBack(s, &p.out, gate.Out)
	*p = pace{}
	l.freePaces.GiveUpTo(maxFreePaces, p)
	x.pace = nil
}

// laneOf returns the lane of a direction; nil if the session is not paced.
func (x *extra) laneOf(s *Session, d *direction) *lane {
	switch {
	case x.pace == nil:
		return nil
	case d == &s.in:
		return &x.pace.in
	}
	return &x.pace.out
}

// heldBack reports whether a side has sent something that waits for its turn.
func (s *Session) heldBack() bool {
	x := s.extra
	return x != nil && x.pace != nil && (x.pace.in.waits || x.pace.out.waits)
}

// onPace gives a session that was held back its turn.
func (l *Loop) onPace(p *pace) {
	p.next, p.in.waits, p.out.waits = 0, false, false
	l.relay(p.session)
}

// allowance is how many bytes a direction may read now, at most turnBytes. With 0 it has to wait, and gets a turn then.
func (l *Loop) allowance(s *Session, d *direction, from *conn) int {
	n := s.extra.laneOf(s, d)
	if n.unreported && from.peerDone {
		// Nothing more arrives. If there is an urgent byte's mark, which was not reported, it is reported now, before
		// anything is read: see conn.urgent.
		l.reportAgain(s, n, from)
		return 0
	}
	session, client := s.listener.Bandwidth()
	most := turnBytes
	at := n.until
	if session > 0 && at <= l.Now {
		turn := turnOf(session)
		has := n.tokens.Has(session, depthOf(turn), l.Now)
		if has < paceSegment {
			at = n.tokens.When(turn)
		}
		most = min(most, has)
	}
	if client > 0 && at <= l.Now && s.peer.IsValid() {
		if n.reserved == 0 {
			n.reserve(s, d, client, most, l.Now)
		}
		at = n.due
		most = min(most, n.reserved)
	}
	if at > l.Now {
		l.holdBack(s, n, from, at)
		return 0
	}
	n.waits = false
	return most
}

// reserve asks for a part of the client's bandwidth, at most so many bytes.
//
// The longer the line of those who ask, the less each asks for at a time, so that they take turns quickly; in a longer
// line they wake up less often all the same. The parts of two sessions become the same: half of the difference is left
// after each turn.
func (n *lane) reserve(s *Session, d *direction, rate int64, most int, now time.Duration) {
	turn := turnOf(rate)
	whole := bytesIn(turn, rate)
	least := min(whole, paceSegment)
	if n.share == 0 {
		n.share = max(whole/16, least) // a hundred may begin at once
	}
	n.asked = max(min(n.share, most), 1)
	wait := s.listener.ReserveBytes(s.peer.Addr(), s.wayOf(d), n.asked, now)
	n.reserved, n.due = n.asked, now+wait
	fair := int(float64(whole) * float64(turn) / float64(max(turn, wait)))
	n.share = max((n.share+fair)/2, least)
}

// spend takes what a direction has read out of its limits.
func (n *lane) spend(s *Session, read int) {
	if session, _ := s.listener.Bandwidth(); session > 0 {
		n.tokens.Take(session, read)
	}
	n.reserved = max(n.reserved-read, 0)
}

// giveBack returns to the client's limit what was reserved, and will not be read.
func giveBack(s *Session, n *lane, way gate.Direction) {
	if n.reserved > 0 {
		s.listener.ReturnBytes(s.peer.Addr(), way, n.reserved)
		n.reserved, n.due = 0, 0
	}
}

func (s *Session) wayOf(d *direction) gate.Direction {
	if d == &s.in {
		return gate.In
	}
	return gate.Out
}

// holdBack lets a direction read nothing until that moment.
func (l *Loop) holdBack(s *Session, n *lane, from *conn, until time.Duration) {
	n.until, n.waits = until, true
	if !n.unreported && !from.peerDone && !from.broken {
		n.unreported = true
		l.report(s, from, false)
	}
	if p := s.extra.pace; p.next == 0 || until < p.next {
		p.next = until
		l.pacing.Arm(&p.timer, p, until)
	}
}

// rest is called when a direction has read all there is. The source is reported again, unless there will be something
// at the next turn.
func (l *Loop) rest(s *Session, d *direction, n *lane, from *conn) {
	if n.unreported && !from.peerDone && !from.broken {
		if at := l.nextTurn(s, d, n); at > l.Now {
			from.readable = true // perhaps
			l.holdBack(s, n, from, at)
			return
		}
	}
	n.waits = false
	giveBack(s, n, s.wayOf(d))
	if n.unreported {
		l.reportAgain(s, n, from)
	}
}

// nextTurn is when a direction has a whole turn again, or 0 if it has used little of this one. A sender whose window is
// smaller than a turn fills it again at once, and each time would cost two events. The wait is as long as what was used
// stands for, so the sender loses nothing.
func (l *Loop) nextTurn(s *Session, d *direction, n *lane) time.Duration {
	session, client := s.listener.Bandwidth()
	if session > 0 {
		if at := n.tokens.When(turnOf(session)); at > l.Now {
			return at
		}
	}
	if client > 0 && n.reserved > 0 && gate.TimeOf(client, n.asked-n.reserved) > loop.Tick/2 {
		giveBack(s, n, s.wayOf(d))
		n.reserve(s, d, client, turnBytes, l.Now)
		return n.due
	}
	return 0
}

// turnOf is how much of a limit is read at once.
func turnOf(rate int64) time.Duration { return max(paceTurn, gate.TimeOf(rate, paceSegment)) }

func depthOf(turn time.Duration) time.Duration { return max(paceDepth, 2*turn) }

func bytesIn(turn time.Duration, rate int64) int { return int(turn.Seconds() * float64(rate)) }

// reportAgain lets the poller report what arrives at a direction's source. What has arrived before is reported at once.
func (l *Loop) reportAgain(s *Session, n *lane, from *conn) {
	n.unreported = false
	l.report(s, from, true)
}

func (l *Loop) report(s *Session, c *conn, on bool) {
	slot := backendSlot(s)
	if c == &s.client {
		slot = clientSlot(s)
	}
	l.conns.WatchInput(int(c.fd), slot, s.Generation(), on)
}
