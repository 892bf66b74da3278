package l4

// A spares is things that are over and whose memory is used again for later ones. Used onLoop only; the zero value is empty.
type spares[T any] struct{ free []*T }

// take returns one as it was given, or a new one.
func (s *spares[T]) take() *T {
	last := len(s.free) - 1
	if last < 0 {
		return new(T)
	}
	x := s.free[last]
	s.free[last] = nil
	s.free = s.free[:last]
	return x
}

// give takes one back, which the caller must not use again.
func (s *spares[T]) give(x *T) { s.free = append(s.free, x) }

// giveUpTo is give while there are fewer than so many; more were a burst, and go to the garbage collector.
func (s *spares[T]) giveUpTo(most int, x *T) {
	if len(s.free) < most {
		s.give(x)
	}
}
