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

// ListenerOf returns what the gate knows of a listener, and the listener's sockets. Both stay of use when the listener
// is gone.
func ListenerOf(s *l4.Server, name string) (*gate.Listener, *listen.Binding) {
	listeners := reflect.ValueOf(s).Elem().FieldByName("listeners")
	ls := listeners.MapIndex(reflect.ValueOf(name)).UnsafePointer()
	of := reflect.NewAt(listeners.Type().Elem().Elem(), ls).Interface()
	return *field[*gate.Listener](of, "gate"), *field[*listen.Binding](of, "bound")
}

// Unanswered is how many flows of a listener were never answered.
func Unanswered(ls *gate.Listener) int { return int(field[atomic.Int64](ls, "unanswered").Load()) }

// Line returns the log's next line as it was written.
func Line(t *testing.T, c *Capture) []byte {
	t.Helper()
	select {
	case line := <-c.lines:
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("no line")
		return nil
	}
}
