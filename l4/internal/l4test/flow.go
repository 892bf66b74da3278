package l4test

import (
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/listen"
)

// FlowBudget is what the gate shares out among flows: the sessions that it has descriptors for, of two flows each, and
// local ports. Apply measures both anew.
func FlowBudget(s *l4.Server) (sessions, ports *atomic.Int64) {
	g := RoomsOf(s).Gate
	return field[atomic.Int64](g, "capacity"), field[atomic.Int64](g, "ports")
}

// Draining reports whether a server's Shutdown waits for the last session and flow.
func Draining(s *l4.Server) bool { return field[atomic.Bool](RoomsOf(s).Gate, "draining").Load() }

// ListenerOf returns what the gate knows of a listener, and the listener's sockets at the first of its
// addresses. Both stay of use when the listener
// is gone.
func ListenerOf(s *l4.Server, name string) (*gate.Listener, *listen.Binding) {
	ls := listenerNamed(s, name)
	of := reflect.NewAt(ls.Type().Elem(), ls.UnsafePointer()).Interface()
	return *field[*gate.Listener](of, "gate"), (*field[[]*listen.Binding](of, "bound"))[0]
}

// listenerNamed is a pointer to the server's listener of that name, to one of them if there are two; zero if there is
// none.
func listenerNamed(s *l4.Server, name string) (ls reflect.Value) {
	for each := reflect.ValueOf(s).Elem().FieldByName("listeners").MapRange(); each.Next(); {
		if each.Key().FieldByName("name").String() == name {
			return each.Value()
		}
	}
	return ls
}

// Unanswered is how many flows of a listener were never answered.
func Unanswered(ls *gate.Listener) int { return int(field[atomic.Int64](ls, "unanswered").Load()) }

// Line returns the log's next line as it was written.
func Line(t *testing.T, c *Capture) []byte {
	t.Helper()
	select {
	case line := <-c.lines:
		return line
	case <-time.After(Patience):
		t.Fatal("no line")
		return nil
	}
}
