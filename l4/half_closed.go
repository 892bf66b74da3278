package l4

import "time"

// A session whose client has left looks like one whose client has asked its last question and waits for the answer: all
// that comes is a FIN. So it stays for half_close_timeout. While its listener is short of descriptors it stays for
// halfClosedPatience only, and makes room for a client that is there.
//
// halfClosedPatience is silence in which a backend that means to answer would have begun to, nearly always.
const halfClosedPatience = 3 * time.Second

// noteHalfClosed has a session stand among those that may have to make room.
func (l *loop) noteHalfClosed(s *session) {
	if s.place.of == nil {
		s.listener.halfClosed[l.index].add(&s.place, s)
	}
}

// endHalfClosed ends sessions of a listener on this loop that are half closed and silent, those first that became so
// first. One with bytes that its peer has not taken yet is not over.
func (l *loop) endHalfClosed(ls *listener) {
	q := &ls.halfClosed[l.index]
	for range acceptBatch {
		if q.first == nil {
			return
		}
		s := q.first.of
		if l.now < s.active+halfClosedPatience || s.in.held() || s.out.held() {
			q.again(&s.place)
			continue
		}
		l.end(s, HalfClose)
	}
}
