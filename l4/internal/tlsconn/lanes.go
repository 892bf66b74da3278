package tlsconn

import (
	"hash/maphash"
	"net/netip"
)

// laneCount is how many lines handshakes wait in, each in the one that a hash of its client's address says. Lines have
// their turn one after the other, so that a client with thousands of handshakes delays only the few that share its line
// (stochastic fairness queueing, McKenney, INFOCOM 1990).
const laneCount = 64

var laneSeed = maphash.MakeSeed() // which a client cannot know, so that it cannot choose the line of another

// LaneOf is the line of a client. All addresses of an IPv6 network of 64 bits have one.
func LaneOf(a netip.Addr) uint8 {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return uint8(maphash.Comparable(laneSeed, p) % laneCount)
}

// Lanes are lines of what waits for its turn. The zero value is empty. They are not safe for concurrent use.
type Lanes[T any] struct {
	of      [laneCount][]T
	turns   []uint8 // the lines that are not empty, in the order of their turns
	waiting int
}

// Waiting is how many wait.
func (l *Lanes[T]) Waiting() int { return l.waiting }

// Put makes one wait in the line that LaneOf says.
func (l *Lanes[T]) Put(lane uint8, one T) {
	line := &l.of[lane]
	if len(*line) == 0 {
		l.turns = append(l.turns, lane)
	}
	*line = append(*line, one)
	l.waiting++
}

// First returns whose turn it is, and the zero value if none waits.
func (l *Lanes[T]) First() (first T) {
	if l.waiting > 0 {
		first = l.of[l.turns[0]][0]
	}
	return first
}

// Take is First, and takes it out of its line: then the next line has its turn.
func (l *Lanes[T]) Take() (first T) {
	if l.waiting == 0 {
		return first
	}
	lane := l.turns[0]
	l.turns = append(l.turns[:0], l.turns[1:]...)
	line := &l.of[lane]
	var none T
	first, (*line)[0] = (*line)[0], none
	*line = (*line)[1:]
	if len(*line) > 0 {
		l.turns = append(l.turns, lane)
	} else {
		*line = nil
	}
	l.waiting--
	return first
}
