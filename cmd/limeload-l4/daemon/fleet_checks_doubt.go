package daemon

import (
	"fmt"
	"time"
)

// This file has the rules by which a node finds out that it is cut off. fleet_checks_alone.go does what follows.

const (
	// lateView is how late a look may be. If it is later, the process was stopped, or got no CPU time, and so were its
	// checks: that time does not count.
	lateView = 4 * viewEvery
	// deadWords is a little longer than a node may hear what a dead node has said, which is the time of its lease. After
	// that it is certain that others reach what this one does not.
	deadWords = 15 * time.Second
)

// A reach is how many hosts this node's checks reach. It is a plain value.
type reach struct {
	hosts, reached int // that it checks
	// of those that it does not reach: hosts that other nodes check, and that they reach
	judged, elsewhere int
	others            int  // that the node does not check, and could
	peers             bool // there are other nodes that share checks
}

// cutOff reports whether the node reaches none, or nearly none: a backend on the node itself always answers.
func (r reach) cutOff() bool { return r.hosts > 0 && r.reached*10 <= r.hosts }

// A selfDoubt is what a node thinks of itself. A node that reaches none of its hosts doubts itself at once: its own
// verdicts do not count, neither here nor elsewhere, and it checks more hosts. It goes on to doubt while other nodes
// reach what it does not. If that lasts, the node is alone: it is not ready, and takes part in nothing.
// sharedChecks.mu guards it.
type selfDoubt struct {
	failing time.Time // since when the node reaches none; zero: it reaches some
	doubts  time.Time // since when; zero: it does not
	alone   time.Time // since when; zero: it is not
	calm    time.Time // since when nobody else reaches anything, while it is alone; zero: somebody does
	reach   reach
	linked  bool // to etcd

	viewed time.Time // when reach was looked at
}

// isAlone reports whether the node is alone.
func (s *selfDoubt) isAlone() bool { return !s.alone.IsZero() }

// isDoubting reports whether the node's own verdicts do not count.
func (s *selfDoubt) isDoubting() bool { return s.isAlone() || !s.doubts.IsZero() }

// see takes up what the node reaches. after is how long a doubt lasts before the node is alone: others must have had
// the time to find out the same. If nobody reaches anything, the doubt ends then, too: the backends are down. With one
// host in all there is nothing to doubt.
//
// If others reach some of the hosts, and no more than half of them, they may have died with the others, and be heard
// until their leases end. So that takes longer.
//
// Without a connection to etcd nobody knows what others reach. Then two hosts that fail at once are enough: they rather
// fail here than both there. A fleet of one node has nobody to ask, and believes itself.
func (s *selfDoubt) see(now time.Time, r reach, linked bool, after time.Duration) {
	if late := now.Sub(s.viewed); !s.viewed.IsZero() && late > lateView {
		for _, t := range []*time.Time{&s.failing, &s.doubts, &s.calm} {
			if !t.IsZero() {
				*t = t.Add(late)
			}
		}
	}
	s.reach, s.linked, s.viewed = r, linked, now
	switch {
	case !r.cutOff():
		s.failing = time.Time{}
	case s.failing.IsZero():
		s.failing = now
	}
	cut := r.cutOff() && (linked && r.elsewhere > 0 || !linked && r.hosts > 1)
	perhaps := r.cutOff() && linked && r.peers && r.hosts+r.others > 1 && now.Sub(s.failing) < after
	if s.isAlone() {
		switch {
		case cut:
			s.calm = time.Time{}
		case r.hosts > 0 && !r.cutOff():
			s.alone, s.doubts, s.calm = time.Time{}, time.Time{}, time.Time{}
		case s.calm.IsZero():
			s.calm = now
		case now.Sub(s.calm) >= after:
			s.alone, s.doubts, s.calm = time.Time{}, time.Time{}, time.Time{}
		}
		return
	}
	switch {
	case !cut && !perhaps:
		s.doubts = time.Time{}
	case s.doubts.IsZero():
		s.doubts = now
	case cut && now.Sub(s.doubts) >= after && (!linked || r.elsewhere*2 > r.judged),
		cut && now.Sub(s.doubts) >= after+deadWords:
		s.alone = now
	}
}

// reason says why the node is alone; "" if it is not.
func (s *selfDoubt) reason() string {
	r := s.reach
	switch {
	case !s.isAlone():
		return ""
	case s.linked:
		return fmt.Sprintf(
			"alone: this node reaches %d of the %d hosts that it checks, and other nodes reach %d of the other %d",
			r.reached, r.hosts, r.elsewhere, r.hosts-r.reached)
	}
	return fmt.Sprintf("alone: this node reaches %d of the %d hosts that it checks, and it does not reach etcd either",
		r.reached, r.hosts)
}
