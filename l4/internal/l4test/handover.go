package l4test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// Wired is v after it was written as JSON and read again, as it comes to another process.
func Wired[T any](t testing.TB, v T) (read T) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return read
}

// Sent is a descriptor as it comes to another process by SCM_RIGHTS.
func Sent(t testing.TB, fd int) int {
	t.Helper()
	other, err := sock.Duplicate(fd)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// A HandOver is two servers of one process, of which one hands over to the other.
type HandOver struct {
	t        testing.TB
	From, To *l4.Server
	H        *l4.Handover
}

// BeginHandOver makes and starts the server that takes over.
func BeginHandOver(t testing.TB, from *l4.Server, o l4.Options, specs ...l4.ListenerSpec) *HandOver {
	t.Helper()
	h, err := from.HandOver()
	if err != nil {
		t.Fatal(err)
	}
	sockets := h.Sockets()
	o.Sockets = Wired(t, sockets)
	for i := range sockets {
		o.Sockets[i].FD = Sent(t, sockets[i].FD)
	}
	return &HandOver{t, from, StartUnix(t, o, specs...), h}
}

// Move moves up to most sessions or flows, once, and returns how many were moved and how many refused.
func (u *HandOver) Move(p l4.Protocol, most int) (moved, refused int) {
	u.t.Helper()
	m := u.H.Detach(p, most)
	if len(m) == 0 {
		return 0, 0
	}
	if len(m) > most {
		u.t.Errorf("%d were detached, want %d at most", len(m), most)
	}
	got := Wired(u.t, m)
	for i := range m {
		for _, fd := range m[i].FDs {
			got[i].FDs = append(got[i].FDs, Sent(u.t, fd))
		}
	}
	taking := u.To.TakeOver(got)
	var back []l4.Moving
	gone := slices.Clone(m)
	for k := len(taking.Refused) - 1; k >= 0; k-- {
		i := taking.Refused[k]
		back = append(back, m[i])
		gone = append(gone[:i], gone[i+1:]...)
	}
	taking.Begin()
	u.H.Moved(gone)
	u.H.Returned(back)
	return len(gone), len(back)
}

// MoveAll moves all that comes to rest until n are moved.
func (u *HandOver) MoveAll(p l4.Protocol, n int) {
	u.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for left := n; left > 0; {
		moved, _ := u.Move(p, 7)
		if left -= moved; moved == 0 && time.Now().After(deadline) {
			of, _ := u.H.Left(u.t.Context())
			u.t.Fatalf("%d of %d were not moved: %v", left, n, of)
		}
	}
}

// Pause stops admitting on one side, and flows moves what was admitted before the other side begins.
func (u *HandOver) Pause(flows int) {
	u.t.Helper()
	u.H.Pause()
	u.MoveAll(l4.UDP, flows)
	u.To.Admit()
}

// Finish ends the server that has handed over.
func (u *HandOver) Finish() {
	u.t.Helper()
	u.To.AddCounters(Wired(u.t, u.H.Counters()))
	u.H.Finish()
	if err := u.From.Shutdown(u.t.Context()); err != nil {
		u.t.Error(err)
	}
	u.To.AddCounters(Wired(u.t, u.H.Counters()))
}
