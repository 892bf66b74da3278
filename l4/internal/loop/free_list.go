package loop

// A FreeList keeps the memory of values that are over, to be used again for later ones. Used onLoop only; the zero
// value is empty.
type FreeList[T any] struct{ free []*T }

// Take returns a value as it was given back, or a new one.
func (f *FreeList[T]) Take() *T {
	last := len(f.free) - 1
	if last < 0 {
		return new(T)
	}
	x := f.free[last]
	f.free[last] = nil
	f.free = f.free[:last]
	return x
}

// Give takes a value back, which the caller must not use again.
func (f *FreeList[T]) Give(x *T) { f.free = append(f.free, x) }

// GiveUpTo is Give while there are fewer than most. More were a burst, and go to the garbage collector.
func (f *FreeList[T]) GiveUpTo(most int, x *T) {
	if len(f.free) < most {
		f.Give(x)
	}
}
