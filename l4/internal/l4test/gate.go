package l4test

import "github.com/limeload/limeload-l4/l4"

// PausedSockets is how many listening sockets of all loops accept nobody, since there is no descriptor for their
// clients.
func PausedSockets(s *l4.Server) (n int) {
	rooms := RoomsOf(s)
	for i := range rooms.Loops {
		OnLoop(s, i, func() { n += *field[int](rooms.Sessions[i], "paused") })
	}
	return n
}
