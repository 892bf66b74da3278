package l4_test

import (
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A walk goes through a loop's sessions in slices, loop.sliceChunks times loop.slabChunk of them, which
// loop.TestSliceBounds holds. The loop flushes byte counters every loop.flushEvery.
const (
	sliceSessions = 2 * 128
	flushEvery    = 5 * time.Second
)

// skip takes the clock of the first loop ahead. Only that loop may read it meanwhile.
func skip(s *l4.Server, d time.Duration) {
	first := l4test.RoomsOf(s).Loops[0]
	l4test.OnLoop(s, 0, func() { first.Started = first.Started.Add(-d) })
}

// listOf is List of a server whose loops answer.
func listOf(t *testing.T, s *l4.Server, f l4.SessionFilter) l4.SessionList {
	t.Helper()
	list, err := s.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// field is a field of a struct of another package; path leads there through the fields that it is in.
func field(of any, path ...string) reflect.Value {
	v := reflect.ValueOf(of).Elem()
	for _, name := range path {
		v = v.FieldByName(name)
	}
	return v
}

// clientSocket is the descriptor of a session's client. onLoop.
func clientSocket(s *session.Session) int { return int(field(s, "client", "fd").Int()) }

// socketPlaces is how many places a loop has for listening sockets.
func socketPlaces(s *l4.Server, i int) (n int) {
	l4test.OnLoop(s, i, func() { n = field(l4test.RoomsOf(s).Sessions[i], "listening").Len() })
	return n
}

// waitingMail is how many messages wait in a loop's mailbox.
func waitingMail(s *l4.Server, i int) int {
	l := l4test.RoomsOf(s).Loops[i]
	mu := (*sync.Mutex)(unsafe.Pointer(field(l, "mailbox", "mu").UnsafeAddr()))
	mu.Lock()
	defer mu.Unlock()
	return field(l, "mailbox", "queue").Len()
}

// socketEvents is how many of a loop's listening sockets have a client, as its poller sees it. The loop must have no
// sessions, whose events would be lost.
func socketEvents(s *l4.Server, i int) (n int) {
	l := l4test.RoomsOf(s).Loops[i]
	poller := *(**sock.Poller)(unsafe.Pointer(field(l, "poller").UnsafeAddr()))
	wake := (*sock.Wakeup)(unsafe.Pointer(field(l, "mailbox", "wake").UnsafeAddr()))
	l4test.OnLoop(s, i, func() {
		for e := range poller.Wait(0) {
			if key, _ := poller.Event(e).Key(); key != 0 { // 0 is the mailbox, the loop's first source
				n++
			}
		}
		wake.Signal() // its event may have been one of them
	})
	return n
}

// capacity is how many sessions the process has descriptors for.
func capacity(s *l4.Server) int64 {
	sessions, _ := l4test.FlowBudget(s)
	return sessions.Load()
}
