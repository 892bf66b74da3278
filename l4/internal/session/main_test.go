package session_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// anySession reports whether f holds for a session of the server's first loop. f is called on that loop.
func anySession(s *l4.Server, f func(*session.Session) bool) (found bool) {
	l4test.OnLoop(s, 0, func() {
		sessions := l4test.RoomsOf(s).Sessions[0]
		for next := 0; next >= 0; {
			next = sessions.Some(next, func(one *session.Session) { found = found || f(one) })
		}
	})
	return found
}
