package tlsconn

import "iter"

// maxIdleRoutines is how many coroutines without a handshake a thread keeps.
const maxIdleRoutines = 64

// A routine is a coroutine that calculates one handshake after the other. Its stack, which a handshake makes grow to
// 16 KB, stays with it. Used on its thread only.
type routine struct {
	of *handshake // nil while it is idle

	resume func() (struct{}, bool)
	stop   func()
	pause  func(struct{}) bool
}

func newRoutine() *routine {
	r := &routine{}
	r.resume, r.stop = iter.Pull(r.run)
	return r
}

// run is the coroutine. It begins with a handshake, and ends when it is stopped.
func (r *routine) run(pause func(struct{}) bool) {
	r.pause = pause
	for {
		h := r.of
		h.err = h.conn.tls.Handshake()
		h.over = true
		r.of = nil
		if !pause(struct{}{}) {
			return
		}
	}
}

// routines are those of a thread that are idle. The zero value is empty.
type routines []*routine

func (all *routines) take() *routine {
	last := len(*all) - 1
	if last < 0 {
		return newRoutine()
	}
	r := (*all)[last]
	*all = (*all)[:last]
	return r
}

func (all *routines) give(r *routine) {
	if len(*all) < maxIdleRoutines {
		*all = append(*all, r)
	} else {
		r.stop()
	}
}

// end ends all.
func (all *routines) end() {
	for _, r := range *all {
		r.stop()
	}
}
