package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// A session whose client has left looks like one whose client has asked its last question and waits for the answer: all
// that comes is a FIN. So it stays for half_close_timeout. While its listener is short of descriptors it stays for
// halfClosedPatience only, and makes room for a client that is there.
//
// halfClosedPatience is silence in which a backend that means to answer would have begun to, nearly always.
const halfClosedPatience = 3 * time.Second

// noteHalfClosed puts a session among those that may have to make room.
func (l *Loop) noteHalfClosed(s *Session) {
	if s.place == nil {
		s.place = l.freePlaces.Take()
		s.listener.halfClosed[l.Index].Add(s.place, s)
	}
}

// noHalfClosed takes a session out of those that may have to make room, if it is one of them.
func (l *Loop) noHalfClosed(s *Session) {
	if s.place != nil {
		s.listener.halfClosed[l.Index].Remove(s.place)
		l.freePlaces.GiveUpTo(maxFreePlaces, s.place)
		s.place = nil
	}
}

// maxFreePlaces is how many places among half-closed sessions a loop keeps to be used again.
const maxFreePlaces = 1024

// endHalfClosed ends sessions of a listener on this loop that are half closed and silent, those first that became so
// first. One with bytes that its peer has not taken yet is not over.
func (l *Loop) endHalfClosed(ls *Listener) {
	q := &ls.halfClosed[l.Index]
	for range acceptBatch {
		s := q.First()
		if s == nil {
			return
		}
		if l.Now < s.active+halfClosedPatience || s.in.held() || s.out.held() || s.heldBack() {
			q.Again(s.place)
			continue
		}
		l.end(s, tally.HalfClose)
	}
}
