package l4test

import (
	"sync/atomic"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/session"
)

// Lines returns the lines of the log that Next has not taken, for a test that also waits for something else.
func (c *Capture) Lines() <-chan []byte { return c.lines }

// SetPrefaces gives the TCP listener of a name these prefaces, for sessions that begin from now on. The listener's
// other settings stay. It must not be called while another goroutine changes the server's listeners.
func SetPrefaces(s *l4.Server, name string, openers ...session.Opener) {
	listener := listenerNamed(s, name).Elem()
	tcp := (*session.Listener)(listener.FieldByName("tcp").UnsafePointer())
	settings := *field[atomic.Pointer[session.Settings]](tcp, "settings").Load()
	settings.Prefaces = openers
	tcp.Set(&settings)
}
